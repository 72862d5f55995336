//! What users see of a connection's way: state, stages, operation. Pure.

use tieline_openapi::{
    problem::{Problem, ProblemCode, ProviderDetail},
    v1::{ConditionStatus, End, Operation, OperationKind, OperationState, Stage, StageState, Timestamp, Verb},
};
use tieline_providers::{Presence, ResourceSpec};

use super::draft::Draft;
use crate::{
    plan::step::{Instance, RuleBook, Seen, Trouble, Verdict},
    state::{self, CLOUD_CONDITIONS, Facts},
    store::{ConnectionRecord, EngineStatus, StatusReason},
    topology::Topology,
};

/// How a pass ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// There is more to do at once.
    Again,
    /// Nothing can be done before this time.
    Wait { until: Timestamp },
    /// A person must look.
    Trouble { troubles: Vec<Trouble>, until: Timestamp },
    /// Both clouds hold what is wanted.
    Settled,
    /// Nothing is left.
    Gone,
}

impl Ending {
    pub(super) fn troubles(&self) -> &[Trouble] {
        match self {
            Self::Trouble { troubles, .. } => troubles,
            Self::Again | Self::Wait { .. } | Self::Settled | Self::Gone => &[],
        }
    }

    /// Adds what was found outside of the step function.
    pub(super) fn add_stuck<'a>(&mut self, stuck: impl Iterator<Item = &'a Trouble>, at: Timestamp) {
        for trouble in stuck {
            match self {
                Self::Trouble { troubles, .. } if troubles.contains(trouble) => {}
                Self::Trouble { troubles, .. } => troubles.push(trouble.clone()),
                Self::Again | Self::Wait { .. } | Self::Settled | Self::Gone => {
                    *self = Self::Trouble { troubles: vec![trouble.clone()], until: at };
                }
            }
        }
    }
}

/// What a pass has to tell.
pub(super) struct Report<'a> {
    draft: &'a Draft,
    topology: &'a Topology,
    ending: &'a Ending,
    now: Timestamp,
    /// The record with what the pass has found.
    found: ConnectionRecord,
    facts: Facts,
}

impl<'a> Report<'a> {
    pub(super) fn new(draft: &'a Draft, topology: &'a Topology, ending: &'a Ending, now: Timestamp) -> Self {
        let mut found = draft.record.clone();
        found.instances.clone_from(&draft.instances);
        if !draft.wanted.is_empty() {
            found.negotiated.channels.clone_from(&draft.wanted);
        }
        if matches!(ending, Ending::Settled) {
            found.observed_generation = found.generation;
        }
        let facts = Facts::of(&found, topology.probe.report_ms, now);
        Self { draft, topology, ending, now, found, facts }
    }

    fn established(&self) -> bool {
        !self.draft.wanted.is_empty() && self.facts.bgp == ConditionStatus::True
    }

    /// Whether the connection is VERIFIED now, with every channel's BGP Established.
    pub(super) fn verified(&self) -> bool {
        self.established() && state::proven(&self.facts)
    }

    fn settled(&self) -> bool {
        matches!(self.ending, Ending::Settled)
    }

    /// The status document; the issues in it are added later.
    pub(super) fn status(&self) -> EngineStatus {
        let mut status = self.draft.record.status.clone();
        let first = |at: &mut Option<Timestamp>, holds: bool| {
            if holds && at.is_none() {
                *at = Some(self.now);
            }
        };
        first(&mut status.provisioned_at, self.settled());
        first(&mut status.established_at, self.established());
        first(&mut status.verified_at, self.settled() && self.verified());
        status.reason = self.reason(status.reason.take());
        let changed = state::changed(&CLOUD_CONDITIONS, &status.conditions, &self.facts, &self.facts, self.now);
        state::keep(&mut status.conditions, changed);
        let found = ConnectionRecord { status, ..self.found.clone() };
        let state = state::state(&Facts::of(&found, self.topology.probe.report_ms, self.now));
        EngineStatus { state: Some(state), ..found.status }
    }

    fn reason(&self, before: Option<StatusReason>) -> Option<StatusReason> {
        let trouble = self.ending.troubles().first()?;
        let same = before.filter(|reason| reason.code == trouble.code.as_str());
        Some(StatusReason {
            code: trouble.code.as_str().to_owned(),
            message: trouble.message.clone(),
            next_step: trouble.remediation.clone(),
            since: same.as_ref().map_or(self.now, |reason| reason.since),
            issue: same.and_then(|reason| reason.issue),
        })
    }

