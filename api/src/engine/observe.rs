//! Looking at the clouds: one read a resource for connections on their way, one paged list an account and kind for settled
//! ones and for the sweep.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use tieline_openapi::{
    ids::{AccountId, InstanceId},
    problem::ProviderDetail,
    v1::Timestamp,
};
use tieline_providers::{CallError, ListScope, Lookup, Observed, OwnerTag, ResourceKind, ResourceSpec, Target};
use uuid::Uuid;

use super::{
    Engine, detail,
    draft::{Draft, PassTime},
    ledger,
    limits::Lane,
};
use crate::plan::step::{Instance, Seen};

/// Why a look has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum Blind {
    /// The cloud refused or did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// This process has no client for the account.
    #[error("there is no client for account {0}")]
    NoClient(AccountId),
    /// The credential is another account's.
    #[error("the credential of account {account} belongs to {found}, not to {recorded}")]
    Identity { account: AccountId, found: String, recorded: String },
}

impl Blind {
    pub(super) fn detail(&self) -> ProviderDetail {
        match self {
            Self::Call(error) => error.detail.clone(),
            Self::NoClient(_) => detail("tieline", "noClient", self.to_string()),
            Self::Identity { .. } => detail("tieline", "identity", self.to_string()),
        }
    }
}

/// Where a list is taken: an account, a kind, and the object that such things live in, if any.
type Shelf = (AccountId, ResourceKind, Option<String>);

/// One list, taken by one pass at a time.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Snapshot>>>>;

/// Lists that were taken lately, shared by all settled connections of a replica.
#[derive(Default)]
pub(super) struct Inventory {
    shelves: Mutex<BTreeMap<Shelf, Slot>>,
    tallies: Mutex<BTreeMap<AccountId, Tally>>,
}

/// One complete list.
pub(super) struct Snapshot {
    taken_at: Duration,
    pub items: Vec<Observed>,
    by_instance: BTreeMap<InstanceId, usize>,
    by_cloud_id: BTreeMap<String, usize>,
}

impl Snapshot {
    fn new(taken_at: Duration, items: Vec<Observed>) -> Self {
        let by_instance = items.iter().enumerate().filter_map(|(n, o)| Some((o.owner?.instance, n))).collect();
        let by_cloud_id = items.iter().enumerate().map(|(n, o)| (o.cloud_id.clone(), n)).collect();
        Self { taken_at, items, by_instance, by_cloud_id }
    }

    fn find(&self, instance: &Instance) -> Option<&Observed> {
        let by_id = instance.cloud_id.as_ref().and_then(|id| self.by_cloud_id.get(id));
        by_id.or_else(|| self.by_instance.get(&instance.id)).and_then(|n| self.items.get(*n))
    }
}

/// What of an account's settled resources was there, over one round of lists.
struct Tally {
    since: Duration,
    expected: BTreeSet<InstanceId>,
    absent: BTreeSet<InstanceId>,
}

impl Engine {
    pub(super) fn owner_tag(&self, instance: InstanceId) -> OwnerTag {
        OwnerTag::new(self.installation, instance)
    }

    pub(super) fn target(&self, instance: &Instance, spec: ResourceSpec) -> Target {
        Target {
            spec,
            lookup: Lookup { owner: self.owner_tag(instance.named()), cloud_id: instance.cloud_id.clone() },
            token: ledger::token(instance.named()),
            timeout: self.call_timeout(),
        }
    }

    /// Looks at each of these instances by itself.
    pub(super) async fn look(&self, draft: &mut Draft, ids: &[InstanceId], lane: Lane) {
        let time = draft.time;
        let looks = ids.iter().filter_map(|id| draft.instance(*id)).map(|instance| {
            let target = self.target(instance, draft.spec(instance));
            let (id, account) = (instance.id, instance.account_id.clone());
            async move {
                let (asked_at, look) = self.look_at(&account, &target, time, lane).await;
                (id, asked_at, look)
            }
        });
        let looks: Vec<_> = futures::future::join_all(looks).await;
        for (id, asked_at, look) in looks {
            if let Err(blind) = &look {
                let why = blind.detail();
                tracing::info!(instance = %id, code = %why.code, message = %why.message, "a resource could not be looked at");
                draft.errors.insert(id, why);
            }
            draft.fresh.insert(id);
            self.merge(draft, id, look, asked_at);
        }
    }

