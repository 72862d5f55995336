//! The client of the Connection Coordinator API: how Tieline speaks to a peer.
//!
//! One call is one request on the wire: nothing is ever tried again here, not even a read, since the protocol counts its
//! attempts and keeps a ledger of what it sent. Who the caller is, is not known here either: a bearer token, a SigV4
//! signature, a proof of the customer's account are headers that an [`Authorize`] adds; mutual TLS is part of the
//! [`reqwest::ClientBuilder`] that the caller hands in.

mod error;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use reqwest::{
    Url,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
};
use serde::de::DeserializeOwned;

use super::is_loopback;
use crate::coordinator::{
    Channel, Comment, Connection, Environment, Feature, Interconnect, Issue, ListChannels, ListChannelsResponse,
    ListComments, ListCommentsResponse, ListConnections, ListConnectionsResponse, ListEnvironments,
    ListEnvironmentsResponse, ListFeatures, ListFeaturesResponse, ListInterconnects, ListInterconnectsResponse,
    ListIssues, ListIssuesResponse, MAX_PAGE_SIZE, Method, Operation, OperationId, Page, RequestPage,
};

pub use error::{AuthorizeError, CallVerdict, CoordinatorError, Refusal};

/// The largest answer that is read: a page of a thousand features is well below.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A request as it is about to be sent, for those who sign it.
#[derive(Debug)]
pub struct Outgoing<'r> {
    /// Which operation: some need a proof beside the caller's identity.
    pub operation: OperationId,
    /// The method.
    pub method: &'static str,
    /// The address, with its query.
    pub url: &'r Url,
    /// The headers so far.
    pub headers: &'r HeaderMap,
    /// The body; empty if there is none.
    pub body: &'r [u8],
}

/// Says who calls: adds headers to a request, `Authorization` for one. A value that is a secret is marked sensitive.
pub trait Authorize: Send + Sync {
    /// The headers to add.
    fn authorize<'a>(&'a self, request: &'a Outgoing<'a>) -> BoxFuture<'a, Result<HeaderMap, AuthorizeError>>;
}

/// Adds nothing: the connection itself says who calls (mutual TLS).
#[derive(Debug, Clone, Copy)]
pub struct ByConnection;

impl Authorize for ByConnection {
    fn authorize<'a>(&'a self, _: &'a Outgoing<'a>) -> BoxFuture<'a, Result<HeaderMap, AuthorizeError>> {
        Box::pin(async { Ok(HeaderMap::new()) })
    }
}

/// Where a peer's API is.
#[derive(Debug, Clone)]
pub struct PeerAddress {
    /// Everything before `/providers`.
    pub base_url: String,
    /// Whether `http` is taken to another machine. The specification wants TLS 1.3: only for a lab.
    pub cleartext: bool,
    /// How long one call may take.
    pub timeout: Duration,
}

/// A client of one peer. Cheap to clone.
#[derive(Clone)]
pub struct Coordinator {
    http: reqwest::Client,
    base: Url,
    timeout: Duration,
    authorize: Arc<dyn Authorize>,
    more: HeaderMap,
}

