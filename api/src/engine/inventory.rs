//! Rounds of an account's inventory. One paged list of each kind is both the observation of every settled connection and
//! what the sweep looks through; one replica takes it for all, under the account's lease. What it shows as the store has it
//! is not written again; what it shows otherwise is written in batches; of what it does not show, the connection looks at
//! each resource by itself. Where much is missing, nothing is created in the account until it shows again or a person says
//! that it is meant to be gone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tieline_openapi::{
    ids::{AccountId, ConnectionId, IssueId, ProjectId},
    v1::{Issue, IssueState, Severity, Timestamp},
};
use tieline_providers::{Observed, Presence, ResourceKind, Rules};
use tokio_util::sync::CancellationToken;

use super::{Engine, failpoints, limits::Lane, observe::Blind};
use crate::{
    plan::step::{Instance, RuleBook, Seen, TroubleCode, millis_between},
    store::{AccountRound, AccountWatch, EngineWrite, Expected, NewEvent, SharedLease, Sighting, StoreError, Watch},
};

/// Expected resources that are read from the store at a time.
const ROWS: u32 = 1_000;

/// Connections whose sightings go into one transaction.
const AT_ONCE: usize = 250;

/// Rounds in a row without complete lists after which a person should look.
const BLIND_ROUNDS: u32 = 3;

/// The code of the issue about an account that cannot be listed.
const UNOBSERVED: &str = "account-unobserved";

/// One list.
pub(super) struct Shelf {
    /// What was asked for.
    pub kind: ResourceKind,
    /// The object that its things live in.
    pub parent: Option<String>,
    pub items: Vec<Observed>,
}

/// The lists of one round.
#[derive(Default)]
pub(super) struct Lists {
    pub shelves: Vec<Shelf>,
    /// Kinds of which not everything was listed: what is not in a list may be there.
    pub unseen: BTreeSet<ResourceKind>,
    /// Why, for the last of them.
    why: Option<Blind>,
}

/// What lists showed of what was expected.
#[derive(Default)]
struct Found {
    expected: u32,
    absent: u32,
    projects: BTreeSet<ProjectId>,
    sightings: BTreeMap<ConnectionId, Sighting>,
    /// The cloud's ids of what stands where the ledger says: no stray is among them.
    known: HashSet<String>,
}

