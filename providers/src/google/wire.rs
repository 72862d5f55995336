//! Reading and patching a Cloud Router as plain JSON, with the SDK's credentials.
//!
//! Why not the SDK's own calls: see [`super::router`].

use google_cloud_auth::credentials::{CacheableResource, Credentials};
use reqwest::{
    Method, Url,
    header::{ACCEPT, CONTENT_TYPE},
    redirect::Policy,
};
use serde_json::Value;

use super::{PROVIDER, errors};
use crate::{
    call::{Verb, failed},
    error::{CallError, CallErrorKind},
};

/// One project's and region's Cloud Routers. Its `Debug` shows no credential: the SDK's own type hides it.
#[derive(Debug)]
pub(super) struct RouterWire {
    http: reqwest::Client,
    routers: Url,
    credentials: Credentials,
}

impl RouterWire {
    /// `endpoint` is the API's root; no redirect is followed, so that no credential goes to another host.
    pub(super) fn new(
        endpoint: &Url,
        project: &str,
        region: &str,
        credentials: Credentials,
    ) -> Result<Self, reqwest::Error> {
        let mut routers = endpoint.clone();
        if let Ok(mut path) = routers.path_segments_mut() {
            path.pop_if_empty();
            path.extend(["compute", "v1", "projects", project, "regions", region, "routers"]);
        }
        let mut builder = reqwest::Client::builder().redirect(Policy::none());
        if endpoint.scheme() == "http" {
            // A simulator: no certificate is looked at, so the machine need not have authorities.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build()?;
        Ok(Self { http, routers, credentials })
    }

    /// The router, with every field that the API gave.
    pub(super) async fn get(&self, router: &str) -> Result<Value, CallError> {
        self.send(Verb::Read, Method::GET, router, None).await
    }

    /// Sends one PATCH; the answer is an Operation.
    pub(super) async fn patch(&self, verb: Verb, router: &str, body: &Value) -> Result<Value, CallError> {
        self.send(verb, Method::PATCH, router, Some(body)).await
    }

    async fn send(&self, verb: Verb, method: Method, router: &str, body: Option<&Value>) -> Result<Value, CallError> {
        let mut url = self.routers.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(router);
        }
        url.set_query(Some("alt=json"));
        let mut request = self.http.request(method, url).header(ACCEPT, "application/json");
        match self.credentials.headers(http::Extensions::new()).await.map_err(errors::from_credential)? {
            CacheableResource::New { data, .. } => request = request.headers(data),
            // Only an answer to a question with an entity tag, which is not asked here.
            CacheableResource::NotModified => {}
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let response = request.send().await.map_err(errors::from_transport)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await.map_err(errors::from_transport)?;
        if !status.is_success() {
            return Err(errors::from_response(verb, status.as_u16(), &headers, &bytes));
        }
        serde_json::from_slice(&bytes).map_err(|source| CallError {
            source: Some(Box::new(source)),
            ..failed(PROVIDER, CallErrorKind::Malformed, "answer", "the answer could not be read".to_owned())
        })
    }
}
