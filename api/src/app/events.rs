//! Events and issues.

use serde_json::json;
use tieline_openapi::{
    ids::{AccountId, IssueId, ProjectId},
    v1::{Event, Issue, IssueState},
};

use super::{App, AppError, Caller, Paged, one_more};
use crate::{
    plan::step::TroubleCode,
    store::{Acceptance, NewEvent, StoreError},
};

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

    /// A person has looked, and what an account lacks is meant to be gone: creates in it go on, and what is still wanted is
    /// made anew. Other issues end by themselves.
    ///
    /// # Errors
    /// [`AppError::NotFound`], [`AppError::NothingToAcknowledge`], or the store's.
    pub async fn acknowledge(&self, caller: &Caller, id: IssueId) -> Result<Issue, AppError> {
        let issue = self.store.issue(&caller.project, id).await?;
        let subject = issue.about.first().cloned().unwrap_or_default();
        let account = subject.strip_prefix("/v1/accounts/").and_then(|id| id.parse::<AccountId>().ok());
        let account_id = account
            .filter(|_| issue.state == IssueState::Open && issue.code == TroubleCode::CreatesHeld.as_str())
            .ok_or(AppError::NothingToAcknowledge)?;
        let now = self.now();
        let event = NewEvent {
            project: caller.project.clone(),
            time: now,
            kind: "account.absenceAccepted".to_owned(),
            subject: subject.clone(),
            generation: None,
            cause: caller.principal.clone(),
            data: json!({ "issue": id }),
        };
        let audit = caller.audit(format!("/v1/issues/{id}"), now);
        let acceptance = Acceptance { account_id, code: issue.code, subject, event, audit, at: now };
        match self.store.accept_absence(acceptance).await {
            Err(StoreError::NotFound) => Err(AppError::NothingToAcknowledge),
            other => {
                other?;
                Ok(self.store.issue(&caller.project, id).await?)
            }
        }
    }
}