impl Engine {
    /// Takes the account's rounds, in turn with other replicas.
    pub(super) async fn inventory_loop(self: Arc<Self>, account: AccountId, shutdown: CancellationToken) {
        loop {
            let wait = match self.round_in_turn(&account, &shutdown).await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::warn!(%account, %error, "a round of lists was put off");
                    self.a_quarter()
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.clock.sleep(wait) => {}
            }
        }
    }

    fn a_quarter(&self) -> Duration {
        Duration::from_millis((self.config.settled_poll_ms / 4).max(1))
    }

    /// Takes a round if it is due and no other replica does. How long to wait before the next look.
    async fn round_in_turn(&self, account: &AccountId, shutdown: &CancellationToken) -> Result<Duration, StoreError> {
        let watch = self.store.account_watch(account).await?;
        if let Some(wait) = self.until_due_round(account, &watch).await? {
            return Ok(wait);
        }
        let began = self.clock.monotonic();
        let name = format!("inventory/{account}");
        let Some(lease) = self.store.lease_shared(&name, &self.owner, self.config.lease_ms).await? else {
            return Ok(self.a_quarter());
        };
        let ended = tokio::select! {
            biased;
            () = shutdown.cancelled() => Ok(()),
            done = self.round(account, &lease) => done,
            lost = self.keep(&lease) => Err(lost),
        };
        match self.store.release_shared(&lease, serde_json::Value::Null).await {
            // A turn that took longer than its lease is another's now.
            Ok(()) | Err(StoreError::Fenced) => {}
            Err(error) => return Err(error),
        }
        ended?;
        let every = Duration::from_millis(self.config.settled_poll_ms);
        Ok(every.saturating_sub(self.clock.monotonic().saturating_sub(began)).max(Duration::from_millis(1)))
    }

    /// When to look again whether a round is due; `None`: it is. One that would take many short pages is left out once, as
    /// long as nothing changes: the other ends' lists show every session meanwhile.
    async fn until_due_round(&self, account: &AccountId, watch: &AccountWatch) -> Result<Option<Duration>, StoreError> {
        let every = self.config.settled_poll_ms;
        let Some(ago) = watch.tried_ms_ago else { return Ok(None) };
        if ago < every {
            return Ok(Some(Duration::from_millis(every - ago)));
        }
        let left = every.saturating_mul(2).saturating_sub(ago);
        if left == 0 || !watch.calm || !self.is_vouched_for(account).await? {
            return Ok(None);
        }
        Ok(Some(self.a_quarter().min(Duration::from_millis(left))))
    }

    /// Whether the accounts at the other ends of all links from this one have longer lists, and were listed well and lately.
    async fn is_vouched_for(&self, account: &AccountId) -> Result<bool, StoreError> {
        let others = self.topology.vouchers(account);
        for other in &others {
            let watch = self.store.account_watch(other).await?;
            let late = watch.tried_ms_ago.is_none_or(|ago| ago >= self.config.settled_poll_ms.saturating_mul(2));
            if late || watch.failures > 0 || watch.held {
                return Ok(false);
            }
        }
        Ok(!others.is_empty())
    }

    /// Makes the turn last as long as its round. Ends with the error that took it away.
    async fn keep(&self, lease: &SharedLease) -> StoreError {
        let third = Duration::from_millis((lease.lease_ms / 3).max(1));
        loop {
            self.clock.sleep(third).await;
            if let Err(error) = self.store.renew_shared(lease).await {
                return error;
            }
        }
    }

    async fn round(&self, account: &AccountId, lease: &SharedLease) -> Result<(), StoreError> {
        // Under the lease: another replica may have had its turn since the first look.
        let before = self.store.account_watch(account).await?;
        if self.until_due_round(account, &before).await?.is_some() {
            return Ok(());
        }
        let (began, asked_at) = (self.clock.monotonic(), self.clock.now());
        let lists = self.lists(account).await;
        self.failpoints.hit(failpoints::SWEEP_LISTED).await;
        let mut found = self.hold_against(account, &lists, asked_at).await?;
        let sweeps = before.swept_ms_ago.is_none_or(|ago| ago >= self.config.sweep_ms);
        let took = u64::try_from(self.clock.monotonic().saturating_sub(began).as_millis()).unwrap_or(u64::MAX);
        let mut round = judge(account, &before, &lists, &found);
        round.began_ms_ago = took;
        round.observed_at = lists.why.is_none().then_some(asked_at);
        round.swept = sweeps;
        let page = self.topology.rules(account).map_or(u32::MAX, Rules::list_page);
        round.calm &= found.sightings.is_empty() && found.expected > page;
        // What is missing holds creates before anything is done about it.
        let mut writes = self.consequences(&before, &round, &lists, &found.projects);
        writes.extend(self.foreign(account, &lists));
        self.store.end_round(lease, round, writes).await?;
        let mut sightings: Vec<_> = std::mem::take(&mut found.sightings).into_values().collect();
        while !sightings.is_empty() {
            let rest = sightings.split_off(sightings.len().min(AT_ONCE));
            self.store.write_sightings(lease, sightings).await?;
            sightings = rest;
        }
        if sweeps {
            self.sweep(account, &lists, began, &found.known).await?;
        }
        Ok(())
    }

    /// One list of each kind, in each object that such things live in; before and after them all, whose account it is.
    async fn lists(&self, account: &AccountId) -> Lists {
        let mut lists = Lists::default();
        let Some(rules) = self.topology.rules(account) else { return lists };
        let mut whose = self.confirm_identity(account, Lane::Housekeeping).await;
        if whose.is_ok() {
            for kind in rules.kinds() {
                for parent in self.parents(account, kind) {
                    match self.pages(account, kind.clone(), parent.clone(), Lane::Housekeeping).await {
                        Ok(items) => lists.shelves.push(Shelf { kind: kind.clone(), parent, items }),
                        Err(blind) => {
                            tracing::info!(%account, %kind, why = %blind, "an account could not be listed");
                            lists.unseen.insert(kind.clone());
                            lists.why = Some(blind);
                        }
                    }
                }
            }
            whose = self.confirm_identity(account, Lane::Housekeeping).await;
        }
        if let Err(blind) = whose {
            // Whatever was listed may be another account's.
            tracing::info!(%account, why = %blind, "an account could not be listed");
            let unseen = rules.kinds().iter().cloned().collect();
            lists = Lists { shelves: Vec::new(), unseen, why: Some(blind) };
        }
        lists
    }

    /// In which objects things of a kind live: one list each.
    fn parents(&self, account: &AccountId, kind: &ResourceKind) -> Vec<Option<String>> {
        let (Some(rules), Some(region)) = (self.topology.rules(account), self.topology.regions.get(account)) else {
            return Vec::new();
        };
        let points = self.topology.attach_points.values().filter(|point| point.account_id == *account);
        let parents: BTreeSet<_> = points.filter_map(|point| rules.parent(kind, point, region)).collect();
        if parents.is_empty() { vec![None] } else { parents.into_iter().map(Some).collect() }
    }

    /// Holds the lists against everything that the store expects in the account.
    async fn hold_against(&self, account: &AccountId, lists: &Lists, asked_at: Timestamp) -> Result<Found, StoreError> {
        let all = || lists.shelves.iter().flat_map(|shelf| &shelf.items);
        let by_id: HashMap<&str, &Observed> = all().map(|o| (o.cloud_id.as_str(), o)).collect();
        let mut found = Found::default();
        let mut after = None;
        loop {
            let page = self.store.expected(account, after, ROWS).await?;
            let Some(last) = page.last() else { return Ok(found) };
            after = Some(last.instance.id);
            for expected in page {
                // By the recorded id alone: what else carries its name is a twin, or a copy of its tags.
                let observed = expected.instance.cloud_id.as_deref().and_then(|id| by_id.get(id));
                self.compare_one(expected, observed.copied(), lists, asked_at, &mut found);
            }
        }
    }

    fn compare_one(
        &self,
        expected: Expected,
        observed: Option<&Observed>,
        lists: &Lists,
        asked_at: Timestamp,
        found: &mut Found,
    ) {
        let Expected { connection_id, project, watch, mut instance } = expected;
        if !found.projects.contains(&project) {
            found.projects.insert(project);
        }
        let mut sighting = |instance: Option<Instance>, doubt: bool| {
            if watch == Watch::List {
                let empty = || Sighting { connection_id, instances: Vec::new(), doubt: false };
                let sighting = found.sightings.entry(connection_id).or_insert_with(empty);
                sighting.instances.extend(instance);
                sighting.doubt |= doubt;
            }
        };
        if let Some(observed) = observed.filter(|o| o.presence != Presence::Gone) {
            let as_before = matches!(&instance.seen, Seen::Present { observed: before, .. } if **before == *observed);
            if !as_before {
                instance.seen = instance.seen.and_found(self.as_ours_or_not(observed.clone()), asked_at);
            }
            found.expected = found.expected.saturating_add(1);
            if instance.foreign().is_some() {
                found.absent = found.absent.saturating_add(1);
                sighting(None, true);
            } else {
                found.known.insert(observed.cloud_id.clone());
                if !as_before {
                    sighting(Some(instance), false);
                }
            }
        } else if (observed.is_some() || !lists.unseen.contains(&instance.key.kind))
            && !just_seen(&instance, asked_at, self.config.visibility_lag_ms)
        {
            found.expected = found.expected.saturating_add(1);
            found.absent = found.absent.saturating_add(1);
            sighting(None, true);
        }
    }

    /// Issues and events of what changed with this round.
    fn consequences(
        &self,
        before: &AccountWatch,
        round: &AccountRound,
        lists: &Lists,
        projects: &BTreeSet<ProjectId>,
    ) -> Vec<EngineWrite> {
        let account = &round.account_id;
        let subject = format!("/v1/accounts/{account}");
        let now = self.clock.now();
        let mut writes = Vec::new();
        let mut tell = |kind: &str| {
            writes.extend(projects.iter().map(|project| {
                EngineWrite::Event(NewEvent {
                    project: project.clone(),
                    time: now,
                    kind: kind.to_owned(),
                    subject: subject.clone(),
                    generation: None,
                    cause: "engine".to_owned(),
                    data: json!({ "expected": round.expected, "absent": round.absent }),
                })
            }));
        };
        match (before.held, round.held) {
            (false, true) => {
                tracing::warn!(%account, absent = round.absent, expected = round.expected, "much of what should be there is not: creates stop");
                tell("account.createsHeld");
            }
            (true, false) => {
                tracing::info!(%account, "what should be there is: creates go on");
                tell("account.createsResumed");
            }
            (true, true) | (false, false) => {}
        }
        let resolve =
            |code: &str| EngineWrite::ResolveIssue { code: code.to_owned(), subject: subject.clone(), at: now };
        if round.held && (!before.held || before.absent != round.absent) {
            let title = format!(
                "{} of {} resources that should be in account {account} are not there: nothing is created in it",
                round.absent, round.expected
            );
            let remediation = "check that the account's credential, region and endpoint are the right ones; if these \
                resources are meant to be gone, acknowledge this issue (POST /v1/issues/{id}:acknowledge) and what is \
                still wanted is made anew";
            writes.extend(self.raise(projects, TroubleCode::CreatesHeld.as_str(), &subject, title, remediation));
        } else if before.held && !round.held {
            writes.push(resolve(TroubleCode::CreatesHeld.as_str()));
        }
        if let (BLIND_ROUNDS, Some(why)) = (round.failures, &lists.why) {
            let title =
                format!("account {account} cannot be listed, so settled connections in it are not observed: {why}");
            let remediation = "check that the account's credential is valid and may list these resources";
            writes.extend(self.raise(projects, UNOBSERVED, &subject, title, remediation));
        } else if round.failures == 0 && before.failures >= BLIND_ROUNDS {
            writes.push(resolve(UNOBSERVED));
        }
        writes
    }

    /// The same issue in every project that has something in the account.
    fn raise(
        &self,
        projects: &BTreeSet<ProjectId>,
        code: &str,
        subject: &str,
        title: String,
        remediation: &str,
    ) -> Vec<EngineWrite> {
        let now = self.clock.now();
        let issue = |project: &ProjectId| EngineWrite::RaiseIssue {
            project: project.clone(),
            issue: Box::new(Issue {
                id: IssueId(self.random.uuid_v7(now)),
                severity: Severity::Error,
                code: code.to_owned(),
                about: vec![subject.to_owned()],
                title: title.clone(),
                cost: None,
                remediation: remediation.to_owned(),
                state: IssueState::Open,
                created_at: now,
                resolved_at: None,
            }),
        };
        projects.iter().map(issue).collect()
    }
}

