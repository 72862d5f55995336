//! What users are told of the way of a connection that is shared with a peer: status, stages, operation. Pure.

#[cfg(test)]
mod tests;

use tieline_openapi::{
    problem::{Problem, ProblemCode},
    v1::{ConditionStatus, Operation, OperationKind, OperationState, Stage, StageState, Timestamp},
};

use crate::{
    plan::coordinate::{Placed, Remote, Standing},
    state::{self, CLOUD_CONDITIONS, Facts, ending, goes_by_itself},
    store::{ConnectionRecord, EngineStatus, SharedLink, StatusReason},
};

/// What a look at a connection has to tell.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Told {
    /// The status document, without its issues.
    pub(super) status: EngineStatus,
    /// The operation that was under way, as it is now.
    pub(super) operation: Option<Operation>,
    /// Whether both providers hold what is wanted.
    pub(super) settled: bool,
    /// Whether nothing is left of it, so that its row goes.
    pub(super) gone: bool,
}

/// Looks at a connection, whose peer is configured.
pub(super) fn told(
    record: &ConnectionRecord,
    shared: &SharedLink,
    standing: &Standing,
    operation: Option<&Operation>,
    now: Timestamp,
) -> Told {
    let facts = Facts::of(record, 0, now);
    let over = standing.is_over(now);
    let gone = over && (record.deletion_requested_at.is_some() || goes_by_itself(record, shared));
    let operation = operation.map(|operation| {
        let mut next = operation.clone();
        next.stages = stages(operation, standing, &facts, now);
        let (state, problem) = outcome(operation, record, shared, standing, &facts, now);
        next.state = state;
        next.problem = problem.map(Box::new);
        next.finished_at = next.state.is_final().then_some(now);
        next
    });
    let settled = facts.in_sync == ConditionStatus::True;
    Told { status: status(record, shared, &facts, now), operation, settled, gone }
}

fn status(record: &ConnectionRecord, shared: &SharedLink, facts: &Facts, now: Timestamp) -> EngineStatus {
    let mut status = record.status.clone();
    let first = |at: &mut Option<Timestamp>, holds: bool| {
        if holds && at.is_none() {
            *at = Some(now);
        }
    };
    first(&mut status.provisioned_at, facts.provisioned);
    first(&mut status.established_at, facts.bgp == ConditionStatus::True);
    first(&mut status.verified_at, facts.provisioned && !facts.deleting && state::proven(facts));
    let before = status.reason.take();
    status.reason = facts.person_needed.then(|| {
        let (code, message, next_step) = ending(shared.ended);
        let same = before.filter(|reason| reason.code == code);
        StatusReason {
            code: code.to_owned(),
            message: message.to_owned(),
            next_step: next_step.to_owned(),
            since: same.as_ref().map_or(now, |reason| reason.since),
            issue: same.and_then(|reason| reason.issue),
        }
    });
    let changed = state::changed(&CLOUD_CONDITIONS, &status.conditions, facts, facts, now);
    state::keep(&mut status.conditions, changed);
    let found = ConnectionRecord { status, ..record.clone() };
    let state = state::state(&Facts::of(&found, 0, now));
    EngineStatus { state: Some(state), ..found.status }
}

/// How far an operation is, and what stands against it.
fn outcome(
    operation: &Operation,
    record: &ConnectionRecord,
    shared: &SharedLink,
    standing: &Standing,
    facts: &Facts,
    now: Timestamp,
) -> (OperationState, Option<Problem>) {
    let over = standing.is_over(now);
    if operation.kind == OperationKind::Delete {
        return (if over { OperationState::Succeeded } else { OperationState::Running }, None);
    }
    if over {
        let (_, message, next) = ending(shared.ended);
        return (OperationState::Failed, Some(problem(message, next)));
    }
    let waits =
        if standing.places.is_empty() || facts.provisioned { OperationState::Waiting } else { OperationState::Running };
    match operation.kind {
        OperationKind::Create if facts.provisioned && state::proven(facts) => (OperationState::Succeeded, None),
        OperationKind::Create => (waits, None),
        OperationKind::Update if standing.is_resizing() => (OperationState::Running, None),
        OperationKind::Update if standing.bandwidth().is_none_or(|has| has == record.intent.bandwidth_mbps) => {
            (OperationState::Succeeded, None)
        }
        OperationKind::Update => {
            let next = "PATCH `bandwidthMbps` to what it has, or ask again later.";
            (OperationState::Failed, Some(problem("The other provider refused the bandwidth.", next)))
        }
        OperationKind::Migrate => match target(operation, standing) {
            Some(_) if standing.is_moving() => (OperationState::Running, None),
            Some(placed) if placed.stays() => (OperationState::Succeeded, None),
            Some(_) => (OperationState::Running, None),
            None => {
                let message = "The other interconnect was refused; the connection is where it was.";
                (OperationState::Failed, Some(problem(message, "Ask again later.")))
            }
        },
        OperationKind::Delete => (OperationState::Running, None),
    }
}

