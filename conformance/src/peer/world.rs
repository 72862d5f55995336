//! A well-behaved Responder: keys, connections, and how they are answered.

use serde_json::{Value, json};
use tieline_openapi::coordinator::{Method, OperationId as Op};

use super::{
    heard::Heard,
    plot::{Held, Key, Said, State, brought},
    stage::Statics,
};

impl State {
    /// Answers the request that was heard n-th.
    pub(super) fn serve(&mut self, at: usize, statics: &Statics) -> Said {
        let Some(heard) = self.heard.get(at).cloned() else { return Said::no(500, "the suite lost a request") };
        let id = heard.request_id().filter(|_| !self.manners.published).map(str::to_owned);
        if let Some((content, said)) = id.as_ref().and_then(|id| self.replays.get(id)) {
            let same = *content == heard.content();
            return if same { said.clone() } else { Said::no(409, "requestId was used for another request") };
        }
        let mut said = self.act(&heard, statics);
        if let Some(id) = id.filter(|_| heard.op.mutates()) {
            self.replays.insert(id, (heard.content(), said.clone()));
        }
        if self.manners.adorned && heard.op.method() != Method::Delete {
            adorn(&mut said.body);
        }
        said
    }

    fn act(&mut self, heard: &Heard, statics: &Statics) -> Said {
        match heard.op {
            Op::ConfirmActivationKey => self.confirm(heard),
            Op::CreateConnection => self.create(heard, statics),
            Op::ListConnections => self.connections_of(heard),
            Op::GetConnection
            | Op::UpdateConnection
            | Op::DeleteConnection
            | Op::GenerateFeatureGuidance
            | Op::NotifyConnectionStatus
            | Op::ListFeatures
            | Op::CreateFeature
            | Op::GetFeature
            | Op::UpdateFeature
            | Op::DeleteFeature => self.of_connection(heard, statics),
            Op::NotifyMaintenance
            | Op::RequestMacSecKeyRotation
            | Op::GetMaintenanceEvents
            | Op::CreateMacSecKey
            | Op::ListMacSecKeys
            | Op::GetMacSecKey
            | Op::DeleteMacSecKey => statics.serve(heard),
            Op::ListProviders
            | Op::GetProvider
            | Op::ListEnvironments
            | Op::GetEnvironment
            | Op::GetActivationKeyParameters
            | Op::ListInterconnects
            | Op::GetInterconnect
            | Op::ListChannels
            | Op::GetChannel
            | Op::ListIssues
            | Op::CreateIssue
            | Op::GetIssue
            | Op::CloseIssue
            | Op::ListComments
            | Op::AddComment => statics.serve(heard),
        }
    }

    fn key(&mut self, body: &Value) -> Option<&mut Key> {
        let text = brought(body)?;
        self.keys.iter_mut().find(|key| key.text.expose() == text)
    }

    fn confirm(&mut self, heard: &Heard) -> Said {
        let environment = heard.id("environment").to_owned();
        let key = self.key(&heard.body).filter(|key| key.environment == environment);
        Said::good(json!({ "keyValid": key.is_some_and(|key| key.valid && !key.spent) }))
    }

    fn create(&mut self, heard: &Heard, statics: &Statics) -> Said {
        let Some(name) = heard.connection() else { return Said::no(400, "connectionId is required") };
        let Some(bandwidth) = heard.body["bandwidthMbps"].as_i64() else {
            return Said::no(400, "bandwidthMbps is required");
        };
        if self.tombstones.contains(&name) {
            return Said::no(409, "a connection of this name was deleted");
        }
        if self.connections.contains_key(&name) {
            return Said::no(409, "the connection is there already");
        }
        if !statics.has(&heard.interconnect()) {
            return Said::no(404, "there is no such interconnect");
        }
        if heard.body["deferProvisioning"] == json!(true) && !self.manners.takes_deferral {
            return Said::no(400, "provisioning is not taken over here");
        }
        let source = heard.body["sourceData"]["sourceConnectionName"].as_str().filter(|_| !self.manners.published);
        let uuid = match source {
            Some(from) => match self.connections.get(from) {
                Some(held) if held.bandwidth_mbps == bandwidth => held.uuid.clone(),
                Some(_) | None => return Said::no(400, "the source is no connection that could move here"),
            },
            None => match self.take(heard, bandwidth) {
                Ok(uuid) => uuid,
                Err(said) => return said,
            },
        };
        let kind = heard.body["connectionType"].clone();
        let held = Held { uuid, bandwidth_mbps: bandwidth, kind, ..Held::default() };
        self.connections.insert(name.clone(), held);
        Said::good(self.shown(&name))
    }