    /// One look, with the time from before it was asked for: the answer may take its time, and says nothing about the
    /// time in which it was on its way.
    async fn look_at(
        &self,
        account: &AccountId,
        target: &Target,
        time: PassTime,
        lane: Lane,
    ) -> (Timestamp, Result<Option<Observed>, Blind>) {
        self.limits.take(account, lane).await;
        let asked_at = time.now(self.clock.as_ref());
        (asked_at, self.read(account, target, lane).await)
    }

    async fn read(&self, account: &AccountId, target: &Target, lane: Lane) -> Result<Option<Observed>, Blind> {
        let cloud = self.clouds.get(account).ok_or_else(|| Blind::NoClient(account.clone()))?;
        self.progress.reads.fetch_add(1, Ordering::Relaxed);
        let found = self.bounded(cloud.read(target)).await?;
        if found.is_none() {
            // Under another account's credential everything is absent.
            self.confirm_identity(account, lane).await?;
        }
        Ok(found)
    }

    /// Whether the credential belongs to the account that `tieline.toml` names.
    pub(super) async fn confirm_identity(&self, account: &AccountId, lane: Lane) -> Result<(), Blind> {
        let cloud = self.clouds.get(account).ok_or_else(|| Blind::NoClient(account.clone()))?;
        self.limits.take(account, lane).await;
        self.progress.reads.fetch_add(1, Ordering::Relaxed);
        let found = self.bounded(cloud.identity(self.call_timeout())).await?;
        let recorded = self.topology.accounts.get(account).map(|a| a.external_id.clone()).unwrap_or_default();
        if found == recorded { Ok(()) } else { Err(Blind::Identity { account: account.clone(), found, recorded }) }
    }

    fn merge(&self, draft: &mut Draft, id: InstanceId, look: Result<Option<Observed>, Blind>, now: Timestamp) {
        let installation = self.installation;
        let Some(instance) = draft.instance_mut(id) else { return };
        instance.seen = match look {
            Ok(Some(mut observed)) => {
                // The instance alone does not make it ours: a copy of this database is another installation.
                if let Some(owner) = observed.owner.filter(|owner| !owner.is_of(installation)) {
                    observed.owner = Some(OwnerTag { instance: InstanceId(Uuid::nil()), ..owner });
                }
                let seen = Seen::Present { observed: Box::new(observed), at: now };
                let found = Instance { seen: seen.clone(), ..instance.clone() };
                if let (None, Some(observed)) = (&instance.cloud_id, found.present()) {
                    instance.cloud_id = Some(observed.cloud_id.clone());
                }
                seen
            }
            Ok(None) => absent_again(&instance.seen, now),
            Err(blind) => Seen::Unknown { at: now, why: blind.detail() },
        };
    }

    /// Looks at a settled connection by lists. True if every resource was found; what was not is left as it was.
    pub(super) async fn look_by_list(&self, draft: &mut Draft) -> bool {
        let max_age = Duration::from_millis(self.config.settled_poll_ms / 2);
        let mut found = Vec::new();
        for instance in &draft.instances {
            let parent = draft.spec(instance).shared_parent;
            let kind = instance.key.kind.clone();
            let Ok(snapshot) = self.snapshot(&instance.account_id, kind, parent, max_age, Lane::Housekeeping).await
            else {
                return false;
            };
            let observed = snapshot.find(instance).cloned();
            self.tally(&instance.account_id, instance.id, observed.is_some(), snapshot.taken_at);
            found.push((instance.id, observed));
        }
        let complete = found.iter().all(|(_, observed)| observed.is_some());
        let now = self.now(draft);
        for (id, observed) in found {
            if let Some(observed) = observed {
                draft.fresh.insert(id);
                self.merge(draft, id, Ok(Some(observed)), now);
            }
        }
        complete
    }

