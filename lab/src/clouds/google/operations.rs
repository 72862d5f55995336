//! Operations: how a mutation becomes true.

use std::time::Duration;

use serde_json::{Value, json};
use tieline_openapi::v1::Timestamp;

use super::{
    names::BASE,
    query::Query,
    resources::{Attachment, Router},
    state::Google,
    wire::GoogleError,
};

/// How many operation records are kept.
const RECORDS: usize = 5_000;

/// What an operation does when it is done.
#[derive(Debug, Clone)]
pub(super) enum Effect {
    /// Gives the inserted attachment its addresses.
    InsertAttachment(String),
    PatchAttachment(Box<Attachment>),
    DeleteAttachment(String),
    SetRouter(Box<Router>),
}

/// An operation that is not done yet, or its record.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) verb: &'static str,
    /// The target's path below `/compute/v1/`.
    pub(super) target: String,
    pub(super) target_id: String,
    pub(super) inserted: Timestamp,
    pub(super) request_id: Option<String>,
    pub(super) started: Option<Timestamp>,
    pub(super) ended: Option<Timestamp>,
    pub(super) error: Option<(&'static str, String)>,
    pub(super) effect: Option<Effect>,
}

impl Operation {
    /// The instants at which it starts and ends.
    pub(super) fn times(&self, google: &Google) -> (Timestamp, Timestamp) {
        let after = |at: Timestamp, ms| at.checked_add(Duration::from_millis(ms)).unwrap_or(Timestamp::MAX);
        let starts = after(self.inserted, google.delays.operation_pending_ms);
        (starts, after(starts, google.delays.operation_running_ms))
    }

    pub(super) fn show(&self, region_path: &str) -> Value {
        let status = match (self.started, self.ended) {
            (_, Some(_)) => "DONE",
            (Some(_), None) => "RUNNING",
            (None, None) => "PENDING",
        };
        let progress = match status {
            "DONE" => 100,
            _ => 0,
        };
        let mut shown = json!({
            "kind": "compute#operation", "id": self.id, "name": self.name, "operationType": self.verb,
            "targetLink": format!("{BASE}{}", self.target), "targetId": self.target_id,
            "status": status, "user": "tieline-lab@tieline-lab.iam.gserviceaccount.com", "progress": progress,
            "insertTime": self.inserted.to_string(), "region": format!("{BASE}{region_path}"),
            "selfLink": format!("{BASE}{region_path}/operations/{}", self.name),
        });
        if let Some(at) = self.started {
            shown["startTime"] = json!(at.to_string());
        }
        if let Some(at) = self.ended {
            shown["endTime"] = json!(at.to_string());
        }
        if let Some(id) = &self.request_id {
            shown["clientOperationId"] = json!(id);
        }
        if let Some((code, message)) = &self.error {
            shown["error"] = json!({ "errors": [{ "code": code, "message": message }] });
            shown["httpErrorStatusCode"] = json!(400);
            shown["httpErrorMessage"] = json!("BAD REQUEST");
        }
        shown
    }
}

impl Google {
    /// The operation that the same request has already made, while Google still knows it.
    pub(super) fn replay(
        &self,
        query: &Query,
        verb: &str,
        target: &str,
        now: Timestamp,
    ) -> Result<Option<Value>, GoogleError> {
        let Some(id) = &query.request_id else { return Ok(None) };
        if uuid::Uuid::parse_str(id).map_or(true, |uuid| uuid.is_nil()) {
            let message =
                format!("Invalid value for field 'requestId': '{id}'. Must be a valid UUID, and not the zero one.");
            return Err(GoogleError::new(400, "invalid", message));
        }
        let fresh = |op: &&Operation| {
            let until = op.inserted.checked_add(self.request_id_lifetime).unwrap_or(Timestamp::MAX);
            op.request_id.as_ref() == Some(id) && until > now
        };
        match self.operations.iter().find(fresh) {
            Some(op) if op.verb == verb && op.target == target => Ok(Some(op.show(&self.region_path()))),
            Some(_) => Err(GoogleError::new(400, "invalid", format!("requestId '{id}' was used by another request."))),
            None => Ok(None),
        }
    }

    /// Whether an operation is at work on a resource.
    pub(super) fn busy(&self, target: &str) -> bool {
        self.operations.iter().any(|op| op.ended.is_none() && op.target == target)
    }

    pub(super) fn begin(
        &mut self,
        query: &Query,
        verb: &'static str,
        target: String,
        target_id: String,
        effect: Effect,
        now: Timestamp,
    ) -> Value {
        let number = self.draw.number();
        let operation = Operation {
            id: number.to_string(),
            name: format!("operation-{}-{:x}", now.as_millisecond(), number),
            verb,
            target,
            target_id,
            inserted: now,
            request_id: query.request_id.clone(),
            started: None,
            ended: None,
            error: None,
            effect: Some(effect),
        };
        let shown = operation.show(&self.region_path());
        self.operations.push(operation);
        if self.operations.len() > RECORDS {
            let oldest_done = self.operations.iter().position(|op| op.ended.is_some());
            oldest_done.map(|at| self.operations.remove(at));
        }
        shown
    }

    /// Moves every operation to where it should be at `now`. True where something moved.
    pub(super) fn run_operations(&mut self, now: Timestamp) -> bool {
        let mut moved = false;
        for i in 0..self.operations.len() {
            let (starts, ends) = self.operations[i].times(self);
            if self.operations[i].started.is_none() && starts <= now {
                self.operations[i].started = Some(starts);
                moved = true;
            }
            if self.operations[i].ended.is_none() && ends <= now {
                let outcome = self.operations[i].effect.take().map_or(Ok(()), |effect| self.apply(effect, ends));
                self.operations[i].error = outcome.err();
                self.operations[i].ended = Some(ends);
                moved = true;
            }
        }
        moved
    }

    fn apply(&mut self, effect: Effect, at: Timestamp) -> Result<(), (&'static str, String)> {
        match effect {
            Effect::InsertAttachment(name) => self.finish_insert(&name, at),
            Effect::PatchAttachment(new) => {
                if let Some(attachment) = self.attachments.iter_mut().find(|a| a.name == new.name) {
                    attachment.description = new.description;
                    attachment.mtu = new.mtu;
                    attachment.bandwidth = new.bandwidth;
                    attachment.admin_enabled = new.admin_enabled;
                }
                Ok(())
            }
            Effect::DeleteAttachment(name) => {
                self.attachments.retain(|a| a.name != name);
                Ok(())
            }
            Effect::SetRouter(new) => {
                if let Some(router) = self.routers.iter_mut().find(|r| r.name == new.name) {
                    *router = *new;
                }
                Ok(())
            }
        }
    }
}
