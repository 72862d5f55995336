//! awsJson1.1 on the wire: answers, errors, and who is calling.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::clouds::{settings::CloudSettings, sim::Dialect};

/// A refusal in the service's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AwsError {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
}

impl AwsError {
    pub(super) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into() }
    }

    /// `DirectConnectClientException`: "One or more parameters are not valid."
    pub(super) fn client(message: impl Into<String>) -> Self {
        Self::new(400, "DirectConnectClientException", message)
    }
}

/// An answer with its request id.
pub(super) fn answer(request_id: &str, result: Result<Value, AwsError>) -> Response {
    let (status, body) = match result {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => (
            StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            json!({ "__type": error.code, "message": error.message }),
        ),
    };
    let mut response = (status, body.to_string()).into_response();
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/x-amz-json-1.1"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert("x-amzn-requestid", id);
    }
    response
}

/// The service's wording of what is the same for every operation.
pub(super) struct Words<'a> {
    pub(super) request_id: &'a str,
}

impl Dialect for Words<'_> {
    fn unavailable(&self) -> Response {
        let error = AwsError::new(500, "DirectConnectServerException", "A server-side error occurred.");
        answer(self.request_id, Err(error))
    }

    fn throttled(&self) -> Response {
        answer(self.request_id, Err(AwsError::new(400, "ThrottlingException", "Rate exceeded")))
    }

    fn refused(&self, status: u16, code: &str, message: &str) -> Response {
        answer(self.request_id, Err(AwsError::new(status, code, message)))
    }
}

/// The parts of an `Authorization` header of AWS Signature Version 4.
struct Authorization<'a> {
    key: &'a str,
    date: &'a str,
    region: &'a str,
    service: &'a str,
    signed_headers: Vec<&'a str>,
    signature: &'a str,
}

fn parse(header: &str) -> Option<Authorization<'_>> {
    let fields = header.strip_prefix("AWS4-HMAC-SHA256 ")?;
    let field = |name: &str| fields.split(',').find_map(|f| f.trim().strip_prefix(name)?.strip_prefix('='));
    let scope: Vec<&str> = field("Credential")?.split('/').collect();
    let [key, date, region, service, "aws4_request"] = scope[..] else { return None };
    let signed_headers = field("SignedHeaders")?.split(';').collect();
    Some(Authorization { key, date, region, service, signed_headers, signature: field("Signature")? })
}

/// Checks who is calling: the key is the known one, and the signature is made with its secret over this very request.
///
/// The real service also refuses a signature older than five minutes; here the simulator's clock may stand still, so it does not.
pub(super) fn authenticate(
    settings: &CloudSettings,
    region: &str,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<(), AwsError> {
    let Some(header) = headers.get("authorization") else {
        if settings.allow_anonymous {
            return Ok(());
        }
        return Err(AwsError::new(403, "MissingAuthenticationTokenException", "Missing Authentication Token"));
    };
    let incomplete =
        || AwsError::new(403, "IncompleteSignatureException", "Authorization header is not an AWS4-HMAC-SHA256 one.");
    let given = header.to_str().ok().and_then(parse).ok_or_else(incomplete)?;
    if given.key != settings.access_key_id {
        let message = "The security token included in the request is invalid.";
        return Err(AwsError::new(403, "UnrecognizedClientException", message));
    }
    let mismatch = |what: &str| AwsError::new(403, "InvalidSignatureException", what);
    if given.service != "directconnect" {
        return Err(mismatch("Credential should be scoped to correct service: 'directconnect'."));
    }
    if given.region != region {
        return Err(mismatch(&format!("Credential should be scoped to a valid region, not '{}'.", given.region)));
    }
    let expected = signature(settings, &given, method, uri, headers, body).ok_or_else(incomplete)?;
    if expected != given.signature {
        return Err(mismatch(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key \
             and signing method. Consult the service documentation for details.",
        ));
    }
    Ok(())
}

fn signature(
    settings: &CloudSettings,
    given: &Authorization<'_>,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &Bytes,
) -> Option<String> {
    let stamp = headers.get("x-amz-date")?.to_str().ok()?;
    if !stamp.starts_with(given.date) || !given.signed_headers.contains(&"host") {
        return None;
    }
    let at = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", stamp).ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    let signed: Vec<(&str, &str)> = given
        .signed_headers
        .iter()
        .filter(|name| **name != "x-amz-date")
        .map(|name| Some((*name, headers.get(*name)?.to_str().ok()?)))
        .collect::<Option<_>>()?;
    let identity = Credentials::new(&settings.access_key_id, &settings.secret_access_key, None, None, "lab").into();
    let mut signing = SigningSettings::default();
    signing.excluded_headers = None;
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(given.region)
        .name(given.service)
        .time(SystemTime::from(at.timestamp()))
        .settings(signing)
        .build()
        .ok()?
        .into();
    let host = headers.get("host")?.to_str().ok()?;
    let url = format!("http://{host}{uri}");
    let request = SignableRequest::new(method.as_str(), url, signed.into_iter(), SignableBody::Bytes(body)).ok()?;
    Some(sign(request, &params).ok()?.signature().to_owned())
}