impl fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinator").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl Coordinator {
    /// A client of a peer. Client certificate and trust anchors come with `builder`; the rest of it is set here: TLS 1.3
    /// at least (the specification's security policy), no redirects, no retries.
    ///
    /// # Errors
    /// [`CoordinatorError::Url`] and [`CoordinatorError::Setup`].
    pub fn new(
        peer: &PeerAddress,
        builder: reqwest::ClientBuilder,
        authorize: Arc<dyn Authorize>,
    ) -> Result<Self, CoordinatorError> {
        let refused = |reason: &str| CoordinatorError::Url { url: peer.base_url.clone(), reason: reason.to_owned() };
        let base = Url::parse(peer.base_url.trim_end_matches('/')).map_err(|error| refused(&error.to_string()))?;
        match base.scheme() {
            "https" => {}
            "http" if peer.cleartext || is_loopback(&base) => {}
            "http" => return Err(refused("providers speak TLS 1.3: begin it with https://")),
            _ => return Err(refused("it does not begin with https://")),
        }
        if base.query().is_some() || base.fragment().is_some() || !base.username().is_empty() {
            return Err(refused("it may hold only a host, a port and a path"));
        }
        let mut builder = builder
            .connect_timeout(CONNECT_TIMEOUT)
            .tls_version_min(reqwest::tls::Version::TLS_1_3)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .user_agent(concat!("tieline/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(CoordinatorError::Setup)?;
        Ok(Self { http, base, timeout: peer.timeout, authorize, more: HeaderMap::new() })
    }

    /// The same client, whose requests have more headers: a proof of the customer's account for one. They are there before a
    /// request is signed.
    #[must_use]
    pub fn with_headers(&self, more: HeaderMap) -> Self {
        Self { more, ..self.clone() }
    }

    /// Where the peer is.
    #[must_use]
    pub fn url(&self) -> &str {
        self.base.as_str()
    }

    /// One call, sent once.
    ///
    /// # Errors
    /// [`CoordinatorError`]; see [`CoordinatorError::verdict`] for what it says of a change.
    pub async fn call<O: Operation>(
        &self,
        path: &O::Path,
        query: &O::Query,
        body: &O::Body,
    ) -> Result<O::Answer, CoordinatorError> {
        let request = self.request::<O>(path, query, body)?;
        let (method, url, mut headers, body) = request;
        let outgoing =
            Outgoing { operation: O::ID, method: O::ID.method().as_str(), url: &url, headers: &headers, body: &body };
        let added = self.authorize.authorize(&outgoing).await;
        headers.extend(added.map_err(|source| CoordinatorError::Authorize { operation: O::ID, source })?);
        let mut request = self.http.request(method, url).headers(headers).timeout(self.timeout);
        if !body.is_empty() {
            request = request.body(body);
        }
        self.send::<O::Answer>(O::ID, request).await
    }

    fn request<O: Operation>(
        &self,
        path: &O::Path,
        query: &O::Query,
        body: &O::Body,
    ) -> Result<(reqwest::Method, Url, HeaderMap, Vec<u8>), CoordinatorError> {
        let encode = |source| CoordinatorError::Encode { operation: O::ID, source };
        let mut url = self.base.clone();
        url.set_path(&format!("{}{}", self.base.path().trim_end_matches('/'), O::ID.path(path)));
        let pairs = pairs(&serde_json::to_value(query).map_err(encode)?);
        if !pairs.is_empty() {
            url.query_pairs_mut().extend_pairs(pairs);
            // As RFC 3986 has it, and not as forms do: whoever signs and whoever verifies then read the same.
            let query = url.query().unwrap_or_default().replace('+', "%20").replace('*', "%2A").replace("%7E", "~");
            url.set_query(Some(&query));
        }
        let mut headers = self.more.clone();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, application/problem+json"));
        let method = match O::ID.method() {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Patch => reqwest::Method::PATCH,
            Method::Delete => reqwest::Method::DELETE,
        };
        let has_body = matches!(O::ID.method(), Method::Post | Method::Patch);
        let body = if has_body { serde_json::to_vec(body).map_err(encode)? } else { Vec::new() };
        if has_body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Ok((method, url, headers, body))
    }

    async fn send<T: DeserializeOwned>(
        &self,
        operation: OperationId,
        request: reqwest::RequestBuilder,
    ) -> Result<T, CoordinatorError> {
        // The address may hold what the query holds, and stands in no message.
        let broken = |source: reqwest::Error| CoordinatorError::Transport {
            operation,
            base: self.base.to_string(),
            source: source.without_url(),
        };
        let mut response = request.send().await.map_err(broken)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if answer.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(CoordinatorError::TooLarge { operation, limit: MAX_ANSWER_BYTES });
            }
            answer.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let refusal = Refusal::read(status.as_u16(), &answer, seconds.map(Duration::from_secs));
            return Err(CoordinatorError::Refused { operation, refusal });
        }
        // A peer may answer a delete with nothing at all.
        let answer = if answer.iter().all(u8::is_ascii_whitespace) { b"{}".to_vec() } else { answer };
        serde_json::from_slice(&answer).map_err(|source| CoordinatorError::Decode { operation, source })
    }

    /// Everything of a list, page by page.
    ///
    /// # Errors
    /// [`CoordinatorError`]; [`CoordinatorError::Endless`] if the peer's pages do not end within `limit` items, or come
    /// back to where they were.
    pub async fn all<O>(&self, path: &O::Path, limit: usize) -> Result<Vec<<O::Answer as List>::Item>, CoordinatorError>
    where
        O: Operation,
        O::Answer: List,
        O::Query: Paged,
        O::Body: Default,
    {
        let (mut all, mut token, mut seen) = (Vec::new(), None, BTreeSet::new());
        loop {
            let page = self.call::<O>(path, &O::Query::page(token.take()), &O::Body::default()).await?;
            let (items, next) = page.into_page();
            all.extend(items);
            // An empty token says the same as none.
            let Some(next) = next.filter(|next| !next.is_empty()) else { return Ok(all) };
            if all.len() > limit || !seen.insert(next.clone()) || seen.len() > limit {
                return Err(CoordinatorError::Endless { operation: O::ID, limit });
            }
            token = Some(next);
        }
    }
}

/// Name and value of each member of a query that is set.
fn pairs(query: &serde_json::Value) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    let members = query.as_object().into_iter().flatten();
    members.filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.clone(), text(value))).collect()
}

/// A query that asks for a page.
pub trait Paged {
    /// The page after a token, as large as the specification allows.
    fn page(token: Option<String>) -> Self;
}

const WHOLE_PAGE: Option<i32> = Some(MAX_PAGE_SIZE as i32);

impl Paged for Page {
    fn page(page_token: Option<String>) -> Self {
        Self { page_size: WHOLE_PAGE, page_token }
    }
}

impl Paged for RequestPage {
    fn page(page_token: Option<String>) -> Self {
        Self { request_id: None, page_size: WHOLE_PAGE, page_token }
    }
}

/// An answer that is a page of a list.
pub trait List {
    /// What is listed.
    type Item;
    /// The items, and where the next page begins.
    fn into_page(self) -> (Vec<Self::Item>, Option<String>);
}

macro_rules! lists {
    ($($Answer:ident, $of:ident, $field:ident: $Item:ident;)+) => {$(
        impl List for $Answer {
            type Item = $Item;
            fn into_page(self) -> (Vec<$Item>, Option<String>) { (self.$field, self.next_page_token) }
        }
        // The operation whose answer it is.
        const _: fn() = || {
            fn answers<O: Operation<Answer = $Answer>>() {}
            answers::<$of>();
        };
    )+};
}

lists! {
    ListEnvironmentsResponse, ListEnvironments, environments: Environment;
    ListInterconnectsResponse, ListInterconnects, interconnects: Interconnect;
    ListChannelsResponse, ListChannels, channels: Channel;
    ListConnectionsResponse, ListConnections, connections: Connection;
    ListFeaturesResponse, ListFeatures, features: Feature;
    ListIssuesResponse, ListIssues, issues: Issue;
    ListCommentsResponse, ListComments, comments: Comment;
}