    /// A complete list under the right identity, not older than this. One replica takes it once for all its connections.
    pub(super) async fn snapshot(
        &self,
        account: &AccountId,
        kind: ResourceKind,
        parent: Option<String>,
        max_age: Duration,
        lane: Lane,
    ) -> Result<Arc<Snapshot>, Blind> {
        let shelf = {
            let mut shelves = self.inventory.shelves.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(shelves.entry((account.clone(), kind.clone(), parent.clone())).or_default())
        };
        let mut held = shelf.lock().await;
        let now = self.clock.monotonic();
        if let Some(snapshot) = held.as_ref().filter(|s| now.saturating_sub(s.taken_at) < max_age) {
            return Ok(Arc::clone(snapshot));
        }
        let items = self.list(account, kind, parent, lane).await?;
        let snapshot = Arc::new(Snapshot::new(now, items));
        *held = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    async fn list(
        &self,
        account: &AccountId,
        kind: ResourceKind,
        parent: Option<String>,
        lane: Lane,
    ) -> Result<Vec<Observed>, Blind> {
        let cloud = self.clouds.get(account).ok_or_else(|| Blind::NoClient(account.clone()))?;
        let scope = ListScope { kind, parent, timeout: self.call_timeout() };
        let mut items = Vec::new();
        let mut page = None;
        loop {
            self.limits.take(account, lane).await;
            self.progress.reads.fetch_add(1, Ordering::Relaxed);
            let listed = self.bounded(cloud.list(&scope, page.as_deref())).await?;
            items.extend(listed.items);
            // A cloud that hands out the same page for ever would keep us here: its list is not complete.
            if listed.next.is_some() && listed.next == page {
                let why = detail("tieline", "pages", "the list does not end".to_owned());
                let kind = tieline_providers::CallErrorKind::Malformed;
                return Err(Blind::Call(CallError { kind, detail: why, retry_after: None, source: None }));
            }
            page = listed.next;
            if page.is_none() {
                break;
            }
        }
        self.confirm_identity(account, lane).await?;
        Ok(items)
    }

    /// Counts what is there and what is not; more than max(3, 10 %) absent stops creates in the account.
    fn tally(&self, account: &AccountId, instance: InstanceId, present: bool, round: Duration) {
        let mut tallies = self.inventory.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = tallies.entry(account.clone()).or_insert_with(|| Tally {
            since: round,
            expected: BTreeSet::new(),
            absent: BTreeSet::new(),
        });
        let round_length = Duration::from_millis(self.config.settled_poll_ms);
        if round.saturating_sub(tally.since) >= round_length {
            *tally = Tally { since: round, expected: BTreeSet::new(), absent: BTreeSet::new() };
        }
        tally.expected.insert(instance);
        if present {
            tally.absent.remove(&instance);
        } else {
            tally.absent.insert(instance);
        }
        let too_many = tally.absent.len() > 3.max(tally.expected.len() / 10);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if too_many {
            if held.insert(account.clone()) {
                tracing::warn!(%account, absent = tally.absent.len(), "much of what should be there is not: creates stop");
            }
        } else if held.remove(account) {
            tracing::info!(%account, "what should be there is: creates go on");
        }
    }
}

/// One more look in a row without finding it. A clock that was stepped back starts the row anew.
fn absent_again(before: &Seen, now: Timestamp) -> Seen {
    match before {
        Seen::Absent { since, at, times } if now >= *at => {
            Seen::Absent { since: *since, at: now, times: times.saturating_add(1) }
        }
        Seen::Absent { .. } | Seen::Never | Seen::Present { .. } | Seen::Unknown { .. } => {
            Seen::Absent { since: now, at: now, times: 1 }
        }
    }
}
