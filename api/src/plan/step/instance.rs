//! What to do about one instance, by itself.

use tieline_openapi::{
    config::EngineConfig,
    problem::ProviderDetail,
    v1::{Timestamp, Verb},
};
use tieline_providers::{IdentityKind, Observed, Presence, ResourceSpec};

use super::{
    CreateAnswer, Instance, NegotiatedChannel, ProviderCall, Seen, Situation, Step, Trouble, TroubleCode, Verdict, Why,
    order,
    time::{earlier, millis_between, plus},
};

/// What one instance needs.
#[derive(Debug, PartialEq)]
pub(super) enum Need {
    /// This, now.
    Act(Step),
    /// This, as soon as the order of resources allows.
    Create,
    /// Its end, as soon as the order of resources allows.
    Delete,
    /// Time.
    Wait(Timestamp, Why),
    /// A person, and another try at this time.
    Trouble(Trouble, Timestamp),
    /// Nothing: it is there, usable and as wanted.
    Nothing,
}

/// One instance with its ledger.
pub(super) struct Case<'a> {
    pub instance: &'a Instance,
    /// Its calls, oldest first.
    pub calls: Vec<&'a ProviderCall>,
    /// What is wanted of it; none where its generation is not wanted any more.
    pub wanted: Option<(&'a NegotiatedChannel, &'a ResourceSpec)>,
    pub situation: &'a Situation<'a>,
    pub config: &'a EngineConfig,
}

impl<'a> Case<'a> {
    /// Whether it is on its way out. An instance that was once asked to go never comes back: a new one takes its place.
    pub(super) fn doomed(&self) -> bool {
        let asked_to_go =
            self.calls.iter().any(|c| c.verb == Verb::Delete && !matches!(c.verdict, Verdict::Refused { .. }));
        self.wanted.is_none() || asked_to_go
    }

    /// Whether the cloud may hold it, for all that is known.
    pub(super) fn may_exist(&self) -> bool {
        self.was_made() && !self.looks_gone()
    }

    /// Whether a create was sent that the cloud did not refuse. A twin was found, so somebody made it.
    fn was_made(&self) -> bool {
        let asked = |c: &&ProviderCall| c.verb == Verb::Create && !matches!(c.verdict, Verdict::Refused { .. });
        self.instance.twin.is_some() || self.calls.iter().any(asked)
    }

    /// Whether a step about it needs a look at it.
    pub(super) fn is_looked_at(&self) -> bool {
        self.instance.twin.is_some() || !self.calls.is_empty()
    }

    /// Whether it was not there at the last look, and no call about it is without answer.
    pub(super) fn looks_gone(&self) -> bool {
        let open = self.calls.iter().any(|c| c.verdict == Verdict::Open);
        !open && self.instance.seen.shows_nothing()
    }

    /// What it needs.
    pub(super) fn need(&self) -> Need {
        if let Some(call) = self.calls.iter().find(|c| c.verdict == Verdict::Open) {
            return match call.verb {
                Verb::Create => self.open_create(call),
                Verb::Update => self.open_update(call),
                Verb::Delete => self.open_delete(call),
            };
        }
        match self.wanted {
            Some((channel, spec)) if !self.doomed() => self.need_of_wanted(channel, spec),
            Some(_) | None => self.need_of_doomed(),
        }
    }

    // ---- calls without answer -------------------------------------------------------------------------------------

    fn open_create(&self, call: &ProviderCall) -> Need {
        if let Some(need) = self.open_blind_create(call) {
            return need;
        }
        if self.instance.present().is_some() {
            return self.resolve(call, Verdict::FoundDone);
        }
        // A slot that somebody else holds cannot have taken ours.
        if call.identity == IdentityKind::Slot && self.instance.foreign().is_some() {
            return self.resolve(call, Verdict::FoundUndone);
        }
        let absent = self.instance.seen.shows_nothing();
        if absent && !self.doomed() && self.can_retry_at_once(call.identity) {
            return self.resolve(call, Verdict::FoundUndone);
        }
        self.wait_out(call, Verdict::FoundUndone)
    }

