//! Connections and operations.

use std::time::Duration;

use reqwest::{
    Method,
    header::{CONTENT_TYPE, IF_MATCH},
};
use serde::Serialize;
use serde_json::Value;

use super::{Answer, Client, ClientError, PageQuery, TIMEOUT};
use crate::{
    ids::{ConnectionId, EnvironmentId, OperationId},
    v1::{
        AddressFamily, Connection, ConnectionIntent, ConnectionList, ConnectionState, Migration, Operation,
        OperationList, OperationState, Plan,
    },
};

/// How often an operation is looked at while it is waited for.
const OPERATION_POLL: Duration = Duration::from_millis(250);

/// The ETag of a generation.
#[must_use]
pub fn etag(generation: u64) -> String {
    format!("\"g{generation}\"")
}

/// How a write is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Write {
    /// With the same key the same write may be sent again, for seven days, without a second effect.
    pub idempotency_key: Option<String>,
    /// Hold the answer until the operation ends, or this long.
    pub wait: Option<Duration>,
}

/// What a write made of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The connection, as of the answer.
    pub connection: Connection,
    /// The operation that carries the change out.
    pub operation: OperationId,
    /// Whether this answer was given before, under the same idempotency key.
    pub replayed: bool,
}

/// Which connections to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionQuery {
    /// Only the one with this name.
    pub name: Option<String>,
    /// Only those with this IP version.
    pub family: Option<AddressFamily>,
    /// Only those in one of these states.
    pub states: Vec<ConnectionState>,
    /// Only those over this environment.
    pub environment_id: Option<EnvironmentId>,
    /// Only those with all of these labels.
    pub labels: Vec<(String, String)>,
    /// Which part.
    pub page: PageQuery,
}

impl ConnectionQuery {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = self.page.pairs();
        pairs.extend(self.name.clone().map(|name| ("name", name)));
        pairs.extend(self.environment_id.as_ref().map(|id| ("environmentId", id.to_string())));
        pairs.extend(self.family.as_ref().map(|family| ("family", word(family))));
        pairs.extend(self.states.iter().map(|state| ("state", word(state))));
        pairs.extend(self.labels.iter().map(|(key, value)| ("label", format!("{key}={value}"))));
        pairs
    }
}

/// An enum as it stands in JSON.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

fn connection_path(id: ConnectionId) -> String {
    format!("/v1/connections/{id}")
}

/// A mutation on its way out.
pub(super) struct Mutation<'a> {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) generation: Option<u64>,
    pub(super) body: Option<(&'static str, &'a Value)>,
    pub(super) dry_run: bool,
}

