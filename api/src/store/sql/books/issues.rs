//! Tickets of a peer, and what was said to them.

use tieline_openapi::coordinator::{Comment, Issue, ResourceId};

use super::{
    super::{
        SqlStore, principals,
        row::{args, to_doc},
    },
    id as read_id,
};
use crate::store::{Audit, StoreError};

impl SqlStore {
    pub(super) async fn insert_peer_issue(
        &self,
        peer: &ResourceId,
        id: &ResourceId,
        issue: &Issue,
        audit: Audit,
    ) -> Result<bool, StoreError> {
        let mut write = self.write().await?;
        let written = write
            .execute(
                "INSERT INTO coordinator_issues (peer, issue, created_at, doc) VALUES ($1, $2, {now}, $3)
                 ON CONFLICT (peer, issue) DO NOTHING",
                args![peer.as_str(), id.as_str(), to_doc("issue of a peer", issue)?],
            )
            .await?;
        principals::audit(&mut write, &audit).await?;
        write.commit().await?;
        Ok(written == 1)
    }

    pub(super) async fn change_peer_issue(
        &self,
        peer: &ResourceId,
        id: &ResourceId,
        issue: &Issue,
        audit: Audit,
    ) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let written = write
            .execute(
                "UPDATE coordinator_issues SET doc = $3 WHERE peer = $1 AND issue = $2",
                args![peer.as_str(), id.as_str(), to_doc("issue of a peer", issue)?],
            )
            .await?;
        if written == 0 {
            return Err(StoreError::NotFound);
        }
        principals::audit(&mut write, &audit).await?;
        write.commit().await
    }

    pub(super) async fn find_peer_issue(&self, peer: &ResourceId, id: &ResourceId) -> Result<Issue, StoreError> {
        let mut tx = self.read().await?;
        let sql = "SELECT doc FROM coordinator_issues WHERE peer = $1 AND issue = $2";
        let row = tx.row(sql, args![peer.as_str(), id.as_str()]).await?;
        tx.done().await?;
        row.ok_or(StoreError::NotFound)?.doc("issue of a peer")
    }

    pub(super) async fn list_peer_issues(
        &self,
        peer: &ResourceId,
        after: Option<&ResourceId>,
        limit: u32,
    ) -> Result<Vec<(ResourceId, Issue)>, StoreError> {
        let mut tx = self.read().await?;
        let sql = "SELECT issue, doc FROM coordinator_issues WHERE peer = $1 AND issue > $2 ORDER BY issue LIMIT $3";
        let rows = tx.rows(sql, args![peer.as_str(), after.map_or("", ResourceId::as_str), limit]).await?;
        tx.done().await?;
        rows.into_iter().map(|mut row| Ok((read_id(&mut row)?, row.doc("issue of a peer")?))).collect()
    }

    pub(super) async fn insert_comment(
        &self,
        peer: &ResourceId,
        id: &ResourceId,
        comment: &Comment,
        audit: Audit,
    ) -> Result<u64, StoreError> {
        let mut write = self.write().await?;
        // The issue's row is the lock under which numbers are given.
        let held = write
            .execute(
                "UPDATE coordinator_issues SET created_at = created_at WHERE peer = $1 AND issue = $2",
                args![peer.as_str(), id.as_str()],
            )
            .await?;
        if held == 0 {
            return Err(StoreError::NotFound);
        }
        let row = write
            .row(
                "INSERT INTO coordinator_comments (peer, issue, n, doc)
                 SELECT $1, $2, COALESCE(MAX(n), 0) + 1, $3 FROM coordinator_comments WHERE peer = $1 AND issue = $2
                 RETURNING n",
                args![peer.as_str(), id.as_str(), to_doc("comment of a peer", comment)?],
            )
            .await?;
        let n = row.ok_or(StoreError::NotFound)?.count()?;
        principals::audit(&mut write, &audit).await?;
        write.commit().await?;
        Ok(n)
    }

    pub(super) async fn list_comments(
        &self,
        peer: &ResourceId,
        id: &ResourceId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<(u64, Comment)>, StoreError> {
        let mut tx = self.read().await?;
        let sql = "SELECT n, doc FROM coordinator_comments WHERE peer = $1 AND issue = $2 AND n < $3
                   ORDER BY n DESC LIMIT $4";
        let before = before.unwrap_or(u64::MAX);
        let rows = tx.rows(sql, args![peer.as_str(), id.as_str(), before, limit]).await?;
        tx.done().await?;
        rows.into_iter().map(|mut row| Ok((row.count()?, row.doc("comment of a peer")?))).collect()
    }
}
