//! The IO half of an adapter.

use async_trait::async_trait;
use secrecy::SecretString;
use std::{collections::BTreeMap, time::Duration};

use crate::{
    error::CallError,
    resource::{Lookup, Observed, ResourceKind, ResourceSpec},
};

/// Secrets of one call, by the names in [`ResourceSpec::secrets`].
pub type Secrets = BTreeMap<String, SecretString>;

/// What a call is about.
#[derive(Debug, Clone)]
pub struct Target {
    /// What is wanted.
    pub spec: ResourceSpec,
    /// How to find it.
    pub lookup: Lookup,
    /// The idempotency token that goes with a create, where the cloud takes one: the same for every retry of one instance.
    pub token: String,
    /// The longest that the call may take. SDK retries are off; this ends before the engine's lease does.
    pub timeout: Duration,
}

/// What to list.
#[derive(Debug, Clone)]
pub struct ListScope {
    /// Which kind.
    pub kind: ResourceKind,
    /// In which object, for kinds that live in a parent (a Cloud Router).
    pub parent: Option<String>,
    /// The longest that the call may take.
    pub timeout: Duration,
}

/// One page of a list.
#[derive(Debug, Clone, Default)]
pub struct ListPage {
    /// The page: ours and others'.
    pub items: Vec<Observed>,
    /// More follows.
    pub next: Option<String>,
}

/// A mutating call that the cloud took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The cloud's id of the resource.
    pub cloud_id: String,
    /// The cloud's request id.
    pub request_id: Option<String>,
}

/// One account of one cloud. Each of `create`, `update` and `delete` sends exactly one mutating wire request (a read before
/// it is allowed where the cloud's own semantics need one); nothing here retries.
#[async_trait]
pub trait CloudApi: Send + Sync {
    /// Whose credential this is: the AWS account number, the Google project. Compared with the recorded one before a list is
    /// believed.
    async fn identity(&self, timeout: Duration) -> Result<String, CallError>;

    /// One page of everything of a kind in this account and region.
    async fn list(&self, scope: &ListScope, page: Option<&str>) -> Result<ListPage, CallError>;

    /// One resource, by its cloud id, else by its name, slot or tags. `None` only where the cloud said that it is not there.
    async fn read(&self, target: &Target) -> Result<Option<Observed>, CallError>;

    /// Makes it.
    async fn create(&self, target: &Target, secrets: &Secrets) -> Result<Accepted, CallError>;

    /// Brings its mutable fields to what is wanted.
    async fn update(&self, target: &Target, secrets: &Secrets) -> Result<Accepted, CallError>;

    /// Asks for its end. That it is gone is a matter of `read`.
    async fn delete(&self, target: &Target) -> Result<Accepted, CallError>;
}
