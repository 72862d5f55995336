//! Operations. They outlive their connection.

use tieline_openapi::{
    ids::{ConnectionId, OperationId, ProjectId},
    v1::Operation,
};

use super::{
    SqlStore,
    row::{args, to_doc},
    tx::Tx,
};
use crate::store::{Page, StoreError};

/// Writes a new operation.
pub(super) async fn insert(tx: &mut Tx, project: &str, operation: &Operation) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO operations (id, project, connection_id, finished_at, doc) VALUES ($1, $2, $3, $4, $5)",
        args![
            operation.id.uuid(),
            project,
            operation.target.uuid(),
            operation.finished_at,
            to_doc("operation", operation)?
        ],
    )
    .await?;
    Ok(())
}

/// Writes how far an operation of a connection is, unless it has ended: what is final stays.
pub(super) async fn replace(tx: &mut Tx, connection: ConnectionId, operation: &Operation) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE operations SET finished_at = $3, doc = $4 WHERE id = $1 AND connection_id = $2 AND finished_at IS NULL",
        args![operation.id.uuid(), connection.uuid(), operation.finished_at, to_doc("operation", operation)?],
    )
    .await?;
    Ok(())
}

impl SqlStore {
    pub(super) async fn find_operation(&self, project: &ProjectId, id: OperationId) -> Result<Operation, StoreError> {
        let mut tx = self.look().await?;
        let row = tx
            .row("SELECT doc FROM operations WHERE id = $1 AND project = $2", args![id.uuid(), project.as_str()])
            .await?;
        tx.done().await?;
        row.ok_or(StoreError::NotFound)?.doc("operation")
    }

    pub(super) async fn list_operations(
        &self,
        project: &ProjectId,
        connection: Option<ConnectionId>,
        page: Page,
    ) -> Result<Vec<Operation>, StoreError> {
        let mut tx = self.look().await?;
        // After every UUID comes this text.
        let before = page.after.map_or_else(|| "~".to_owned(), |id| id.to_string());
        let rows = match connection {
            None => {
                let sql = "SELECT doc FROM operations WHERE project = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
                tx.rows(sql, args![project.as_str(), before, page.limit]).await?
            }
            Some(connection) => {
                let sql = "SELECT doc FROM operations WHERE project = $1 AND id < $2 AND connection_id = $4
                           ORDER BY id DESC LIMIT $3";
                tx.rows(sql, args![project.as_str(), before, page.limit, connection.uuid()]).await?
            }
        };
        tx.done().await?;
        rows.into_iter().map(|mut row| row.doc("operation")).collect()
    }
}
