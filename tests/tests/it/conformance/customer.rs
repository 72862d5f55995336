//! North's customer side.

use futures::future::BoxFuture;
use serde_json::{Value, json};
use tieline_conformance::{Customer, KeyError, KeySource, Wanted, Wish, WishError};
use tieline_openapi::coordinator::Sensitive;

use super::North;

/// A customer with a token of north's.
#[derive(Clone)]
pub(crate) struct Customers {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Customers {
    pub(crate) fn of(north: &North) -> Self {
        Self { http: north.http.clone(), url: north.url.clone(), token: north.token.clone() }
    }

    async fn told(&self, request: reqwest::RequestBuilder) -> Result<Value, WishError> {
        let failed = |error: reqwest::Error| WishError::Refused(error.to_string());
        let response = request.bearer_auth(&self.token).send().await.map_err(failed)?;
        let good = response.status().is_success();
        let text = response.text().await.map_err(failed)?;
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        if good { Ok(answer) } else { Err(WishError::Refused(text)) }
    }
}

impl KeySource for Customers {
    fn issue(&self, wanted: Wanted) -> BoxFuture<'_, Result<Sensitive, KeyError>> {
        Box::pin(async move {
            let environment = wanted.environment.rsplit('/').next().unwrap_or_default();
            let order = json!({
                "provider": "south", "environmentId": environment, "bandwidthMbps": wanted.bandwidth_mbps,
                "remoteAccountId": "customer-1",
            });
            let request = self.http.post(format!("{}/v1/coordinatedConnections", self.url)).json(&order);
            let answer = self.told(request).await.map_err(|error| KeyError(error.to_string()))?;
            let key = answer["activationKey"].as_str().ok_or_else(|| KeyError(answer.to_string()))?;
            Ok(Sensitive::new(key))
        })
    }
}

impl Customer for Customers {
    fn wish(&self, wish: Wish) -> BoxFuture<'_, Result<(), WishError>> {
        Box::pin(async move {
            let at = |path: &str| format!("{}/v1/{path}", self.url);
            let request = match wish {
                Wish::Bring(brought) => {
                    let body = json!({ "activationKey": brought.key.expose() });
                    self.http.post(at("activationKeys:accept")).json(&body)
                }
                Wish::Delete { connection } => self.http.delete(at(&format!("coordinatedConnections/{connection}"))),
                Wish::Update { .. } | Wish::Migrate { .. } => {
                    return Err(WishError::Unsupported("no customer of Tieline's can wish this yet".to_owned()));
                }
            };
            self.told(request).await.map(drop)
        })
    }
}
