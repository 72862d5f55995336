//! The one request that a proof of AWS is: it is sent to the host that the configuration names, and the answer names the
//! account.

use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use secrecy::ExposeSecret as _;
use serde::Deserialize;

use super::{
    EndpointError, ProofError,
    sts::{PURPOSE_HEADER, Presigned, Purpose},
};
use crate::coordinator::identity::{BodyError, body};

/// The answer is three texts and a request id.
const LONGEST: usize = 16 * 1024;

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "GetCallerIdentityResponse")]
    response: Response,
}

#[derive(Deserialize)]
struct Response {
    #[serde(rename = "GetCallerIdentityResult")]
    result: CallerIdentity,
}

#[derive(Deserialize)]
struct CallerIdentity {
    #[serde(rename = "Account")]
    account: String,
}

/// The account that signed, as AWS says.
pub(super) async fn account(
    http: &reqwest::Client,
    asked: &Presigned,
    purpose: &Purpose,
) -> Result<String, ProofError> {
    let host = || asked.host().to_owned();
    let now = |source: EndpointError| ProofError::Endpoint(source);
    let wrong = |problem| now(EndpointError::Answer { host: host(), problem });
    let broken = |source: reqwest::Error| now(EndpointError::Transport { host: host(), source: source.without_url() });
    let purpose = HeaderValue::from_str(&purpose.0).map_err(|_| wrong("it was not asked"))?;
    let headers = HeaderMap::from_iter([
        (ACCEPT, HeaderValue::from_static("application/json")),
        (reqwest::header::HeaderName::from_static(PURPOSE_HEADER), purpose),
    ]);
    let answer = http.get(asked.address().expose_secret()).headers(headers).send().await.map_err(broken)?;
    match answer.status().as_u16() {
        200 => {}
        429 => return Err(now(EndpointError::Status { host: host(), status: 429 })),
        status @ 400..=499 => return Err(ProofError::Refused(status)),
        status => return Err(now(EndpointError::Status { host: host(), status })),
    }
    let bytes = body(answer, LONGEST).await.map_err(|error| match error {
        BodyError::TooLong => wrong("it is too long"),
        BodyError::Broken(error) => broken(error),
    })?;
    // What it holds stands in no message.
    let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| wrong("it names no account"))?;
    let account = answer.response.result.account;
    let is_account = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    if is_account { Ok(account) } else { Err(wrong("it names no account")) }
}
