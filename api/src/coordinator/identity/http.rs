//! What keys, tokens and proofs are asked for with: one request, over TLS, bounded in time and size, without redirects.

use std::time::Duration;

use super::super::{CoordinationError, read};

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why an endpoint gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// It was not reached, or the connection broke.
    #[error("{host} does not answer")]
    Transport {
        /// Whom.
        host: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// It refused.
    #[error("{host} answered {status}")]
    Status {
        /// Who.
        host: String,
        /// The HTTP status.
        status: u16,
    },
    /// It answered what it should not.
    #[error("the answer of {host} cannot be used: {problem}")]
    Answer {
        /// Who.
        host: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// A client that trusts the machine's authorities, or those of one file.
pub(in crate::coordinator) fn client(
    ca_file: Option<&str>,
    loopback: bool,
) -> Result<reqwest::Client, CoordinationError> {
    let mut builder = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .connect_timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .pool_max_idle_per_host(2)
        .user_agent(concat!("tieline/", env!("CARGO_PKG_VERSION")));
    if loopback {
        builder = builder.no_proxy();
    }
    if let Some(path) = ca_file {
        let wrong = |source: Option<Box<dyn std::error::Error + Send + Sync>>| CoordinationError::Pem {
            path: path.to_owned(),
            what: "certificate",
            source,
        };
        let trusted =
            reqwest::Certificate::from_pem_bundle(&read(path)?).map_err(|error| wrong(Some(Box::new(error))))?;
        if trusted.is_empty() {
            return Err(wrong(None));
        }
        builder = builder.tls_certs_only(trusted);
    }
    builder.build().map_err(|error| CoordinationError::Tls(Box::new(error)))
}

/// Why a body was not read.
pub(in crate::coordinator) enum BodyError {
    /// It is longer than it may be.
    TooLong,
    /// It ended in the middle.
    Broken(reqwest::Error),
}

/// A body of so many bytes at most.
pub(in crate::coordinator) async fn body(mut response: reqwest::Response, limit: usize) -> Result<Vec<u8>, BodyError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| BodyError::Broken(error.without_url()))? {
        if bytes.len() + chunk.len() > limit {
            return Err(BodyError::TooLong);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Sends one request, and reads a whole answer of 200.
pub(super) async fn fetch(
    request: reqwest::RequestBuilder,
    host: &str,
    limit: usize,
) -> Result<Vec<u8>, EndpointError> {
    // An address may hold what the query holds, and stands in no message.
    let broken =
        |source: reqwest::Error| EndpointError::Transport { host: host.to_owned(), source: source.without_url() };
    let response = request.send().await.map_err(broken)?;
    if response.status() != reqwest::StatusCode::OK {
        return Err(EndpointError::Status { host: host.to_owned(), status: response.status().as_u16() });
    }
    match body(response, limit).await {
        Ok(bytes) => Ok(bytes),
        Err(BodyError::Broken(error)) => Err(broken(error)),
        Err(BodyError::TooLong) => Err(EndpointError::Answer { host: host.to_owned(), problem: "it is too long" }),
    }
}

/// The host of an address, for messages, and whether it is this machine.
pub(super) fn host(address: &str) -> (String, bool) {
    let url = reqwest::Url::parse(address).ok();
    let host = url.as_ref().and_then(reqwest::Url::host_str).unwrap_or(address).to_owned();
    let loopback =
        host == "localhost" || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    (host, loopback)
}
