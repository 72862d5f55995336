//! What is remembered of proofs that peers showed.

use async_trait::async_trait;
use tieline_openapi::{coordinator::ResourceId, ids::ProjectId, v1::Timestamp};
use uuid::Uuid;

use super::super::{SqlStore, row::args, tx::Tx};
use crate::{
    plan::coordinate::TOMBSTONE_KEPT,
    store::{Proofs, StoreError},
};

/// How long after its end something is remembered, in milliseconds: the clocks of replicas and of the store may differ.
const MARGIN_MS: u64 = 24 * 3_600 * 1_000;

/// Writes whose a connection is at the peer, where that is not known yet.
pub(super) async fn put_account(tx: &mut Tx, peer: &ResourceId, uuid: Uuid, account: &str) -> Result<(), StoreError> {
    let sql = "INSERT INTO coordinator_accounts (peer, uuid, account, created_at) VALUES ($1, $2, $3, {now})
               ON CONFLICT (peer, uuid) DO NOTHING";
    tx.execute(sql, args![peer.as_str(), uuid, account]).await.map(drop)
}

#[async_trait]
impl Proofs for SqlStore {
    async fn use_once(&self, peer: &ResourceId, digest: [u8; 32], ends_at: Timestamp) -> Result<bool, StoreError> {
        let mut write = self.write().await?;
        let sql = "INSERT INTO coordinator_used (peer, digest, ends_at) VALUES ($1, $2, $3)
                   ON CONFLICT (peer, digest) DO NOTHING";
        let written = write.execute(sql, args![peer.as_str(), digest.to_vec(), ends_at]).await?;
        write.commit().await?;
        Ok(written == 1)
    }

    async fn account(&self, peer: &ResourceId, uuid: Uuid, first: &str) -> Result<String, StoreError> {
        let sql = "SELECT account FROM coordinator_accounts WHERE peer = $1 AND uuid = $2";
        let mut write = self.write().await?;
        put_account(&mut write, peer, uuid, first).await?;
        let row = write.row(sql, args![peer.as_str(), uuid]).await?;
        write.commit().await?;
        row.ok_or(StoreError::NotFound)?.text()
    }

    async fn project_of(&self, peer: &ResourceId, uuid: Uuid) -> Result<Option<ProjectId>, StoreError> {
        let mut tx = self.read().await?;
        let sql = "SELECT project FROM connections WHERE peer = $1 AND shared_uuid = $2
                   UNION ALL SELECT project FROM gone_connections WHERE peer = $1 AND shared_uuid = $2
                   UNION ALL SELECT project FROM coordinator_owners WHERE peer = $1 AND uuid = $2 LIMIT 1";
        let row = tx.row(sql, args![peer.as_str(), uuid]).await?;
        tx.done().await?;
        row.map(|mut row| row.id()).transpose()
    }

    async fn forget_proofs(&self, rows: u32) -> Result<(), StoreError> {
        self.prune("coordinator_used (peer, digest)", "ends_at <= {now} - $1", MARGIN_MS, rows).await?;
        let kept = u64::try_from(TOMBSTONE_KEPT.as_millis()).unwrap_or(u64::MAX);
        let gone = "created_at <= {now} - $1
                    AND NOT EXISTS (SELECT 1 FROM coordinator_rows r
                        WHERE r.peer = coordinator_accounts.peer AND r.uuid = coordinator_accounts.uuid)
                    AND NOT EXISTS (SELECT 1 FROM coordinator_keys k
                        WHERE k.peer = coordinator_accounts.peer AND k.uuid = coordinator_accounts.uuid)";
        self.prune("coordinator_accounts (peer, uuid)", gone, kept, rows).await
    }
}