    /// The operation as it is now; `None` where none is under way.
    pub(super) fn operation(&self) -> Option<Operation> {
        let mut operation = self.draft.operation.clone()?;
        operation.stages = self.stages(&operation);
        operation.state = self.operation_state(&operation);
        operation.problem = self.problem().map(Box::new);
        if operation.state.is_final() {
            operation.finished_at = Some(self.now);
        }
        Some(operation)
    }

    fn operation_state(&self, operation: &Operation) -> OperationState {
        match self.ending {
            Ending::Again => OperationState::Running,
            Ending::Wait { .. } => OperationState::Waiting,
            Ending::Trouble { .. } => OperationState::ActionRequired,
            Ending::Settled if operation.kind != OperationKind::Delete && self.verified() => OperationState::Succeeded,
            Ending::Settled => OperationState::Waiting,
            Ending::Gone => OperationState::Succeeded,
        }
    }

    fn problem(&self) -> Option<Problem> {
        let trouble = self.ending.troubles().first()?;
        let code = ProblemCode::Unsatisfiable;
        Some(Problem {
            kind: format!("/problems/{}", code.as_str()),
            title: trouble.code.as_str().to_owned(),
            status: code.status(),
            code,
            detail: trouble.message.clone(),
            request_id: None,
            errors: Vec::new(),
            retryable: false,
            remediation: trouble.remediation.clone(),
            holder: None,
            provider: trouble.detail.clone(),
        })
    }

    // ---- stages ---------------------------------------------------------------------------------------------------

    fn stages(&self, operation: &Operation) -> Vec<Stage> {
        let mut stages = if operation.kind == OperationKind::Delete {
            self.stages_of_delete(operation)
        } else {
            self.stages_of_build(operation)
        };
        // Stable: what has not begun keeps the order of dependence.
        stages.sort_by_key(|stage| (stage.started_at.is_none(), stage.started_at));
        stages
    }

    fn stages_of_build(&self, operation: &Operation) -> Vec<Stage> {
        let mut stages = Vec::new();
        for channel in &self.draft.wanted {
            let Some(specs) = self.draft.specs.get(&(channel.channel_id.clone(), channel.generation)) else { continue };
            for spec in End::BOTH.into_iter().flat_map(|end| specs.get(end)) {
                let instance = self.draft.instances.iter().find(|i| {
                    i.channel_id == channel.channel_id
                        && i.channel_generation == channel.generation
                        && i.key == spec.key
                        && i.twin.is_none()
                });
                let name = stage_name(channel.channel_id.as_str(), spec.key.end, spec.key.kind.as_str());
                stages.push(self.stage_of_build(operation, name, spec, instance));
            }
        }
        let built = stages.iter().all(|stage| stage.state == StageState::Succeeded) && !stages.is_empty();
        let last = stages.iter().filter_map(|stage| stage.finished_at).max();
        let sessions = self.gate(operation, "bgp", built, self.established(), last, "the sessions come up");
        let up = sessions.state == StageState::Succeeded;
        let since = sessions.finished_at;
        let what = "packets cross in both directions";
        let verified = self.gate(operation, "verified", up, up && self.verified(), since, what);
        stages.extend([sessions, verified]);
        stages
    }

    fn stage_of_build(
        &self,
        operation: &Operation,
        name: String,
        spec: &ResourceSpec,
        instance: Option<&Instance>,
    ) -> Stage {
        let before = operation.stages.iter().find(|stage| stage.name == name);
        let calls: Vec<_> = instance
            .map(|i| self.draft.calls.iter().filter(|call| call.instance_id == i.id).collect())
            .unwrap_or_default();
        let present = instance.and_then(Instance::present);
        let in_trouble = instance.is_some_and(|i| self.ending.troubles().iter().any(|t| t.instance_id == Some(i.id)));
        let in_sync = instance.zip(present).is_some_and(|(i, observed)| {
            observed.presence == Presence::Usable
                && self.topology.rules(&i.account_id).is_some_and(|rules| rules.diff(spec, observed).is_empty())
        });
        // A look that was not taken since the last call leaves the stage as it was.
        let unseen = instance.is_some_and(|i| i.seen == Seen::Never);
        let state = match (in_sync, in_trouble) {
            (true, _) => StageState::Succeeded,
            (false, true) => StageState::Failed,
            (false, false) if calls.is_empty() => StageState::Pending,
            (false, false) => match before.map(|b| b.state) {
                Some(StageState::Succeeded) if unseen => StageState::Succeeded,
                Some(_) | None => StageState::Running,
            },
        };
        let finished_at =
            (state == StageState::Succeeded).then(|| before.and_then(|stage| stage.finished_at).unwrap_or(self.now));
        let detail = match present {
            Some(observed) if state != StageState::Pending => observed.provider_state.clone(),
            Some(_) | None => before.map(|stage| stage.detail.clone()).unwrap_or_default(),
        };
        Stage {
            name,
            state,
            started_at: calls.first().map(|call| call.written_at),
            finished_at,
            detail,
            provider: self.provider_error(instance, before, state),
        }
    }

