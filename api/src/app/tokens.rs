//! API tokens and join tokens: issued once, kept as hashes.

use std::time::Duration;

use secrecy::ExposeSecret;
use tieline_openapi::{
    ids::{GatewayGroupId, JoinTokenId, ProjectId, TokenId},
    v1::{IssuedJoinToken, IssuedToken, JoinToken, JoinTokenRequest, Timestamp, Token, TokenRequest},
};

use super::{App, AppError, Caller, Paged, error::field, one_more};
use crate::{
    secrets,
    store::{NewJoinToken, NewToken, StoreError},
};

/// The longest life of a token that has an end: ten years.
const LONGEST_SECONDS: u64 = 10 * 365 * 24 * 3600;
/// The life of a join token that says none, and the longest.
const JOIN_SECONDS: (u64, u64) = (3600, 24 * 3600);
/// The shortest life of any token.
const SHORTEST_SECONDS: u64 = 60;

fn ends_at(now: Timestamp, seconds: u64) -> Result<Timestamp, AppError> {
    now.checked_add(Duration::from_secs(seconds))
        .map_err(|error| AppError::Invalid(vec![field("/expiresInSeconds", error.to_string())]))
}

impl App {
    /// Issues an API token.
    ///
    /// # Errors
    /// [`AppError::Invalid`], [`AppError::NameTaken`], or the store's.
    pub async fn issue_token(&self, caller: &Caller, request: &TokenRequest) -> Result<IssuedToken, AppError> {
        let mut errors = Vec::new();
        let length = request.name.chars().count();
        if !(1..=63).contains(&length) || request.name.chars().any(char::is_control) {
            errors.push(field("/name", "a token's name has 1 to 63 printable characters"));
        }
        if let Some(seconds) = request.expires_in_seconds
            && !(SHORTEST_SECONDS..=LONGEST_SECONDS).contains(&seconds)
        {
            let message =
                format!("from {SHORTEST_SECONDS} to {LONGEST_SECONDS} seconds, or null for a token without end");
            errors.push(field("/expiresInSeconds", message));
        }
        if caller.scope.is_none_or(|own| request.scope > own) {
            errors.push(field("/scope", "a token cannot issue one that may do more than itself"));
        }
        if !errors.is_empty() {
            return Err(AppError::Invalid(errors));
        }
        let now = self.now();
        let secret = secrets::token_secret(&*self.random).expose_secret().to_owned();
        let hash = secrets::token_hash(&secret);
        let token = Token {
            id: TokenId(self.random.uuid_v7(now)),
            name: request.name.clone(),
            project: caller.project.clone(),
            scope: request.scope,
            expires_at: request.expires_in_seconds.map(|seconds| ends_at(now, seconds)).transpose()?,
            last_used_at: None,
            created_at: now,
        };
        let audit = Some(caller.audit(format!("/v1/tokens/{}", token.id), now));
        match self.store.insert_token(NewToken { token: token.clone(), hash, audit }).await {
            Err(StoreError::AllocationTaken { .. }) => Err(AppError::NameTaken { holder: None }),
            other => {
                other?;
                Ok(IssuedToken { token, secret })
            }
        }
    }

    /// A page of tokens, by id.
    ///
    /// # Errors
    /// The store's.
    pub async fn tokens(
        &self,
        project: &ProjectId,
        size: u32,
        after: Option<uuid::Uuid>,
    ) -> Result<Paged<Token>, AppError> {
        let rows = self.store.list_tokens(project, one_more(size, after)).await?;
        Ok(Paged::of(rows, size, |token| token.id.to_string()))
    }

    /// Ends a token.
    ///
    /// # Errors
    /// [`AppError::NotFound`], or the store's.
    pub async fn end_token(&self, caller: &Caller, id: TokenId) -> Result<(), AppError> {
        let audit = caller.audit(format!("/v1/tokens/{id}"), self.now());
        Ok(self.store.delete_token(&caller.project, id, audit).await?)
    }

    /// Issues a join token for a group of gateways.
    ///
    /// # Errors
    /// [`AppError::Invalid`], [`AppError::GroupElsewhere`], or the store's.
    pub async fn issue_join_token(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        request: &JoinTokenRequest,
    ) -> Result<IssuedJoinToken, AppError> {
        let mut errors = Vec::new();
        if !self.topology.attach_points.contains_key(&request.attach_point_id) {
            errors.push(field("/attachPointId", "there is no such attach point; GET /v1/attachPoints lists them"));
        }
        let seconds = request.expires_in_seconds.unwrap_or(JOIN_SECONDS.0);
        if !(SHORTEST_SECONDS..=JOIN_SECONDS.1).contains(&seconds) {
            let message = format!("from {SHORTEST_SECONDS} to {} seconds", JOIN_SECONDS.1);
            errors.push(field("/expiresInSeconds", message));
        }
        if !errors.is_empty() {
            return Err(AppError::Invalid(errors));
        }
        let others = self.store.gateways(&caller.project, one_more(999, None)).await?;
        if let Some(other) =
            others.iter().find(|other| other.group == *group && other.attach_point_id != request.attach_point_id)
        {
            return Err(AppError::GroupElsewhere { attach_point: other.attach_point_id.to_string() });
        }
        let now = self.now();
        let secret = secrets::token_secret(&*self.random).expose_secret().to_owned();
        let hash = secrets::token_hash(&secret);
        let join_token = JoinToken {
            id: JoinTokenId(self.random.uuid_v7(now)),
            group: group.clone(),
            attach_point_id: request.attach_point_id.clone(),
            expires_at: ends_at(now, seconds)?,
            used_at: None,
        };
        let new = NewJoinToken {
            id: join_token.id,
            group: group.clone(),
            attach_point_id: join_token.attach_point_id.clone(),
            expires_at: join_token.expires_at,
            hash,
            audit: caller.audit(format!("/v1/gatewayGroups/{group}"), now),
        };
        self.store.insert_join_token(&caller.project, new).await?;
        Ok(IssuedJoinToken { join_token, secret })
    }
}
