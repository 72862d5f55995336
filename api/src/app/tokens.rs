//! API tokens and join tokens: issued once, kept as hashes.

use std::{collections::BTreeMap, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, de::DeserializeOwned};
use tieline_openapi::{
    ids::{GatewayGroupId, JoinTokenId, ProjectId, TokenId},
    problem::FieldError,
    v1::{IssuedJoinToken, IssuedToken, JoinToken, JoinTokenRequest, Timestamp, Token, TokenRequest},
};

use super::{App, AppError, Caller, Paged, error::field, one_more};
use crate::{
    secrets,
    store::{IdempotencyKey, NewJoinToken, NewToken, SavedAnswer, StoreError},
};

/// The longest life of a token that has an end: ten years.
const LONGEST_SECONDS: u64 = 10 * 365 * 24 * 3600;
/// The life of a join token that says none, and the longest.
const JOIN_SECONDS: (u64, u64) = (3600, 24 * 3600);
/// The shortest life of any token.
const SHORTEST_SECONDS: u64 = 60;
/// The status of an issued token, also where it is given again.
const CREATED: u16 = 201;

/// Something with a once-only secret that was issued, now or under the same key before. What was issued before comes without
/// its secret, which nobody has kept.
#[derive(Clone)]
pub struct Issued<T> {
    /// What is answered.
    pub answer: T,
    /// Whether it was answered before.
    pub replayed: bool,
}

impl<T: Serialize + DeserializeOwned> Issued<T> {
    /// What is saved under the key: `answer` must be without its secret.
    fn saved(key: Option<IdempotencyKey>, answer: &T) -> Result<Option<(IdempotencyKey, SavedAnswer)>, AppError> {
        let Some(key) = key else { return Ok(None) };
        let body = serde_json::to_value(answer)?;
        let saved = SavedAnswer { digest: key.digest, status: CREATED, headers: BTreeMap::new(), body };
        Ok(Some((key, saved)))
    }

    fn again(saved: SavedAnswer) -> Result<Self, AppError> {
        Ok(Self { answer: serde_json::from_value(saved.body)?, replayed: true })
    }
}

fn ends_at(now: Timestamp, seconds: u64) -> Result<Timestamp, AppError> {
    now.checked_add(Duration::from_secs(seconds))
        .map_err(|error| AppError::Invalid(vec![field("/expiresInSeconds", error.to_string())]))
}

fn check(caller: &Caller, request: &TokenRequest) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let length = request.name.chars().count();
    if !(1..=63).contains(&length) || request.name.chars().any(char::is_control) {
        errors.push(field("/name", "a token's name has 1 to 63 printable characters"));
    }
    if let Some(seconds) = request.expires_in_seconds
        && !(SHORTEST_SECONDS..=LONGEST_SECONDS).contains(&seconds)
    {
        let message = format!("from {SHORTEST_SECONDS} to {LONGEST_SECONDS} seconds, or null for a token without end");
        errors.push(field("/expiresInSeconds", message));
    }
    if caller.scope.is_none_or(|own| request.scope > own) {
        errors.push(field("/scope", "a token cannot issue one that may do more than itself"));
    }
    errors
}