    /// A create that nothing can find again waits for a person's answer.
    fn open_blind_create(&self, call: &ProviderCall) -> Option<Need> {
        if call.identity != IdentityKind::Blind {
            return None;
        }
        let recorded = self.instance.cloud_id.as_ref();
        match &call.answer {
            Some(CreateAnswer::Created { cloud_id }) if recorded == Some(cloud_id) => {
                Some(self.judge_answer(call, cloud_id))
            }
            Some(CreateAnswer::Created { cloud_id }) => {
                Some(Need::Act(Step::Adopt { instance: self.instance.id, cloud_id: cloud_id.clone() }))
            }
            _ if recorded.is_some() => None,
            Some(CreateAnswer::NotCreated) => Some(self.resolve(call, Verdict::FoundUndone)),
            Some(CreateAnswer::Misfit { cloud_id, why }) => Some(self.blind(call, &format!("; {cloud_id} {why}"))),
            None => Some(self.blind(call, "")),
        }
    }

    /// Whether what a person named can be what the create made.
    fn judge_answer(&self, call: &ProviderCall, cloud_id: &str) -> Need {
        let refuse = |why: &str| {
            Need::Act(Step::RefuseAnswer { call: call.id, cloud_id: cloud_id.to_owned(), why: why.to_owned() })
        };
        let others = self.situation.instances.iter().filter(|i| i.id != self.instance.id);
        if others.into_iter().any(|i| i.cloud_id.as_deref() == Some(cloud_id)) {
            return refuse("is another resource of this connection");
        }
        match (&self.instance.seen, self.instance.present()) {
            (_, Some(observed)) if self.fits(observed) => self.resolve(call, Verdict::FoundDone),
            (_, Some(_)) => refuse("is configured as something else"),
            (Seen::Present { .. }, None) => refuse("is gone, or somebody else's"),
            (Seen::Absent { .. }, None) if self.absent_for_good() => refuse("is not there"),
            (Seen::Absent { .. } | Seen::Never | Seen::Unknown { .. }, None) => {
                Need::Wait(self.poll(), Why::Unseen(self.instance.key.clone()))
            }
        }
    }

    /// Whether what cannot be changed is as it was asked for.
    fn fits(&self, observed: &Observed) -> bool {
        let spec = order::spec_of(self.situation.specs, self.instance);
        let changes = spec.and_then(|spec| self.diff(spec, observed)).unwrap_or_default();
        observed.kind == self.instance.key.kind && changes.iter().all(|change| !change.immutable)
    }

    /// Whether a second create cannot make a second resource, whatever became of the first.
    fn can_retry_at_once(&self, identity: IdentityKind) -> bool {
        match identity {
            IdentityKind::Named | IdentityKind::Slot => true,
            IdentityKind::Token { lifetime_ms } => {
                let first = self.calls.iter().find(|c| c.verb == Verb::Create).map(|c| c.written_at);
                // The second one as well may land late: while the token lives, it makes nothing.
                let late = self.config.call_timeout_ms.saturating_add(self.config.lease_ms);
                let over = plus(self.situation.now, late.saturating_add(self.config.visibility_lag_ms));
                first.is_some_and(|first| over < plus(first, lifetime_ms))
            }
            IdentityKind::Tagged | IdentityKind::Blind => false,
        }
    }

    fn open_update(&self, call: &ProviderCall) -> Need {
        if let (Some(observed), Some((_, spec))) = (self.instance.present(), self.wanted)
            && self.diff(spec, observed).is_some_and(|changes| changes.is_empty())
        {
            return self.resolve(call, Verdict::FoundDone);
        }
        let until = plus(self.deadline(call), self.config.visibility_lag_ms);
        if self.situation.now >= until && !matches!(self.instance.seen, Seen::Unknown { .. } | Seen::Never) {
            return self.resolve(call, Verdict::FoundUndone);
        }
        Need::Wait(self.soon(until), Why::Unanswered(self.instance.key.clone()))
    }

