//! Events and issues.

use std::collections::BTreeMap;

use serde_json::json;
use tieline_openapi::{
    ids::{AccountId, IssueId, ProjectId},
    v1::{CreateOutcome, Event, Issue, IssueAnswer, IssueState},
};

use super::{App, AppError, Caller, Paged, error::field, one_more};
use crate::{
    plan::step::{CreateAnswer, TroubleCode},
    store::{Acceptance, IdempotencyKey, IssueAnswered, NewEvent, SavedAnswer, StoreError},
};

/// The longest cloud id and the longest path of a resource that are taken.
const LONGEST: usize = 400;

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

    /// Takes a person's answer to an issue about a create without answer. The engine goes on from there: it creates again, or
    /// takes what was named once a look shows that it fits. True with an answer that was given before.
    ///
    /// # Errors
    /// [`AppError::Invalid`], [`AppError::NotFound`], [`AppError::NotAsked`], [`AppError::KeyReused`], or the store's.
    pub async fn resolve_issue(
        &self,
        caller: &Caller,
        id: IssueId,
        answer: &IssueAnswer,
        key: Option<IdempotencyKey>,
    ) -> Result<(SavedAnswer, bool), AppError> {
        if let Some(key) = &key
            && let Some(saved) = self.store.saved_answer(key).await?
        {
            return if saved.digest == key.digest { Ok((saved, true)) } else { Err(AppError::KeyReused) };
        }
        let issue = self.store.issue(&caller.project, id).await?;
        let said = said(answer)?;
        if issue.code != TroubleCode::BlindCreate.as_str() {
            return Err(AppError::NotAsked);
        }
        let digest = key.as_ref().map_or([0; 32], |key| key.digest);
        let saved = SavedAnswer { digest, status: 202, headers: BTreeMap::new(), body: serde_json::to_value(&issue)? };
        let (now, path) = (self.now(), format!("/v1/issues/{id}"));
        let event = NewEvent {
            project: caller.project.clone(),
            time: now,
            kind: "issue.answered".to_owned(),
            subject: path.clone(),
            generation: None,
            cause: caller.principal.clone(),
            data: json!({ "resource": answer.resource, "outcome": answer.outcome, "cloudId": answer.cloud_id }),
        };
        let answered = IssueAnswered {
            issue: id,
            project: caller.project.clone(),
            resource: answer.resource.clone(),
            answer: said,
            event,
            audit: caller.audit(path, now),
            idempotency: key.map(|key| (key, saved.clone())),
        };
        match self.store.answer_issue(answered).await {
            Ok(()) => Ok((saved, false)),
            Err(StoreError::IdempotencyReplay(saved)) => Ok((*saved, true)),
            Err(StoreError::AllocationTaken { what }) => {
                Err(AppError::Invalid(vec![field("/cloudId", format!("{what} is recorded as another resource"))]))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What was said, if it is complete.
fn said(answer: &IssueAnswer) -> Result<CreateAnswer, AppError> {
    let bounded = |text: &str| !text.is_empty() && text.len() <= LONGEST && !text.contains('\0');
    let mut errors = Vec::new();
    if !bounded(&answer.resource) {
        errors.push(field("/resource", format!("1 to {LONGEST} characters: the second path in the issue's `about`")));
    }
    let said = match (answer.outcome, &answer.cloud_id) {
        (CreateOutcome::NotCreated, None) => Some(CreateAnswer::NotCreated),
        (CreateOutcome::NotCreated, Some(_)) => {
            errors.push(field("/cloudId", "what was not created has no id"));
            None
        }
        (CreateOutcome::Created, Some(cloud_id)) if bounded(cloud_id) => {
            Some(CreateAnswer::Created { cloud_id: cloud_id.clone() })
        }
        (CreateOutcome::Created, _) => {
            errors.push(field("/cloudId", format!("1 to {LONGEST} characters: the cloud's own id of what was found")));
            None
        }
    };
    said.filter(|_| errors.is_empty()).ok_or(AppError::Invalid(errors))
}
