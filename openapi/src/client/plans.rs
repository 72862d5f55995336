//! Plans: saved, listed, applied.

use reqwest::Method;
use serde_json::Value;

use super::{
    Changed, Client, ClientError, PageQuery, Write,
    connections::{Mutation, encode},
};
use crate::{
    ids::{ConnectionId, PlanId},
    v1::{Plan, PlanList, PlanRequest},
};

const PLANS: &str = "/v1/plans";

fn creation(body: &Value, dry_run: bool) -> Mutation<'_> {
    let body = Some(("application/json", body));
    Mutation { method: Method::POST, path: PLANS.to_owned(), generation: None, body, dry_run }
}

fn application(id: PlanId, dry_run: bool) -> Mutation<'static> {
    let path = format!("{PLANS}/{id}:apply");
    Mutation { method: Method::POST, path, generation: None, body: None, dry_run }
}

impl Client {
    /// Saves a plan. A key of [`Write`] makes it one plan however often it is sent; there is nothing to wait for.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_plan(&self, request: &PlanRequest, write: &Write) -> Result<Plan, ClientError> {
        let write = Write { idempotency_key: write.idempotency_key.clone(), wait: None };
        self.mutate(creation(&encode(PLANS, request)?, false), &write).await?.json()
    }

    /// Computes a plan without saving it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn dry_plan(&self, request: &PlanRequest) -> Result<Plan, ClientError> {
        self.mutate(creation(&encode(PLANS, request)?, true), &Write::default()).await?.json()
    }

    /// A page of saved plans, newest first, of one connection where given.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn plans(&self, connection: Option<ConnectionId>, page: &PageQuery) -> Result<PlanList, ClientError> {
        let mut query = page.pairs();
        query.extend(connection.map(|id| ("connectionId", id.to_string())));
        self.get(PLANS, &query).await
    }

    /// A saved plan.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn plan(&self, id: PlanId) -> Result<Plan, ClientError> {
        self.get(&format!("{PLANS}/{id}"), &[]).await
    }

    /// Applies exactly a saved plan.
    ///
    /// # Errors
    /// [`ClientError`]; `precondition-failed` with what has moved since.
    pub async fn apply_plan(&self, id: PlanId, write: &Write) -> Result<Changed, ClientError> {
        self.change(application(id, false), write).await
    }

    /// Whether a saved plan could be applied now: the plan, or the error that applying it would give.
    ///
    /// # Errors
    /// [`ClientError`]; `precondition-failed` with what has moved since.
    pub async fn dry_apply_plan(&self, id: PlanId) -> Result<Plan, ClientError> {
        self.mutate(application(id, true), &Write::default()).await?.json()
    }
}