    fn open_delete(&self, call: &ProviderCall) -> Need {
        let leaving = self.instance.present().is_some_and(|o| o.presence == Presence::Leaving);
        if leaving || self.instance.foreign().is_some() || self.absent_for_good() {
            return self.resolve(call, Verdict::FoundDone);
        }
        let until = plus(self.deadline(call), self.config.visibility_lag_ms);
        if self.instance.present().is_some() && self.situation.now >= until {
            return self.resolve(call, Verdict::FoundUndone);
        }
        Need::Wait(self.soon(until), Why::Unanswered(self.instance.key.clone()))
    }

    /// Nothing is decided before the call is over, whoever sent it has lost its lease, and what it did would show; and then
    /// only by two looks a lag apart.
    fn wait_out(&self, call: &ProviderCall, verdict: Verdict) -> Need {
        let until = self.over(call);
        if self.absent_for_good() && self.situation.now >= until && self.last_look() >= Some(until) {
            return self.resolve(call, verdict);
        }
        Need::Wait(self.soon(until), Why::Unanswered(self.instance.key.clone()))
    }

    /// When nothing of a call can show up any more: client timeout, lease and visibility lag.
    fn over(&self, call: &ProviderCall) -> Timestamp {
        let after = self.config.lease_ms.saturating_add(self.config.visibility_lag_ms);
        if call.written_at <= self.situation.now {
            return plus(call.deadline, after);
        }
        // The row is from a clock that was stepped back since: it is waited out from the first look under this one.
        let since = match &self.instance.seen {
            Seen::Absent { since, .. } | Seen::Present { since, .. } => *since,
            Seen::Never | Seen::Unknown { .. } => self.situation.now,
        };
        plus(since, after.saturating_add(self.config.call_timeout_ms))
    }

    /// When a call was decided, or written if it was not. A time that is still to come is from a clock that was stepped back
    /// since: what waits for it is due.
    pub(super) fn decided(&self, call: &ProviderCall) -> Timestamp {
        let at = call.decided_at.unwrap_or(call.written_at);
        if at <= self.situation.now { at } else { Timestamp::UNIX_EPOCH }
    }

    /// When a call was over for its caller at the latest; likewise.
    fn deadline(&self, call: &ProviderCall) -> Timestamp {
        if call.written_at <= self.situation.now { call.deadline } else { Timestamp::UNIX_EPOCH }
    }

    fn resolve(&self, call: &ProviderCall, verdict: Verdict) -> Need {
        Need::Act(Step::Resolve { call: call.id, verdict })
    }

    fn blind(&self, call: &ProviderCall, more: &str) -> Need {
        let Instance { key, account_id: account, channel_id, .. } = self.instance;
        let kind = &key.kind;
        let trouble = self.trouble(
            TroubleCode::BlindCreate,
            format!(
                "the answer to the create of the {kind} of channel {channel_id} at {} was lost, and nothing tells \
                 whether it was made{more}",
                call.written_at
            ),
            format!(
                "after {} look in account {account} for a {kind} made since, and tell what is there: \
                 POST /v1/issues/{{id}}:resolve with the id of this issue",
                self.over(call)
            ),
            None,
        );
        Need::Trouble(trouble, plus(self.situation.now, self.slow(4)))
    }

    // ---- wanted ---------------------------------------------------------------------------------------------------

