//! Events and issues.

use tieline_openapi::{
    ids::{IssueId, ProjectId},
    v1::{Event, Issue},
};

use super::{App, AppError, Paged, one_more};

impl App {
    /// Events after a cursor, oldest first.
    ///
    /// # Errors
    /// [`AppError::CursorTooOld`], or the store's.
    pub async fn events(&self, project: &ProjectId, since: u64, limit: u32) -> Result<Vec<Event>, AppError> {
        Ok(self.store.events(project, since, limit).await?)
    }

    /// The newest cursor.
    ///
    /// # Errors
    /// The store's.
    pub async fn last_cursor(&self) -> Result<u64, AppError> {
        Ok(self.store.last_cursor().await?)
    }

    /// A page of issues, newest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn issues(
        &self,
        project: &ProjectId,
        size: u32,
        after: Option<uuid::Uuid>,
    ) -> Result<Paged<Issue>, AppError> {
        let rows = self.store.issues(project, one_more(size, after)).await?;
        Ok(Paged::of(rows, size, |issue| issue.id.to_string()))
    }

    /// One issue.
    ///
    /// # Errors
    /// [`AppError::NotFound`], or the store's.
    pub async fn issue(&self, project: &ProjectId, id: IssueId) -> Result<Issue, AppError> {
        Ok(self.store.issue(project, id).await?)
    }
}