    fn stages_of_delete(&self, operation: &Operation) -> Vec<Stage> {
        let mut stages: Vec<Stage> = Vec::new();
        for instance in &self.draft.instances {
            let name = stage_name(instance.channel_id.as_str(), instance.key.end, instance.key.kind.as_str());
            if stages.iter().any(|stage| stage.name == name) {
                continue;
            }
            let before = operation.stages.iter().find(|stage| stage.name == name);
            let asked = self.draft.calls.iter().find(|c| c.instance_id == instance.id && c.verb == Verb::Delete);
            let in_trouble = self.ending.troubles().iter().any(|t| t.instance_id == Some(instance.id));
            let state = match (in_trouble, asked) {
                (true, _) => StageState::Failed,
                (false, Some(_)) => StageState::Running,
                (false, None) => StageState::Pending,
            };
            let detail = instance.present().map(|observed| observed.provider_state.clone()).unwrap_or_default();
            stages.push(Stage {
                name,
                state,
                started_at: asked.map(|call| call.written_at),
                finished_at: None,
                detail,
                provider: self.provider_error(Some(instance), before, state),
            });
        }
        for before in &operation.stages {
            if !stages.iter().any(|stage| stage.name == before.name) {
                stages.push(Stage {
                    state: StageState::Succeeded,
                    started_at: before.started_at.or(Some(self.now)),
                    finished_at: before.finished_at.or(Some(self.now)),
                    detail: "gone".to_owned(),
                    provider: None,
                    name: before.name.clone(),
                });
            }
        }
        stages
    }

    fn gate(
        &self,
        operation: &Operation,
        name: &str,
        begun: bool,
        holds: bool,
        since: Option<Timestamp>,
        detail: &str,
    ) -> Stage {
        let before = operation.stages.iter().find(|stage| stage.name == name);
        let state = match (begun, holds) {
            (true, true) => StageState::Succeeded,
            (true, false) => StageState::Running,
            (false, _) => StageState::Pending,
        };
        Stage {
            name: name.to_owned(),
            state,
            started_at: begun.then(|| before.and_then(|stage| stage.started_at).or(since).unwrap_or(self.now)),
            finished_at: (state == StageState::Succeeded)
                .then(|| before.and_then(|stage| stage.finished_at).unwrap_or(self.now)),
            detail: detail.to_owned(),
            provider: None,
        }
    }

    /// What a cloud last said against it, until it has succeeded.
    fn provider_error(
        &self,
        instance: Option<&Instance>,
        before: Option<&Stage>,
        state: StageState,
    ) -> Option<ProviderDetail> {
        if state == StageState::Succeeded {
            return None;
        }
        let instance = instance?;
        let refused = || {
            let last = self.draft.calls.iter().rev().find(|call| call.instance_id == instance.id)?;
            match &last.verdict {
                Verdict::Refused { detail, .. } => Some(detail.clone()),
                Verdict::Open | Verdict::Accepted | Verdict::FoundDone | Verdict::FoundUndone => None,
            }
        };
        let unknown = || match &instance.seen {
            Seen::Unknown { why, .. } => Some(why.clone()),
            Seen::Never | Seen::Present { .. } | Seen::Absent { .. } => None,
        };
        let kept = || before.filter(|_| instance.present().is_none()).and_then(|stage| stage.provider.clone());
        self.draft.errors.get(&instance.id).cloned().or_else(refused).or_else(unknown).or_else(kept)
    }
}

fn stage_name(channel: &str, end: End, kind: &str) -> String {
    format!("{channel}/{}/{kind}", end.as_str())
}