    fn need_of_wanted(&self, channel: &NegotiatedChannel, spec: &ResourceSpec) -> Need {
        if self.instance.foreign().is_some() {
            return self.walk_back(channel, None);
        }
        if let Some(observed) = self.instance.present() {
            return self.need_of_present(channel, spec, observed);
        }
        let made = self
            .calls
            .iter()
            .rev()
            .find(|c| c.verb == Verb::Create && matches!(c.verdict, Verdict::Accepted | Verdict::FoundDone));
        match (&self.instance.seen, made) {
            (Seen::Unknown { .. }, _) => Need::Wait(self.poll(), Why::Unseen(self.instance.key.clone())),
            (_, None) => self.need_of_unmade(channel),
            (_, Some(call)) => self.need_of_vanished(call),
        }
    }

    fn need_of_present(&self, channel: &NegotiatedChannel, spec: &ResourceSpec, observed: &Observed) -> Need {
        match observed.presence {
            Presence::Settling | Presence::Leaving | Presence::Gone => {
                return Need::Wait(self.poll(), Why::CloudAtWork(self.instance.key.clone()));
            }
            Presence::Usable | Presence::Failed => {}
        }
        if let Some(need) = self.need_of_picked(channel, observed) {
            return need;
        }
        let Some(changes) = self.diff(spec, observed) else { return self.provider_missing() };
        if let Some(fixed) = changes.iter().find(|c| c.immutable) {
            let trouble = self.trouble(
                TroubleCode::ImmutableDrift,
                format!(
                    "{} {} has {} at {}, not {}",
                    spec.key.kind, observed.cloud_id, fixed.observed, fixed.pointer, fixed.wanted
                ),
                "set it back in the cloud's console, or delete this connection and create it again".to_owned(),
                None,
            );
            return Need::Trouble(trouble, self.poll());
        }
        if !changes.is_empty() {
            return self.need_of_drifted(channel, changes);
        }
        if observed.presence == Presence::Failed {
            let trouble = self.trouble(
                TroubleCode::ResourceFailed,
                format!(
                    "{} {} is {} and will not become usable by itself",
                    spec.key.kind, observed.cloud_id, observed.provider_state
                ),
                "repair what it depends on, or delete this connection and create it again".to_owned(),
                None,
            );
            return Need::Trouble(trouble, self.poll());
        }
        Need::Nothing
    }

    fn need_of_drifted(&self, channel: &NegotiatedChannel, changes: Vec<tieline_providers::Change>) -> Need {
        let update = Need::Act(Step::Update { instance: self.instance.id, changes });
        let Some(last) = self.calls.last().filter(|c| c.verb == Verb::Update) else { return update };
        match &last.verdict {
            Verdict::Refused { kind, detail } => self.after_refusal(channel, last, kind, detail, update),
            Verdict::Accepted | Verdict::FoundDone | Verdict::FoundUndone | Verdict::Open => {
                // What was just accepted may not show yet, and what somebody keeps changing back is not fought over.
                let since = self.decided(last);
                let until = plus(since, self.config.visibility_lag_ms.max(self.backoff(self.streak(Verb::Update))));
                self.not_before(until, update)
            }
        }
    }

    /// A create was never taken, as far as is known.
    fn need_of_unmade(&self, channel: &NegotiatedChannel) -> Need {
        let Some(last) = self.calls.iter().rev().find(|c| c.verb == Verb::Create) else { return Need::Create };
        match &last.verdict {
            Verdict::Refused { kind, detail } => self.after_refusal(channel, last, kind, detail, Need::Create),
            Verdict::Accepted | Verdict::FoundDone | Verdict::FoundUndone | Verdict::Open => {
                let tries = self.streak(Verb::Create);
                let since = self.decided(last);
                let wait = if tries <= 1 { 0 } else { self.backoff(tries - 1) };
                self.not_before(plus(since, wait), Need::Create)
            }
        }
    }

