//! The inventory sweep: an account's lists against the ledger. A lease alone never protects a cloud (a pause may fall
//! between the lease check and the socket), so what landed late is found and deleted here. Others' things are counted,
//! never touched.

use std::{collections::HashSet, sync::atomic::Ordering, time::Duration};

use serde_json::json;
use tieline_openapi::{ids::AccountId, v1::Timestamp};
use tieline_providers::{Lookup, Observed, OwnerTag, Presence, ResourceKey, ResourceSpec, Target};

use super::{
    Engine, failpoints,
    inventory::{Lists, Turn},
    ledger,
    limits::Lane,
    shared::{Taken, lease_name},
};
use crate::{
    plan::step::millis_between,
    store::{EngineWrite, LedgerFacts, NewEvent, StoreError},
};

/// By how much a resource may look older than its ledger row and still be ours: clocks differ, and may have been stepped.
const CLOCKS_MS: u64 = 2 * 3_600_000;

impl Engine {
    /// Looks through an account's lists for what no row stands for. `known` are ids of resources that stand where the
    /// ledger says.
    pub(super) async fn sweep(
        &self,
        account: &AccountId,
        lists: &Lists,
        known: &HashSet<String>,
        turn: &Turn,
    ) -> Result<(), StoreError> {
        let mut foreign = 0;
        for (parent, items) in &lists.shelves {
            for observed in items {
                match observed.owner.filter(|owner| owner.is_of(self.installation)) {
                    None => foreign += 1,
                    Some(_) if known.contains(&observed.cloud_id) => {}
                    Some(owner) => self.sweep_one(account, owner, observed, parent.as_deref(), turn.end()).await?,
                }
            }
        }
        self.progress.foreign.store(foreign, Ordering::Relaxed);
        Ok(())
    }

    async fn sweep_one(
        &self,
        account: &AccountId,
        owner: OwnerTag,
        observed: &Observed,
        parent: Option<&str>,
        end: Duration,
    ) -> Result<(), StoreError> {
        if matches!(observed.presence, Presence::Gone | Presence::Leaving) {
            return Ok(());
        }
        let Some(facts) = self.store.ledger_facts(owner.instance).await? else {
            tracing::warn!(%account, cloud_id = %observed.cloud_id, "a resource carries our name and is in no ledger: it is left alone");
            return Ok(());
        };
        if !is_stray(&facts, observed) {
            return Ok(());
        }
        let needed = self.call_timeout() + Duration::from_millis(self.config.lease_ms / 20);
        if end.saturating_sub(self.clock.monotonic()) <= needed {
            tracing::info!(%account, "the sweep goes on in the next round");
            return Ok(());
        }
        let guarded = match parent {
            None => None,
            Some(parent) => match self.take_shared(&lease_name(account, parent)).await? {
                Taken::Held(guarded) => Some(guarded),
                Taken::Later => return Ok(()),
            },
        };
        let target = self.stray_target(owner, &facts.key, observed, parent);
        self.failpoints.hit(failpoints::SWEEP_BEFORE_DELETE).await;
        let answered = self.delete_stray(account, &target, &facts, observed).await?;
        self.failpoints.hit(failpoints::SWEEP_AFTER_DELETE).await;
        if let Some(guarded) = guarded {
            self.give_back(guarded, answered).await?;
        }
        Ok(())
    }

    fn stray_target(&self, owner: OwnerTag, key: &ResourceKey, observed: &Observed, parent: Option<&str>) -> Target {
        Target {
            spec: ResourceSpec {
                key: key.clone(),
                after: Vec::new(),
                ready: false,
                shared_parent: parent.map(str::to_owned),
                slot: None,
                fields: observed.fields.clone(),
                immutable: Vec::new(),
                secrets: Vec::new(),
            },
            lookup: Lookup { owner, cloud_id: Some(observed.cloud_id.clone()) },
            token: ledger::token(owner.instance),
            timeout: self.call_timeout(),
        }
    }

