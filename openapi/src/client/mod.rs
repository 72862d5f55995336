//! The typed HTTP client of `/v1`.
//!
//! One method an operation. Reads are tried again when the API is not there for a moment; writes never are, since only the
//! caller knows whether a second one is the same: give [`Write::idempotency_key`] and call again. Answers are bounded,
//! redirects are not followed (the token goes to no other host), and a proxy is never used for a loopback address.

mod activation_keys;
mod channels;
mod connections;
pub mod coordinator;
mod error;
mod gateways;
mod plans;
#[cfg(test)]
mod tests;
mod topology;
mod watch;

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use reqwest::{
    Method, RequestBuilder, Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, de::DeserializeOwned};

use crate::problem::Problem;

pub use connections::{Changed, ConnectionQuery, Write, etag};
pub use error::ClientError;
pub use watch::Watch;

/// Where the API listens if nothing else is said.
pub const DEFAULT_URL: &str = "http://127.0.0.1:7080";

/// The largest answer that is read: a page of a thousand connections is well below.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(30);
const READ_TRIES: usize = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Which part of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageQuery {
    /// Items at most; the API's own default if absent.
    pub size: Option<u32>,
    /// The `nextPageToken` of the page before.
    pub token: Option<String>,
}

impl PageQuery {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let size = self.size.map(|size| ("pageSize", size.to_string()));
        let token = self.token.clone().map(|token| ("pageToken", token));
        size.into_iter().chain(token).collect()
    }
}

/// A client of one API, with one token. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    authorization: Option<HeaderValue>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the API at `url`, such as `http://127.0.0.1:7080`.
    ///
    /// # Errors
    /// [`ClientError::Url`], [`ClientError::Token`] or [`ClientError::Setup`].
    pub fn new(url: &str, token: &SecretString) -> Result<Self, ClientError> {
        Self::anonymous(url)?.with_token(token)
    }

    /// A client without a token, for health and for joining.
    ///
    /// # Errors
    /// [`ClientError::Url`] or [`ClientError::Setup`].
    pub fn anonymous(url: &str) -> Result<Self, ClientError> {
        let refused = |reason: String| ClientError::Url { url: url.to_owned(), reason };
        let parsed = Url::parse(url).map_err(|error| refused(error.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(refused("it begins with neither http:// nor https://".to_owned()));
        }
        if parsed.query().is_some() || parsed.fragment().is_some() || !parsed.username().is_empty() {
            return Err(refused("it may hold only a host, a port and a path".to_owned()));
        }
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("tieline/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&parsed) {
            builder = builder.no_proxy();
        }
        if parsed.scheme() == "http" {
            // No certificate is looked at, so the machine need not have authorities.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build().map_err(ClientError::Setup)?;
        Ok(Self { http, base: parsed.as_str().trim_end_matches('/').to_owned(), authorization: None })
    }

    /// A client by `TIELINE_URL` (by default [`DEFAULT_URL`]) and `TIELINE_TOKEN`.
    ///
    /// # Errors
    /// [`ClientError::NoToken`], and those of [`Client::new`].
    pub fn from_env() -> Result<Self, ClientError> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let url = set("TIELINE_URL").unwrap_or_else(|| DEFAULT_URL.to_owned());
        let token = set("TIELINE_TOKEN").ok_or(ClientError::NoToken)?;
        Self::new(&url, &SecretString::from(token.trim()))
    }

    /// The same API with another token: a gateway joins with one and goes on with another.
    ///
    /// # Errors
    /// [`ClientError::Token`].
    pub fn with_token(mut self, token: &SecretString) -> Result<Self, ClientError> {
        let header = format!("Bearer {}", token.expose_secret());
        let mut header = HeaderValue::from_str(&header).map_err(|_| ClientError::Token)?;
        header.set_sensitive(true);
        self.authorization = Some(header);
        Ok(self)
    }

    /// The address of the API.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.base
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.authorization {
            Some(header) => request.header(AUTHORIZATION, header.clone()),
            None => request,
        }
    }

    async fn send(&self, method: &Method, path: &str, request: RequestBuilder) -> Result<Answer, ClientError> {
        let response = request.send().await.map_err(|source| self.transport(method, path, source))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.read(method, path, response).await?;
        let answer = Answer { path: path.to_owned(), headers, body };
        if status.is_success() { Ok(answer) } else { Err(self.refusal(method, status, &answer)) }
    }

    async fn read(&self, method: &Method, path: &str, mut response: Response) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|source| self.transport(method, path, source))? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(ClientError::TooLarge { path: path.to_owned(), limit: MAX_ANSWER_BYTES });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn transport(&self, method: &Method, path: &str, source: reqwest::Error) -> ClientError {
        ClientError::Transport {
            method: method.clone(),
            path: path.to_owned(),
            base: self.base.clone(),
            // The address stands in the message already, and a query may be long.
            source: source.without_url(),
        }
    }

    fn refusal(&self, method: &Method, status: StatusCode, answer: &Answer) -> ClientError {
        match serde_json::from_slice::<Problem>(&answer.body) {
            Ok(problem) => {
                let seconds = answer.headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
                ClientError::Problem { problem: Box::new(problem), retry_after: seconds.map(Duration::from_secs) }
            }
            Err(_) => ClientError::Status {
                method: method.clone(),
                path: answer.path.clone(),
                base: self.base.clone(),
                status: status.as_u16(),
            },
        }
    }

    /// A read, tried again while the API is not there.
    async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Result<T, ClientError> {
        self.get_answer(path, query).await?.json()
    }

    async fn get_answer(&self, path: &str, query: &[(&str, String)]) -> Result<Answer, ClientError> {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .with_max_times(READ_TRIES - 1)
            .with_jitter();
        let attempt = || async {
            let request = self.request(Method::GET, path).query(query).timeout(TIMEOUT);
            self.send(&Method::GET, path, request).await
        };
        attempt
            .retry(pauses)
            .when(ClientError::is_transient)
            // Who asks for a long wait is not pressed: the caller learns it at once.
            .adjust(|error, pause| match error.retry_after() {
                Some(wanted) if wanted > LONGEST_PAUSE => None,
                wanted => pause.map(|pause| wanted.map_or(pause, |wanted| wanted.max(pause))),
            })
            .await
    }

    /// A write, sent once.
    async fn write<B: Serialize + Sync + ?Sized>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Answer, ClientError> {
        let mut request = self.request(method.clone(), path).timeout(TIMEOUT);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.send(&method, path, request).await
    }

    /// Whether the API is up and its store answers (`GET /readyz`); asked once.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ready(&self) -> Result<(), ClientError> {
        let request = self.request(Method::GET, "/readyz").timeout(TIMEOUT);
        self.send(&Method::GET, "/readyz", request).await.map(drop)
    }

    /// Whether the API is up (`GET /healthz`); asked once.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn healthy(&self) -> Result<(), ClientError> {
        let request = self.request(Method::GET, "/healthz").timeout(TIMEOUT);
        self.send(&Method::GET, "/healthz", request).await.map(drop)
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        // An IPv6 host stands in brackets.
        Some(host) => host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback()),
        None => false,
    }
}

/// A successful answer, read whole.
struct Answer {
    path: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|source| ClientError::Decode { path: self.path.clone(), source })
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}