    /// It was made once and is not there now: not visible yet, or somebody took it away.
    fn need_of_vanished(&self, made: &ProviderCall) -> Need {
        // Where much is missing at once, the account may be looked at wrongly: nothing is given up.
        if self.situation.held.contains(&self.instance.account_id) {
            return Need::Wait(self.poll(), Why::Absence(self.instance.key.clone()));
        }
        let visible = plus(self.decided(made), self.config.visibility_lag_ms);
        if self.situation.now >= visible
            && self.absent_for_good()
            && self.last_look() >= Some(visible)
            && self.all_over()
        {
            return Need::Act(Step::RetireInstance { instance: self.instance.id });
        }
        Need::Wait(self.poll(), Why::Absence(self.instance.key.clone()))
    }

    // ---- unwanted -------------------------------------------------------------------------------------------------

    fn need_of_doomed(&self) -> Need {
        let retire = Need::Act(Step::RetireInstance { instance: self.instance.id });
        if !self.was_made() || self.is_no_twin() {
            return retire;
        }
        let key = || self.instance.key.clone();
        match &self.instance.seen {
            Seen::Never | Seen::Unknown { .. } => Need::Wait(self.poll(), Why::Unseen(key())),
            Seen::Present { observed, .. } if self.instance.present().is_some() => self.need_of_leaving(observed),
            Seen::Present { .. } if self.instance.foreign().is_some() && self.all_over() => retire,
            Seen::Present { .. } | Seen::Absent { .. } => {
                if self.all_over() && self.absent_for_good() {
                    retire
                } else {
                    Need::Wait(self.next_look_at_nothing(), Why::Absence(key()))
                }
            }
        }
    }

    fn need_of_leaving(&self, observed: &Observed) -> Need {
        let key = || self.instance.key.clone();
        if observed.presence == Presence::Leaving {
            return Need::Wait(self.poll(), Why::CloudAtWork(key()));
        }
        let Some(last) = self.calls.last().filter(|c| c.verb == Verb::Delete) else { return Need::Delete };
        let since = self.decided(last);
        let tries = self.streak(Verb::Delete);
        match &last.verdict {
            Verdict::Refused { kind, detail } => self.after_refused_delete(last, kind, detail, tries),
            Verdict::Accepted | Verdict::FoundDone => {
                // Taken and still shown: the cloud's views lag, or the delete did not take.
                let until = plus(since, self.config.visibility_lag_ms.max(self.backoff(tries)));
                self.not_before(until, Need::Delete)
            }
            Verdict::FoundUndone | Verdict::Open => self.not_before(plus(since, self.backoff(tries)), Need::Delete),
        }
    }

    /// Whether what was taken for a twin is what its instance is recorded as.
    fn is_no_twin(&self) -> bool {
        let Some(twin) = &self.instance.twin else { return false };
        let recorded = self.situation.instances.iter().find(|i| i.id == twin.of).and_then(|i| i.cloud_id.as_ref());
        recorded.is_some() && recorded == self.instance.cloud_id.as_ref()
    }

    // ---- small things ---------------------------------------------------------------------------------------------

    fn provider_missing(&self) -> Need {
        let trouble = self.trouble(
            TroubleCode::ProviderMissing,
            format!("this binary does not know the cloud of account {}", self.instance.account_id),
            "run a build of Tieline that has this provider".to_owned(),
            None,
        );
        Need::Trouble(trouble, plus(self.situation.now, self.slow(2)))
    }

    pub(super) fn trouble(
        &self,
        code: TroubleCode,
        message: String,
        remediation: String,
        detail: Option<ProviderDetail>,
    ) -> Trouble {
        Trouble {
            code,
            channel_id: self.instance.channel_id.clone(),
            key: Some(self.instance.key.clone()),
            instance_id: Some(self.instance.id),
            message,
            remediation,
            detail,
        }
    }

    fn diff(&self, spec: &ResourceSpec, observed: &Observed) -> Option<Vec<tieline_providers::Change>> {
        self.situation.rules.rules(&self.instance.account_id).map(|rules| rules.diff(spec, observed))
    }