    /// Uses the key up that a new connection is made from.
    fn take(&mut self, heard: &Heard, bandwidth: i64) -> Result<String, Said> {
        let wrong = || Said::no(400, "the activation key is not valid");
        // The published revision knows no other place for it.
        let published = self.manners.published.then(|| json!({ "activationKey": heard.body["activationKey"] }));
        let environment = heard.id("environment").to_owned();
        let key = self.key(published.as_ref().unwrap_or(&heard.body)).ok_or_else(wrong)?;
        let fits = key.environment == environment && i64::from(key.contents.bandwidth.get()) == bandwidth;
        if !fits || key.spent || !key.valid {
            return Err(wrong());
        }
        key.spent = true;
        Ok(key.contents.shared_connection_uuid.to_string())
    }

    /// A connection as the suite shows it.
    pub(super) fn shown(&self, name: &str) -> Value {
        let held = self.connections.get(name).cloned().unwrap_or_default();
        let state = if held.finished { "VERIFIED" } else { "UNVERIFIED" };
        let mut shown = json!({
            "name": name,
            "bandwidthMbps": held.bandwidth_mbps,
            "adminState": "ADMIN_STATE_ENABLED",
            "verificationState": format!("VERIFICATION_STATE_{state}"),
        });
        if held.kind.is_string() && !self.manners.published {
            shown["connectionType"] = held.kind;
        }
        shown
    }

    fn connections_of(&self, heard: &Heard) -> Said {
        let parent = format!("{}/connections/", heard.interconnect());
        let all = self.connections.keys().filter(|name| name.starts_with(&parent)).map(|name| self.shown(name));
        self.page(heard, "connections", all.collect())
    }

    /// The part of a list that is asked for. A token is where the next page begins.
    pub(super) fn page(&self, heard: &Heard, field: &str, all: Vec<Value>) -> Said {
        let from: usize = heard.asked("pageToken").and_then(|token| token.parse().ok()).unwrap_or(0);
        let size = self.manners.page_size.unwrap_or(usize::MAX);
        let next = from.saturating_add(size);
        let more = next < all.len();
        let mut body = json!({ field: all.into_iter().skip(from).take(size).collect::<Vec<_>>() });
        if more {
            body["nextPageToken"] = json!(next.to_string());
        }
        Said::good(body)
    }

    fn of_connection(&mut self, heard: &Heard, statics: &Statics) -> Said {
        let none = || Said::no(404, "there is no such connection");
        let Some(name) = heard.connection() else { return none() };
        if !self.connections.contains_key(&name) {
            return none();
        }
        let op = heard.op;
        if op == Op::UpdateConnection {
            return self.update(&name, heard, statics);
        }
        if op == Op::GenerateFeatureGuidance {
            return self.guidance(heard, statics);
        }
        if op == Op::CreateFeature {
            return self.create_feature(&name, heard, statics);
        }
        if matches!(op, Op::GetFeature | Op::UpdateFeature | Op::DeleteFeature) {
            return self.of_feature(&name, heard);
        }
        if op == Op::ListFeatures {
            let held = self.connections.get(&name).cloned().unwrap_or_default();
            let all = held.features.keys().map(|feature| self.feature_shown(&name, feature)).collect();
            return self.page(heard, "features", all);
        }
        if op == Op::DeleteConnection {
            self.end(name);
            return Said::good(json!({}));
        }
        // What is left reads the connection, or tells that it changed.
        Said::good(if op == Op::GetConnection { self.shown(&name) } else { json!({}) })
    }

    /// A connection is gone, and with its last place its key.
    pub(crate) fn end(&mut self, name: String) {
        if let Some(held) = self.connections.remove(&name) {
            let still = self.connections.values().any(|other| other.uuid == held.uuid);
            let spent = |key: &&mut Key| key.contents.shared_connection_uuid.to_string() == held.uuid && !still;
            self.keys.iter_mut().filter(spent).for_each(|key| key.spent = true);
        }
        self.tombstones.insert(name);
    }

    fn update(&mut self, name: &str, heard: &Heard, statics: &Statics) -> Said {
        let mask = heard.asked("updateMask").unwrap_or("bandwidthMbps");
        let Some(to) = heard.body["bandwidthMbps"].as_i64().filter(|_| mask == "bandwidthMbps") else {
            return Said::no(400, "only bandwidthMbps can be changed");
        };
        if !statics.sizes(&heard.interconnect()).contains(&to) {
            return Said::no(400, "the bandwidth is none of the supported sizes");
        }
        if let Some(held) = self.connections.get_mut(name) {
            held.bandwidth_mbps = to;
        }
        Said::good(self.shown(name))
    }
}

/// What a peer of a later revision might say beside the rest: it must not disturb.
fn adorn(body: &mut Value) {
    match body {
        Value::Object(members) => {
            for member in members.values_mut() {
                adorn(member);
            }
            if members.contains_key("adminState") {
                members.insert("futureState".to_owned(), json!("FUTURE_STATE_BRIGHT"));
            }
            if members.contains_key("provisioningState") {
                members.insert("provisioningState".to_owned(), json!("PROVISIONING_STATE_WARMING_UP"));
            }
            members.insert("fieldOfALaterRevision".to_owned(), json!({ "value": [1, "two"] }));
        }
        Value::Array(items) => items.iter_mut().for_each(adorn),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