/// Whether it was seen so lately that a list may not show it yet.
fn just_seen(instance: &Instance, now: Timestamp, lag_ms: u64) -> bool {
    match &instance.seen {
        Seen::Present { at, .. } => now >= *at && millis_between(*at, now) < lag_ms,
        Seen::Never | Seen::Absent { .. } | Seen::Unknown { .. } => false,
    }
}

/// What a round says of the account. More than max(3, 10 %) absent, beyond what a person has accepted, holds creates; lists
/// that are not complete never lift a hold.
fn judge(account: &AccountId, before: &AccountWatch, lists: &Lists, found: &Found) -> AccountRound {
    let accepted = before.accepted.min(found.absent);
    let held = found.absent - accepted > 3.max(found.expected / 10);
    let complete = lists.why.is_none();
    let mut round = AccountRound {
        account_id: account.clone(),
        began_ms_ago: 0,
        observed_at: None,
        swept: false,
        failures: if complete { 0 } else { before.failures.saturating_add(1) },
        expected: found.expected,
        absent: found.absent,
        accepted,
        held,
        calm: complete && !held && found.absent == 0,
    };
    if !complete && !held {
        round = AccountRound {
            expected: before.expected,
            absent: before.absent,
            accepted: before.accepted,
            held: before.held,
            ..round
        };
    }
    round
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(before: &AccountWatch, complete: bool, expected: u32, absent: u32) -> AccountRound {
        let why = (!complete).then(|| Blind::NoClient("acct".parse().unwrap()));
        let lists = Lists { why, ..Lists::default() };
        let found = Found { expected, absent, ..Found::default() };
        judge(&"acct".parse().unwrap(), before, &lists, &found)
    }

    #[test]
    fn more_than_three_and_a_tenth_is_too_many() {
        let fresh = AccountWatch::default();
        for (expected, absent, held) in
            [(4, 3, false), (4, 4, true), (40, 4, false), (40, 5, true), (1_000, 100, false)]
        {
            assert_eq!(round(&fresh, true, expected, absent).held, held, "{absent} of {expected}");
        }
    }

    #[test]
    fn what_a_person_accepted_is_not_counted_again_until_it_was_there() {
        let accepted = AccountWatch { expected: 40, absent: 10, accepted: 10, ..AccountWatch::default() };
        assert!(!round(&accepted, true, 40, 14).held, "four more are not more than a tenth");
        assert!(round(&accepted, true, 40, 15).held);
        let back = round(&accepted, true, 40, 2);
        assert_eq!((back.held, back.accepted), (false, 2));
        let again = AccountWatch { accepted: back.accepted, absent: 2, ..accepted };
        assert!(round(&again, true, 40, 7).held);
    }

    #[test]
    fn lists_that_are_not_complete_hold_but_never_lift() {
        let held = AccountWatch { expected: 40, absent: 10, held: true, ..AccountWatch::default() };
        let kept = round(&held, false, 20, 0);
        assert_eq!((kept.held, kept.expected, kept.absent, kept.failures), (true, 40, 10, 1));
        assert!(!round(&held, true, 40, 0).held);
        assert!(round(&AccountWatch::default(), false, 20, 5).held);
    }
}