    /// Absent twice, a lag apart.
    fn absent_for_good(&self) -> bool {
        match &self.instance.seen {
            Seen::Absent { since, at, times } => *times >= 2 && *at >= plus(*since, self.config.visibility_lag_ms),
            // A tombstone is the cloud's own word that it is gone.
            seen @ Seen::Present { .. } => seen.shows_nothing(),
            Seen::Never | Seen::Unknown { .. } => false,
        }
    }

    /// When to look again at what is gone, as far as was seen: when half of the time is over in which it may still show up.
    /// Nobody waits for it to come, so each look that the rule of two looks does not need is a call that somebody else's
    /// change has to wait for.
    fn next_look_at_nothing(&self) -> Timestamp {
        let now = self.situation.now;
        let since = match &self.instance.seen {
            Seen::Absent { since, .. } => *since,
            Seen::Present { .. } | Seen::Never | Seen::Unknown { .. } => now,
        };
        let over = self.unanswered_creates().map(|c| self.over(c)).max();
        let until = over.into_iter().fold(plus(since, self.config.visibility_lag_ms), Timestamp::max);
        let left = millis_between(now, until);
        let half = plus(now, (left / 2).max(self.config.poll_ms));
        if left == 0 { self.poll() } else { earlier(half, until) }
    }

    fn last_look(&self) -> Option<Timestamp> {
        match &self.instance.seen {
            Seen::Absent { at, .. } | Seen::Present { at, .. } => Some(*at),
            Seen::Never | Seen::Unknown { .. } => None,
        }
    }

    /// Creates whose fate was never answered, nor seen. What was found may be of any of several that were sent, so then one
    /// that was held to have made it may have its effect yet.
    fn unanswered_creates(&self) -> impl Iterator<Item = &'a ProviderCall> {
        let several = self.calls.iter().any(|call| call.is_unanswered_create());
        let held_to_have = |call: &ProviderCall| call.verb == Verb::Create && call.verdict == Verdict::FoundDone;
        let calls = self.calls.iter().copied();
        calls.filter(move |call| call.is_unanswered_create() || (several && held_to_have(call)))
    }

    /// Whether no create that went without an answer can still show up, by the last look.
    fn all_over(&self) -> bool {
        self.unanswered_creates().all(|c| self.last_look() >= Some(self.over(c)))
    }

    /// Calls of this verb at the end of the ledger.
    pub(super) fn streak(&self, verb: Verb) -> u32 {
        let run = self.calls.iter().rev().take_while(|c| c.verb == verb).count();
        u32::try_from(run).unwrap_or(u32::MAX)
    }

    pub(super) fn not_before(&self, until: Timestamp, need: Need) -> Need {
        if self.situation.now >= until {
            need
        } else {
            Need::Wait(self.soon(until), Why::BackOff(self.instance.key.clone()))
        }
    }

    fn poll(&self) -> Timestamp {
        plus(self.situation.now, self.config.poll_ms)
    }

    /// The time itself, or the next poll if that comes earlier: a clock that was stepped back must not stall for long.
    pub(super) fn soon(&self, until: Timestamp) -> Timestamp {
        let now = self.situation.now;
        if until <= now { self.poll() } else { earlier(until, self.poll()) }
    }

    /// Milliseconds before another try of what may succeed soon.
    pub(super) fn backoff(&self, tries: u32) -> u64 {
        let doubled = 1u64.checked_shl(tries.saturating_sub(1).min(32)).unwrap_or(u64::MAX);
        self.config.poll_ms.saturating_mul(doubled).min(300_000.max(self.config.poll_ms))
    }

    /// Milliseconds before another try of what a person has to mend.
    pub(super) fn slow(&self, tries: u32) -> u64 {
        let doubled = 1u64.checked_shl(tries.saturating_sub(1).min(32)).unwrap_or(u64::MAX);
        self.config.poll_ms.saturating_mul(12).saturating_mul(doubled).min(3_600_000)
    }
}
