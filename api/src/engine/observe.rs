//! Looking at the clouds: a read of one resource, or a paged list of all of a kind in an account.

use std::sync::atomic::Ordering;

use tieline_openapi::{
    ids::{AccountId, InstanceId},
    problem::ProviderDetail,
    v1::Timestamp,
};
use tieline_providers::{
    CallError, ListScope, Lookup, Observed, OwnerTag, Presence, ResourceKind, ResourceSpec, Target,
};
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

/// Whether a look was taken and showed nothing that is there: a terminal state counts as absent.
fn shows_nothing(look: &Result<Option<Observed>, Blind>) -> bool {
    look.as_ref().is_ok_and(|found| found.as_ref().is_none_or(|seen| seen.presence == Presence::Gone))
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
            let mut target = self.target(instance, draft.spec(instance));
            let in_slot = draft.may_take_its_slot(instance) && target.lookup.cloud_id.is_some();
            let (id, account) = (instance.id, instance.account_id.clone());
            async move {
                let (mut asked_at, mut look) = self.look_at(&account, &target, time, lane).await;
                if in_slot && shows_nothing(&look) {
                    // What a late create makes where the recorded one has gone has another id.
                    target.lookup.cloud_id = None;
                    (asked_at, look) = self.look_at(&account, &target, time, lane).await;
                }
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
    ///
    /// Under another account's credential everything is absent, and a credential may change between two calls: nothing is
    /// taken for absent but what was not there between two looks at whose account it is.
    async fn look_at(
        &self,
        account: &AccountId,
        target: &Target,
        time: PassTime,
        lane: Lane,
    ) -> (Timestamp, Result<Option<Observed>, Blind>) {
        let first = self.read(account, target, time, lane).await;
        if !matches!(first, (_, Ok(None))) {
            return first;
        }
        if let Err(blind) = self.confirm_identity(account, lane).await {
            return (first.0, Err(blind));
        }
        let second = self.read(account, target, time, lane).await;
        if !matches!(second, (_, Ok(None))) {
            return second;
        }
        match self.confirm_identity(account, lane).await {
            Ok(()) => second,
            Err(blind) => (second.0, Err(blind)),
        }
    }

    async fn read(
        &self,
        account: &AccountId,
        target: &Target,
        time: PassTime,
        lane: Lane,
    ) -> (Timestamp, Result<Option<Observed>, Blind>) {
        self.limits.take(account, lane).await;
        let asked_at = time.now(self.clock.as_ref());
        let Some(cloud) = self.clouds.get(account) else {
            return (asked_at, Err(Blind::NoClient(account.clone())));
        };
        self.progress.reads.fetch_add(1, Ordering::Relaxed);
        (asked_at, self.bounded(cloud.read(target)).await.map_err(Blind::Call))
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

    /// The instance alone does not make a resource ours: a copy of this database is another installation.
    pub(super) fn as_ours_or_not(&self, mut observed: Observed) -> Observed {
        if let Some(owner) = observed.owner.filter(|owner| !owner.is_of(self.installation)) {
            observed.owner = Some(OwnerTag { instance: InstanceId(Uuid::nil()), ..owner });
        }
        observed
    }

    fn merge(&self, draft: &mut Draft, id: InstanceId, look: Result<Option<Observed>, Blind>, now: Timestamp) {
        let look = look.map(|found| found.map(|observed| self.as_ours_or_not(observed)));
        let Some(instance) = draft.instance_mut(id) else { return };
        instance.seen = match look {
            Ok(Some(observed)) => {
                let seen = instance.seen.and_found(observed, now);
                let found = Instance { seen: seen.clone(), ..instance.clone() };
                // Not the recorded one, where a late create has made it in the place of that.
                if let Some(observed) = found.present() {
                    instance.cloud_id = Some(observed.cloud_id.clone());
                }
                seen
            }
            Ok(None) => instance.seen.and_not_found(now),
            Err(blind) => Seen::Unknown { at: now, why: blind.detail() },
        };
    }

    /// Everything of a kind in an account, ours and others': a complete list, under the right identity.
    pub(super) async fn list(
        &self,
        account: &AccountId,
        kind: ResourceKind,
        parent: Option<String>,
        lane: Lane,
    ) -> Result<Vec<Observed>, Blind> {
        let items = self.pages(account, kind, parent, lane).await?;
        self.confirm_identity(account, lane).await?;
        Ok(items)
    }

    /// The pages of a list. Whose they are, the caller has to make sure.
    pub(super) async fn pages(
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
                return Ok(items);
            }
        }
    }
}