impl App {
    /// What was issued under a key before, if anything.
    async fn issued_before<T: Serialize + DeserializeOwned>(
        &self,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<Issued<T>>, AppError> {
        self.answered(key).await?.map(Issued::again).transpose()
    }

    /// Issues an API token.
    ///
    /// # Errors
    /// [`AppError::Invalid`], [`AppError::NameTaken`], [`AppError::KeyReused`], or the store's.
    pub async fn issue_token(
        &self,
        caller: &Caller,
        request: &TokenRequest,
        key: Option<IdempotencyKey>,
    ) -> Result<Issued<IssuedToken>, AppError> {
        if let Some(done) = self.issued_before(key.as_ref()).await? {
            return Ok(done);
        }
        let errors = check(caller, request);
        if !errors.is_empty() {
            return Err(AppError::Invalid(errors));
        }
        let now = self.now();
        let secret = secrets::token_secret(&*self.random);
        let token = Token {
            id: TokenId(self.random.uuid_v7(now)),
            name: request.name.clone(),
            project: caller.project.clone(),
            scope: request.scope,
            expires_at: request.expires_in_seconds.map(|seconds| ends_at(now, seconds)).transpose()?,
            last_used_at: None,
            created_at: now,
        };
        let new = NewToken {
            hash: secrets::token_hash(secret.expose_secret()),
            audit: caller.audit(format!("/v1/tokens/{}", token.id), now),
            idempotency: Issued::saved(key, &IssuedToken { token: token.clone(), secret: None })?,
            token: token.clone(),
        };
        match self.store.insert_token(new).await {
            Err(StoreError::AllocationTaken { .. }) => Err(AppError::NameTaken { holder: None }),
            Err(StoreError::IdempotencyReplay(saved)) => Issued::again(*saved),
            other => {
                other?;
                Ok(Issued { answer: IssuedToken { token, secret: shown(&secret) }, replayed: false })
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
    /// [`AppError::Invalid`], [`AppError::GroupElsewhere`], [`AppError::KeyReused`], or the store's.
    pub async fn issue_join_token(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        request: &JoinTokenRequest,
        key: Option<IdempotencyKey>,
    ) -> Result<Issued<IssuedJoinToken>, AppError> {
        if let Some(done) = self.issued_before(key.as_ref()).await? {
            return Ok(done);
        }
        let seconds = self.join_seconds(request)?;
        self.group_stands_there(caller, group, request).await?;
        let now = self.now();
        let secret = secrets::token_secret(&*self.random);
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
            hash: secrets::token_hash(secret.expose_secret()),
            audit: caller.audit(format!("/v1/gatewayGroups/{group}/joinTokens/{}", join_token.id), now),
            idempotency: Issued::saved(key, &IssuedJoinToken { join_token: join_token.clone(), secret: None })?,
        };
        match self.store.insert_join_token(&caller.project, new).await {
            Err(StoreError::IdempotencyReplay(saved)) => Issued::again(*saved),
            other => {
                other?;
                Ok(Issued { answer: IssuedJoinToken { join_token, secret: shown(&secret) }, replayed: false })
            }
        }
    }

    /// How long a join token lives.
    fn join_seconds(&self, request: &JoinTokenRequest) -> Result<u64, AppError> {
        let mut errors = Vec::new();
        if !self.topology.attach_points.contains_key(&request.attach_point_id) {
            errors.push(field("/attachPointId", "there is no such attach point; GET /v1/attachPoints lists them"));
        }
        let seconds = request.expires_in_seconds.unwrap_or(JOIN_SECONDS.0);
        if !(SHORTEST_SECONDS..=JOIN_SECONDS.1).contains(&seconds) {
            let message = format!("from {SHORTEST_SECONDS} to {} seconds", JOIN_SECONDS.1);
            errors.push(field("/expiresInSeconds", message));
        }
        if errors.is_empty() { Ok(seconds) } else { Err(AppError::Invalid(errors)) }
    }

    /// A group's gateways all stand at one attach point.
    async fn group_stands_there(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        request: &JoinTokenRequest,
    ) -> Result<(), AppError> {
        let others = self.store.gateways(&caller.project, one_more(999, None)).await?;
        let elsewhere =
            others.iter().find(|other| other.group == *group && other.attach_point_id != request.attach_point_id);
        elsewhere
            .map_or(Ok(()), |other| Err(AppError::GroupElsewhere { attach_point: other.attach_point_id.to_string() }))
    }
}

/// The one time that a secret leaves.
fn shown(secret: &SecretString) -> Option<String> {
    Some(secret.expose_secret().to_owned())
}