    /// Deletes a stray. False where nobody knows whether the delete took.
    async fn delete_stray(
        &self,
        account: &AccountId,
        target: &Target,
        facts: &LedgerFacts,
        observed: &Observed,
    ) -> Result<bool, StoreError> {
        let Some(cloud) = self.clouds.get(account) else { return Ok(true) };
        self.limits.take(account, Lane::Housekeeping).await;
        match self.bounded(cloud.delete(target)).await {
            Ok(accepted) => {
                self.progress.swept.fetch_add(1, Ordering::Relaxed);
                let request_id = accepted.request_id.unwrap_or_default();
                tracing::warn!(connection = %facts.connection_id, cloud_id = %observed.cloud_id, request_id, "a stray resource of ours was deleted");
                let event = NewEvent {
                    project: facts.project.clone(),
                    time: self.clock.now(),
                    kind: "resource.swept".to_owned(),
                    subject: format!("/v1/connections/{}", facts.connection_id),
                    generation: None,
                    cause: "engine".to_owned(),
                    data: json!({ "type": observed.kind.as_str(), "cloudId": observed.cloud_id, "requestId": request_id }),
                };
                self.store.write_unclaimed(vec![EngineWrite::Event(event)]).await?;
                Ok(true)
            }
            Err(error) => {
                tracing::info!(cloud_id = %observed.cloud_id, code = %error.detail.code, message = %error.detail.message, "a stray resource could not be deleted yet");
                Ok(error.kind.outcome() == tieline_providers::Outcome::Refused)
            }
        }
    }
}

/// Whether a resource that carries our name stands for nothing: the ledger knows its instance, we asked for its creation,
/// no call about it is without verdict, and the instance is gone or is recorded as another resource.
fn is_stray(facts: &LedgerFacts, observed: &Observed) -> bool {
    let Some(first_create_at) = facts.first_create_at else { return false };
    if facts.open || !younger(observed.created_at, first_create_at) {
        return false;
    }
    match &facts.cloud_id {
        Some(recorded) => !facts.live || *recorded != observed.cloud_id,
        None => !facts.live,
    }
}

/// Whether it was made after its row was written, as far as two clocks can tell. Where the cloud tells no time, the row
/// alone decides.
fn younger(made: Option<Timestamp>, row: Timestamp) -> bool {
    made.is_none_or(|made| millis_between(made, row) <= CLOCKS_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::step::plus;
    use tieline_openapi::{
        ids::{ConnectionId, ProjectId},
        v1::End,
    };
    use tieline_providers::ResourceKind;
    use uuid::Uuid;

    const KIND: ResourceKind = ResourceKind::of("fake.vif");

    fn facts() -> LedgerFacts {
        LedgerFacts {
            connection_id: ConnectionId(Uuid::nil()),
            project: ProjectId::try_from("default".to_owned()).unwrap(),
            key: ResourceKey { end: End::A, kind: KIND },
            cloud_id: Some("vif-1".to_owned()),
            live: true,
            first_create_at: Some(plus(Timestamp::UNIX_EPOCH, 10 * CLOCKS_MS)),
            open: false,
            last_verb: None,
        }
    }

    fn observed(cloud_id: &str, made_after_epoch_ms: u64) -> Observed {
        Observed {
            kind: KIND,
            cloud_id: cloud_id.to_owned(),
            owner: None,
            provider_state: String::new(),
            presence: Presence::Usable,
            bgp: None,
            bfd: None,
            learned: tieline_providers::Learned::default(),
            fields: json!({}),
            created_at: Some(plus(Timestamp::UNIX_EPOCH, made_after_epoch_ms)),
        }
    }

    #[test]
    fn only_what_the_ledger_made_and_does_not_hold_is_a_stray() {
        let now = 10 * CLOCKS_MS + 5;
        assert!(!is_stray(&facts(), &observed("vif-1", now)), "the recorded one");
        assert!(is_stray(&facts(), &observed("vif-2", now)), "its twin");
        assert!(is_stray(&LedgerFacts { live: false, ..facts() }, &observed("vif-1", now)), "an orphan");
        assert!(!is_stray(&LedgerFacts { open: true, live: false, ..facts() }, &observed("vif-1", now)), "undecided");
        assert!(!is_stray(&LedgerFacts { cloud_id: None, ..facts() }, &observed("vif-1", now)), "not recorded yet");
        assert!(
            !is_stray(&LedgerFacts { first_create_at: None, ..facts() }, &observed("vif-2", now)),
            "never asked for"
        );
        assert!(!is_stray(&facts(), &observed("vif-2", 8 * CLOCKS_MS)), "older than its row");
    }
}
