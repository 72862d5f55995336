//! Operations: read, and waited for.

use std::time::Duration;

use tieline_openapi::{
    ids::{ConnectionId, OperationId, ProjectId},
    v1::Operation,
};

use super::{App, AppError, Paged, one_more};
use crate::events::Topic;

/// How often a waiting answer looks at the store without a hint.
const LOOK_EVERY: Duration = Duration::from_millis(250);

impl App {
    /// One operation.
    ///
    /// # Errors
    /// [`AppError::NotFound`], or the store's.
    pub async fn operation(&self, project: &ProjectId, id: OperationId) -> Result<Operation, AppError> {
        Ok(self.store.operation(project, id).await?)
    }

    /// A page of operations, newest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn operations(
        &self,
        project: &ProjectId,
        connection: Option<ConnectionId>,
        size: u32,
        after: Option<uuid::Uuid>,
    ) -> Result<Paged<Operation>, AppError> {
        let rows = self.store.operations(project, connection, one_more(size, after)).await?;
        Ok(Paged::of(rows, size, |operation| operation.id.to_string()))
    }

    /// Waits until an operation is final, at most for `longest`; gives its last known form.
    ///
    /// # Errors
    /// The store's.
    pub async fn wait_for(
        &self,
        project: &ProjectId,
        id: OperationId,
        longest: Duration,
    ) -> Result<Operation, AppError> {
        let until = self.clock.monotonic().saturating_add(longest);
        let mut news = self.hints.subscribe(Topic::Events);
        loop {
            let operation = self.store.operation(project, id).await?;
            let left = until.saturating_sub(self.clock.monotonic());
            if operation.state.is_final() || left.is_zero() {
                return Ok(operation);
            }
            news.wait_at_most(&*self.clock, left.min(LOOK_EVERY)).await;
        }
    }
}