fn problem(detail: &str, remediation: &str) -> Problem {
    let code = ProblemCode::Unsatisfiable;
    Problem {
        kind: format!("/problems/{}", code.as_str()),
        title: "The two providers did not agree".to_owned(),
        status: code.status(),
        code,
        detail: detail.to_owned(),
        request_id: None,
        errors: Vec::new(),
        retryable: false,
        remediation: remediation.to_owned(),
        holder: None,
        provider: None,
    }
}

/// The place that a migration made: its row is of the operation's own transaction.
fn target<'s>(operation: &Operation, standing: &'s Standing) -> Option<&'s Placed> {
    standing.places.iter().find(|placed| placed.row.created_at >= operation.created_at)
}

fn stages(operation: &Operation, standing: &Standing, facts: &Facts, now: Timestamp) -> Vec<Stage> {
    let mut way = Way { before: &operation.stages, all: Vec::new(), now };
    match operation.kind {
        OperationKind::Create => {
            let row = standing.staying().map(|placed| &placed.row).next();
            let asked = row.is_some_and(|row| row.confirmed);
            way.gate("activationKey", asked, "the activation key is brought and found good".to_owned());
            let there = row.is_some_and(|row| row.remote == Remote::Present);
            way.gate("peer", there, "the other provider has its half".to_owned());
            way.channels(standing.staying().next());
            way.gate("bgp", facts.bgp == ConditionStatus::True, "the sessions come up".to_owned());
            way.gate("verified", state::proven(facts), "each has told the other that every channel works".to_owned());
        }
        OperationKind::Update => {
            way.gate("bandwidth", !standing.is_resizing(), "the other provider takes the bandwidth".to_owned());
        }
        OperationKind::Migrate => {
            let to = target(operation, standing);
            way.channels(to);
            let up = to.is_some_and(|placed| placed.is_established() == Some(true));
            way.gate("bgp", up, "the sessions of the new place come up".to_owned());
            let verified = to.is_some_and(|placed| placed.verified);
            way.gate("verified", verified, "each has told the other that the new place works".to_owned());
            way.gate("source", to.is_some() && !standing.is_moving(), "the old place is drained and gone".to_owned());
        }
        OperationKind::Delete => {
            let absent = |placed: &Placed| matches!(placed.row.remote, Remote::Absent { .. });
            way.gate("peer", standing.places.iter().all(absent), "the other provider's half is gone".to_owned());
            way.gate("ours", standing.places.is_empty(), "our half is gone".to_owned());
        }
    }
    way.all
}

/// Stages as they come one after the other.
struct Way<'a> {
    before: &'a [Stage],
    all: Vec<Stage>,
    now: Timestamp,
}

impl Way<'_> {
    fn gate(&mut self, name: &str, holds: bool, detail: String) {
        let before = self.before.iter().find(|stage| stage.name == name);
        // What was reached once stays told, also where it does not hold any more.
        let done = holds || before.is_some_and(|stage| stage.state == StageState::Succeeded);
        let begun = self.all.last().is_none_or(|last| last.state == StageState::Succeeded);
        let state = match (begun, done) {
            (true, true) => StageState::Succeeded,
            (true, false) => StageState::Running,
            (false, _) => StageState::Pending,
        };
        self.all.push(Stage {
            name: name.to_owned(),
            state,
            started_at: begun.then(|| before.and_then(|stage| stage.started_at).unwrap_or(self.now)),
            finished_at: (state == StageState::Succeeded)
                .then(|| before.and_then(|stage| stage.finished_at).unwrap_or(self.now)),
            detail,
            provider: None,
        });
    }

    fn channels(&mut self, placed: Option<&Placed>) {
        let (agreed, of) = placed.map_or((0, 0), |placed| (placed.row.agreed().count(), placed.channels));
        let detail =
            if of == 0 { "channels are agreed".to_owned() } else { format!("{agreed} of {of} channels are agreed") };
        self.gate("channels", placed.is_some_and(Placed::is_agreed), detail);
    }
}
