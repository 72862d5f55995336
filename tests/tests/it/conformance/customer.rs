//! North's customer side.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures::future::BoxFuture;
use serde_json::{Value, json};
use tieline_conformance::{Customer, KeyError, KeySource, Wanted, Wish, WishError, WorkPlace};
use tieline_openapi::coordinator::Sensitive;
use uuid::Uuid;

use super::{
    North,
    north::{chance, in_an_hour},
};

/// A customer with a token of north's.
#[derive(Clone)]
pub(crate) struct Customers {
    http: reqwest::Client,
    url: String,
    token: String,
    /// Where north shows what was brought, by the UUID that both providers know it by.
    brought: Arc<Mutex<BTreeMap<Uuid, String>>>,
    /// And what work is under way.
    works: Arc<Mutex<BTreeMap<WorkPlace, String>>>,
}

impl Customers {
    pub(crate) fn of(north: &North) -> Self {
        Self {
            http: north.http.clone(),
            url: north.url.clone(),
            token: north.token.clone(),
            brought: Arc::default(),
            works: Arc::default(),
        }
    }

    /// The answer, and where what it is about is.
    async fn told(&self, request: reqwest::RequestBuilder) -> Result<(Value, String), WishError> {
        let failed = |error: reqwest::Error| WishError::Refused(error.to_string());
        let response = request.bearer_auth(&self.token).send().await.map_err(failed)?;
        let good = response.status().is_success();
        let location =
            response.headers().get("location").and_then(|at| at.to_str().ok()).unwrap_or_default().to_owned();
        let text = response.text().await.map_err(failed)?;
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        if good { Ok((answer, location)) } else { Err(WishError::Refused(text)) }
    }

    /// Where a connection is that was brought.
    fn at(&self, connection: Uuid) -> Result<String, WishError> {
        let brought = self.brought.lock().unwrap_or_else(PoisonError::into_inner);
        let at = brought.get(&connection).map(|at| format!("{}{at}", self.url));
        at.ok_or_else(|| WishError::Refused("it was never brought".to_owned()))
    }
}

impl KeySource for Customers {
    fn issue(&self, wanted: Wanted) -> BoxFuture<'_, Result<Sensitive, KeyError>> {
        Box::pin(async move {
            let environment = wanted.environment.rsplit('/').next().unwrap_or_default();
            let order = json!({
                "name": format!("order-{}", (chance().uuid)()), "environmentId": format!("south.{environment}"),
                "bandwidthMbps": wanted.bandwidth_mbps, "a": {}, "b": { "remoteAccountId": "customer-1" },
            });
            let request = self.http.post(format!("{}/v1/connections", self.url)).json(&order);
            let (answer, _) = self.told(request).await.map_err(|error| KeyError(error.to_string()))?;
            let key = answer["activationKey"].as_str().ok_or_else(|| KeyError(answer.to_string()))?;
            Ok(Sensitive::new(key))
        })
    }
}

impl Customer for Customers {
    fn wish(&self, wish: Wish) -> BoxFuture<'_, Result<(), WishError>> {
        Box::pin(async move {
            let any = |request: reqwest::RequestBuilder| request.header("if-match", "*");
            let request = match wish {
                Wish::Bring(brought) => {
                    let name = format!("brought-{}", (chance().uuid)());
                    let body = json!({ "activationKey": brought.key.expose(), "name": name });
                    let request = self.http.post(format!("{}/v1/activationKeys:accept", self.url)).json(&body);
                    let (_, at) = self.told(request).await?;
                    self.brought.lock().unwrap_or_else(PoisonError::into_inner).insert(brought.connection, at);
                    return Ok(());
                }
                Wish::Delete { connection } => any(self.http.delete(self.at(connection)?)),
                Wish::Update { connection, bandwidth_mbps } => {
                    any(self.http.patch(self.at(connection)?)).json(&json!({ "bandwidthMbps": bandwidth_mbps }))
                }
                Wish::Maintain { at, emergency } => {
                    let body = json!({
                        "provider": "south", "environmentId": at.environment, "interconnectId": at.interconnect,
                        "channelId": at.channel, "endTime": in_an_hour().to_string(), "emergency": emergency,
                    });
                    let (_, work) =
                        self.told(self.http.post(format!("{}/v1/maintenanceEvents", self.url)).json(&body)).await?;
                    self.works.lock().unwrap_or_else(PoisonError::into_inner).insert(at, work);
                    return Ok(());
                }
                Wish::Restore { at } => {
                    let work = self.works.lock().unwrap_or_else(PoisonError::into_inner).remove(&at);
                    let work = work.ok_or_else(|| WishError::Refused("there is no work".to_owned()))?;
                    self.http.delete(format!("{}{work}", self.url))
                }
                Wish::Migrate { connection } => any(self.http.post(format!("{}:migrate", self.at(connection)?))),
            };
            self.told(request).await.map(drop)
        })
    }
}