impl Client {
    /// A page of connections, by id.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn connections(&self, query: &ConnectionQuery) -> Result<ConnectionList, ClientError> {
        self.get("/v1/connections", &query.pairs()).await
    }

    /// One connection.
    ///
    /// # Errors
    /// [`ClientError`]; `not-found` once it is gone.
    pub async fn connection(&self, id: ConnectionId) -> Result<Connection, ClientError> {
        self.get(&connection_path(id), &[]).await
    }

    /// Creates a connection.
    ///
    /// # Errors
    /// [`ClientError`]; `unsatisfiable` with the rules in conflict, `conflict` with the holder of the name.
    pub async fn create_connection(&self, intent: &ConnectionIntent, write: &Write) -> Result<Changed, ClientError> {
        self.change(self.creation(&encode("/v1/connections", intent)?, false), write).await
    }

    /// What creating would do; nothing is written.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn plan_create(&self, intent: &ConnectionIntent) -> Result<Plan, ClientError> {
        self.mutate(self.creation(&encode("/v1/connections", intent)?, true), &Write::default()).await?.json()
    }

    /// Changes a connection by an RFC 7396 merge patch of its intent. `generation` is the one that the patch was made for.
    ///
    /// # Errors
    /// [`ClientError`]; `precondition-failed` if it has moved on.
    pub async fn update_connection(
        &self,
        id: ConnectionId,
        generation: u64,
        patch: &Value,
        write: &Write,
    ) -> Result<Changed, ClientError> {
        self.change(self.patch(id, generation, patch, false), write).await
    }

    /// What a change would do; nothing is written.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn plan_update(&self, id: ConnectionId, generation: u64, patch: &Value) -> Result<Plan, ClientError> {
        self.mutate(self.patch(id, generation, patch, true), &Write::default()).await?.json()
    }

    /// Takes a connection down.
    ///
    /// # Errors
    /// [`ClientError`]; `precondition-failed` if it has moved on.
    pub async fn delete_connection(
        &self,
        id: ConnectionId,
        generation: u64,
        write: &Write,
    ) -> Result<Changed, ClientError> {
        self.change(Self::deletion(id, generation, false), write).await
    }

    /// What a deletion would do; nothing is written.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn plan_delete(&self, id: ConnectionId, generation: u64) -> Result<Plan, ClientError> {
        self.mutate(Self::deletion(id, generation, true), &Write::default()).await?.json()
    }

    /// Moves a coordinated connection to another interconnect of its environment, make before break.
    ///
    /// # Errors
    /// [`ClientError`]; `precondition-failed` if it has moved on, `conflict` while it changes or without room.
    pub async fn migrate_connection(
        &self,
        id: ConnectionId,
        generation: u64,
        to: &Migration,
        write: &Write,
    ) -> Result<Changed, ClientError> {
        let body = encode(&format!("{}:migrate", connection_path(id)), to)?;
        self.change(Self::migration(id, generation, &body, false), write).await
    }

    /// What a move would do; nothing is written.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn plan_migrate(&self, id: ConnectionId, generation: u64, to: &Migration) -> Result<Plan, ClientError> {
        let body = encode(&format!("{}:migrate", connection_path(id)), to)?;
        self.mutate(Self::migration(id, generation, &body, true), &Write::default()).await?.json()
    }

    fn migration(id: ConnectionId, generation: u64, body: &Value, dry_run: bool) -> Mutation<'_> {
        Mutation {
            method: Method::POST,
            path: format!("{}:migrate", connection_path(id)),
            generation: Some(generation),
            body: Some(("application/json", body)),
            dry_run,
        }
    }

    fn creation<'a>(&self, body: &'a Value, dry_run: bool) -> Mutation<'a> {
        let path = "/v1/connections".to_owned();
        Mutation { method: Method::POST, path, generation: None, body: Some(("application/json", body)), dry_run }
    }

    fn patch<'a>(&self, id: ConnectionId, generation: u64, patch: &'a Value, dry_run: bool) -> Mutation<'a> {
        Mutation {
            method: Method::PATCH,
            path: connection_path(id),
            generation: Some(generation),
            body: Some(("application/merge-patch+json", patch)),
            dry_run,
        }
    }

    fn deletion(id: ConnectionId, generation: u64, dry_run: bool) -> Mutation<'static> {
        let path = connection_path(id);
        Mutation { method: Method::DELETE, path, generation: Some(generation), body: None, dry_run }
    }

    pub(super) async fn mutate(&self, mutation: Mutation<'_>, write: &Write) -> Result<Answer, ClientError> {
        let Mutation { method, path, generation, body, dry_run } = mutation;
        let wait = write.wait.unwrap_or_default();
        let mut request = self.request(method.clone(), &path).timeout(TIMEOUT + wait);
        if dry_run {
            request = request.query(&[("dryRun", "true")]);
        }
        if write.wait.is_some() {
            request = request.query(&[("wait", format!("{}s", wait.as_secs()))]);
        }
        if let Some(generation) = generation {
            request = request.header(IF_MATCH, etag(generation));
        }
        if let Some(key) = &write.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        if let Some((kind, body)) = body {
            request = request.header(CONTENT_TYPE, kind).body(body.to_string());
        }
        self.send(&method, &path, request).await
    }

    pub(super) async fn change(&self, mutation: Mutation<'_>, write: &Write) -> Result<Changed, ClientError> {
        let answer = self.mutate(mutation, write).await?;
        changed(&answer)
    }

    /// A page of operations, newest first, of one connection where given.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn operations(
        &self,
        connection: Option<ConnectionId>,
        page: &PageQuery,
    ) -> Result<OperationList, ClientError> {
        let mut query = page.pairs();
        query.extend(connection.map(|id| ("connectionId", id.to_string())));
        self.get("/v1/operations", &query).await
    }

    /// One operation.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn operation(&self, id: OperationId) -> Result<Operation, ClientError> {
        self.get(&format!("/v1/operations/{id}"), &[]).await
    }

    /// Waits until an operation ends or waits for a person, at most this long.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] if it has not; it goes on all the same.
    pub async fn wait_operation(&self, id: OperationId, longest: Duration) -> Result<Operation, ClientError> {
        let watching = async {
            loop {
                let operation = self.operation(id).await?;
                if operation.state.is_final() || operation.state == OperationState::ActionRequired {
                    return Ok(operation);
                }
                tokio::time::sleep(OPERATION_POLL).await;
            }
        };
        match tokio::time::timeout(longest, watching).await {
            Ok(ended) => ended,
            Err(_) => Err(ClientError::Timeout { operation: id }),
        }
    }
}

pub(super) fn encode(path: &str, body: &impl Serialize) -> Result<Value, ClientError> {
    serde_json::to_value(body).map_err(|source| ClientError::Decode { path: path.to_owned(), source })
}

fn changed(answer: &Answer) -> Result<Changed, ClientError> {
    let named = answer.header("operation-location").and_then(|at| at.rsplit('/').next()?.parse().ok());
    let connection: Connection = answer.json()?;
    let operation = named.unwrap_or(connection.last_operation_id);
    let replayed = answer.header("idempotent-replayed") == Some("true");
    Ok(Changed { connection, operation, replayed })
}
