//! The inventory sweep: an account's lists against the ledger. A lease alone never protects a cloud (a pause may fall
//! between the lease check and the socket), so what landed late is found here. It is noted for the next pass of its
//! connection, which deletes it: one planner, one ledger, also for connections that are gone. Others' things are counted,
//! never touched.

use std::{collections::HashSet, sync::atomic::Ordering, time::Duration};

use tieline_openapi::{
    ids::{AccountId, InstanceId},
    v1::Timestamp,
};
use tieline_providers::{Observed, OwnerTag, Presence};

use super::{Engine, failpoints, inventory::Lists};
use crate::{
    plan::step::{Twin, millis_between},
    store::{EngineWrite, LedgerFacts, StoreError},
};

/// By how much a resource may look older than its ledger row and still be ours: clocks differ, and may have been stepped.
const CLOCKS_MS: u64 = 2 * 3_600_000;

impl Engine {
    /// Looks through an account's lists for what no row stands for. `began` is the monotonic clock before they were asked
    /// for, `known` are ids of resources that stand where the ledger says.
    pub(super) async fn sweep(
        &self,
        account: &AccountId,
        lists: &Lists,
        began: Duration,
        known: &HashSet<String>,
    ) -> Result<(), StoreError> {
        let mut foreign = 0;
        for shelf in &lists.shelves {
            for observed in &shelf.items {
                match observed.owner.filter(|owner| owner.is_of(self.installation)) {
                    None => foreign += 1,
                    Some(_) if known.contains(&observed.cloud_id) => {}
                    Some(owner) => {
                        let parent = shelf.parent.as_deref();
                        self.sweep_one(account, owner, observed, began, parent).await?;
                    }
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
        began: Duration,
        parent: Option<&str>,
    ) -> Result<(), StoreError> {
        if matches!(observed.presence, Presence::Gone | Presence::Leaving) {
            return Ok(());
        }
        let Some(facts) = self.store.ledger_facts(owner.instance).await? else {
            tracing::warn!(%account, cloud_id = %observed.cloud_id, "a resource carries our name and is in no ledger: it is left alone");
            return Ok(());
        };
        let passed = self.clock.monotonic().saturating_sub(began).as_millis();
        let shown_for = self.config.visibility_lag_ms.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX));
        if !is_stray(&facts, observed, shown_for) {
            return Ok(());
        }
        tracing::info!(connection = %facts.connection_id, cloud_id = %observed.cloud_id, "a stray resource of ours was found");
        self.failpoints.hit(failpoints::SWEEP_FOUND).await;
        let id = InstanceId(self.random.uuid_v7(self.clock.now()));
        let parent = parent.map(str::to_owned);
        let twin = Box::new(Twin { of: owner.instance, parent, fields: observed.fields.clone() });
        let found = EngineWrite::FoundTwin { id, twin, cloud_id: observed.cloud_id.clone() };
        self.store.write_unclaimed(vec![found]).await?;
        self.wake.notify_one();
        self.failpoints.hit(failpoints::SWEEP_NOTED).await;
        Ok(())
    }
}

/// Whether a resource that carries our name stands for nothing: the ledger knows its instance, we asked for its creation,
/// no call about it is without verdict, and the instance is gone or is recorded as another resource. What has gone is shown
/// by a lagging list for a while, here `shown_for_ms`; and where a create that was given up may yet take the instance's
/// slot, its connection looks for that itself.
fn is_stray(facts: &LedgerFacts, observed: &Observed, shown_for_ms: u64) -> bool {
    let Some(first_create_at) = facts.first_create_at else { return false };
    if facts.open || !younger(observed.created_at, first_create_at) {
        return false;
    }
    let recorded = facts.cloud_id.as_ref();
    match facts.retired_ms_ago {
        Some(ago) => ago >= shown_for_ms,
        None => !facts.may_take_its_slot && recorded.is_some_and(|recorded| *recorded != observed.cloud_id),
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
    use serde_json::json;
    use tieline_openapi::{
        ids::{ConnectionId, ProjectId},
        v1::End,
    };
    use tieline_providers::{ResourceKey, ResourceKind};
    use uuid::Uuid;

    const KIND: ResourceKind = ResourceKind::of("fake.vif");

    fn facts() -> LedgerFacts {
        LedgerFacts {
            connection_id: ConnectionId(Uuid::nil()),
            project: ProjectId::try_from("default".to_owned()).unwrap(),
            key: ResourceKey { end: End::A, kind: KIND },
            cloud_id: Some("vif-1".to_owned()),
            retired_ms_ago: None,
            first_create_at: Some(plus(Timestamp::UNIX_EPOCH, 10 * CLOCKS_MS)),
            open: false,
            may_take_its_slot: false,
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
        let is_stray = |facts: &LedgerFacts, observed: &Observed| is_stray(facts, observed, 700);
        let retired = |ms| LedgerFacts { retired_ms_ago: Some(ms), ..facts() };
        assert!(!is_stray(&facts(), &observed("vif-1", now)), "the recorded one");
        assert!(is_stray(&facts(), &observed("vif-2", now)), "its twin");
        assert!(is_stray(&retired(700), &observed("vif-1", now)), "an orphan");
        assert!(!is_stray(&retired(699), &observed("vif-1", now)), "not of the list any more, perhaps");
        assert!(!is_stray(&LedgerFacts { open: true, ..retired(700) }, &observed("vif-1", now)), "undecided");
        assert!(!is_stray(&LedgerFacts { cloud_id: None, ..facts() }, &observed("vif-1", now)), "not recorded yet");
        let given_up = |facts| LedgerFacts { may_take_its_slot: true, ..facts };
        assert!(!is_stray(&given_up(facts()), &observed("vif-2", now)), "its connection will find it");
        assert!(is_stray(&given_up(retired(700)), &observed("vif-2", now)), "nobody else will");
        assert!(
            !is_stray(&LedgerFacts { first_create_at: None, ..facts() }, &observed("vif-2", now)),
            "never asked for"
        );
        assert!(!is_stray(&facts(), &observed("vif-2", 8 * CLOCKS_MS)), "older than its row");
    }
}
