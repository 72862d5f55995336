//! Plans. They outlive their connection, until they are pruned.

use tieline_openapi::{
    ids::{ConnectionId, PlanId, ProjectId},
    v1::Plan,
};

use super::{
    SqlStore, answers,
    row::{args, to_doc},
};
use crate::store::{NewPlan, Page, StoreError};

impl SqlStore {
    pub(super) async fn save_plan(&self, new: NewPlan) -> Result<(), StoreError> {
        let NewPlan { project, connection_id, plan, request, idempotency } = new;
        let id =
            plan.id.ok_or_else(|| StoreError::Invalid { reason: "a plan without an id is a dry run".to_owned() })?;
        let mut write = self.write().await?;
        if let Some((key, answer)) = &idempotency {
            answers::save(&mut write, key, answer).await?;
        }
        write
            .execute(
                "INSERT INTO plans (id, project, connection_id, expires_at, doc, request)
                 VALUES ($1, $2, $3, $4, $5, $6)",
                args![
                    id.uuid(),
                    project.as_str(),
                    connection_id.uuid(),
                    plan.expires_at,
                    to_doc("plan", &plan)?,
                    to_doc("plan request", &request)?
                ],
            )
            .await?;
        write.commit().await
    }

    pub(super) async fn list_plans(
        &self,
        project: &ProjectId,
        connection: Option<ConnectionId>,
        page: Page,
    ) -> Result<Vec<Plan>, StoreError> {
        let mut tx = self.look().await?;
        // After every UUID comes this text.
        let before = page.after.map_or_else(|| "~".to_owned(), |id| id.to_string());
        let rows = match connection {
            None => {
                let sql = "SELECT doc FROM plans WHERE project = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
                tx.rows(sql, args![project.as_str(), before, page.limit]).await?
            }
            Some(connection) => {
                let sql = "SELECT doc FROM plans WHERE project = $1 AND id < $2 AND connection_id = $4
                           ORDER BY id DESC LIMIT $3";
                tx.rows(sql, args![project.as_str(), before, page.limit, connection.uuid()]).await?
            }
        };
        tx.done().await?;
        rows.into_iter().map(|mut row| row.doc("plan")).collect()
    }

    pub(super) async fn find_plan(
        &self,
        project: &ProjectId,
        id: PlanId,
    ) -> Result<(Plan, serde_json::Value), StoreError> {
        let mut tx = self.look().await?;
        let row = tx
            .row("SELECT doc, request FROM plans WHERE id = $1 AND project = $2", args![id.uuid(), project.as_str()])
            .await?;
        tx.done().await?;
        let mut row = row.ok_or(StoreError::NotFound)?;
        Ok((row.doc("plan")?, row.doc("plan request")?))
    }
}
