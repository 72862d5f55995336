//! The installation, API tokens, join tokens' and gateways' credentials.

use tieline_openapi::{
    ids::{InstallationId, ProjectId, TokenId},
    v1::{JoinToken, Timestamp, Token},
};

use super::{
    SqlStore, answers,
    row::{Row, args, to_word},
    tx::Tx,
};
use crate::store::{Audit, NewToken, Page, StoreError, StoredPrincipal};

/// Uses of a token are noted once in so many milliseconds.
const TOUCH_MS: i64 = 60_000;

const TOKEN: &str = "id, name, project, scope, expires_at, last_used_at, created_at";

fn token(row: &mut Row) -> Result<Token, StoreError> {
    Ok(Token {
        id: row.id()?,
        name: row.text()?,
        project: row.id()?,
        scope: row.word("scope")?,
        expires_at: row.opt_time()?,
        last_used_at: row.opt_time()?,
        created_at: row.time()?,
    })
}

/// Writes an audit row.
pub(super) async fn audit(tx: &mut Tx, audit: &Audit) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO audit (at, principal, request_id, action, subject) VALUES ($1, $2, $3, $4, $5)",
        args![audit.at, &audit.principal, &audit.request_id, &audit.action, &audit.subject],
    )
    .await?;
    Ok(())
}

impl SqlStore {
    pub(super) async fn installation_id(&self, candidate: InstallationId) -> Result<InstallationId, StoreError> {
        let mut write = self.write().await?;
        write
            .execute(
                "INSERT INTO installation (one, id) VALUES (1, $1) ON CONFLICT (one) DO NOTHING",
                args![candidate.uuid()],
            )
            .await?;
        let row = write.row("SELECT id FROM installation WHERE one = 1", args![]).await?;
        write.commit().await?;
        row.ok_or(StoreError::NotFound)?.id()
    }

    pub(super) async fn store_time(&self) -> Result<Timestamp, StoreError> {
        let mut tx = self.look().await?;
        let row = tx.row("SELECT {now}", args![]).await?;
        tx.done().await?;
        row.ok_or(StoreError::NotFound)?.time()
    }

    pub(super) async fn add_token(&self, new: NewToken) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        // First of all: a repeated request finds its answer, not its own token in the way.
        if let Some((key, answer)) = &new.idempotency {
            answers::save(&mut write, key, answer).await?;
        }
        let t = &new.token;
        let scope = to_word("scope", &t.scope)?;
        let written = write
            .execute(
                "INSERT INTO tokens (id, project, name, scope, hash, created_at, expires_at, last_used_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                 ON CONFLICT (project, name) WHERE deleted_at IS NULL DO NOTHING",
                args![
                    t.id.uuid(),
                    t.project.as_str(),
                    &t.name,
                    scope,
                    new.hash,
                    t.created_at,
                    t.expires_at,
                    t.last_used_at
                ],
            )
            .await?;
        if written == 0 {
            return Err(StoreError::AllocationTaken { what: format!("the token name `{}`", t.name) });
        }
        audit(&mut write, &new.audit).await?;
        write.commit().await
    }

    pub(super) async fn token_count(&self) -> Result<u64, StoreError> {
        let mut tx = self.look().await?;
        let row = tx.row("SELECT COUNT(*) FROM tokens", args![]).await?;
        tx.done().await?;
        row.ok_or(StoreError::NotFound)?.count()
    }

    pub(super) async fn find_principal(&self, hash: [u8; 32]) -> Result<Option<StoredPrincipal>, StoreError> {
        let mut tx = self.look().await?;
        let sql = format!("SELECT {TOKEN} FROM tokens WHERE hash = $1 AND deleted_at IS NULL");
        let found = if let Some(mut row) = tx.row(&sql, args![hash]).await? {
            Some(StoredPrincipal::Token(token(&mut row)?))
        } else if let Some(mut row) =
            tx.row("SELECT id, project FROM gateways WHERE credential_hash = $1", args![hash]).await?
        {
            Some(StoredPrincipal::Gateway { id: row.id()?, project: row.id()? })
        } else if let Some(mut row) = tx
            .row(
                "SELECT id, gateway_group, attach_point_id, expires_at, used_at, project FROM join_tokens
                 WHERE hash = $1",
                args![hash],
            )
            .await?
        {
            let token = JoinToken {
                id: row.id()?,
                group: row.id()?,
                attach_point_id: row.id()?,
                expires_at: row.time()?,
                used_at: row.opt_time()?,
            };
            Some(StoredPrincipal::Join { token, project: row.id()? })
        } else {
            None
        };
        tx.done().await?;
        Ok(found)
    }

    pub(super) async fn note_use(&self, id: TokenId, at: Timestamp) -> Result<(), StoreError> {
        // Most uses fall into a minute that is noted already: these must not queue at the writer.
        const STALE: &str = "id = $1 AND (last_used_at IS NULL OR last_used_at <= $2 - $3)";
        let args = args![id.uuid(), at, TOUCH_MS];
        let mut tx = self.look().await?;
        let stale = tx.row(&format!("SELECT 1 FROM tokens WHERE {STALE}"), args.clone()).await?;
        tx.done().await?;
        if stale.is_some() {
            let mut write = self.write().await?;
            write.execute(&format!("UPDATE tokens SET last_used_at = $2 WHERE {STALE}"), args).await?;
            write.commit().await?;
        }
        Ok(())
    }

    pub(super) async fn tokens(&self, project: &ProjectId, page: Page) -> Result<Vec<Token>, StoreError> {
        let mut tx = self.look().await?;
        let sql = format!(
            "SELECT {TOKEN} FROM tokens WHERE project = $1 AND deleted_at IS NULL AND id > $2 ORDER BY id LIMIT $3"
        );
        let after = page.after.map(|id| id.to_string()).unwrap_or_default();
        let rows = tx.rows(&sql, args![project.as_str(), after, page.limit]).await?;
        tx.done().await?;
        rows.into_iter().map(|mut row| token(&mut row)).collect()
    }

    pub(super) async fn end_token(&self, project: &ProjectId, id: TokenId, entry: Audit) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let ended = write
            .execute(
                "UPDATE tokens SET deleted_at = $3 WHERE id = $1 AND project = $2 AND deleted_at IS NULL",
                args![id.uuid(), project.as_str(), entry.at],
            )
            .await?;
        if ended == 0 {
            return Err(StoreError::NotFound);
        }
        audit(&mut write, &entry).await?;
        write.commit().await
    }
}
