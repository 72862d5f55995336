//! What the adapters share about one call: its time limit, its secrets, and errors without an SDK's own error behind them.

use secrecy::{ExposeSecret, SecretString};
use std::{future::Future, time::Duration};
use tieline_openapi::problem::ProviderDetail;

use crate::{
    api::{Secrets, Target},
    error::{CallError, CallErrorKind},
};

/// The name of the BGP session's password in [`crate::ResourceSpec::secrets`].
pub(crate) const BGP_PASSWORD: &str = "bgpPassword";

/// What a call does, as far as the meaning of a refusal depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Read,
    Create,
    Update,
    Delete,
}

/// An error that the adapter itself gives.
pub(crate) fn failed(provider: &'static str, kind: CallErrorKind, code: &str, message: String) -> CallError {
    let detail = ProviderDetail { name: provider.to_owned(), code: code.to_owned(), message, request_id: None };
    CallError { kind, detail, retry_after: None, source: None }
}

/// Runs a whole call, with every wire request in it, for at most `limit`. A call that is cut off may have had its effect.
pub(crate) async fn within<T>(
    provider: &'static str,
    limit: Duration,
    call: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
        let message = format!("no answer within {} ms", limit.as_millis());
        Err(failed(provider, CallErrorKind::Unknown, "timeout", message))
    })
}

/// One of the secrets of a call.
pub(crate) fn secret<'a>(
    provider: &'static str,
    secrets: &'a Secrets,
    name: &str,
) -> Result<&'a SecretString, CallError> {
    secrets.get(name).ok_or_else(|| {
        let message = format!("the secret {name} did not come with the call; nothing was sent");
        failed(provider, CallErrorKind::Invalid, "secretMissing", message)
    })
}

/// Takes every secret out of what the cloud said, in case it repeats what it was sent.
pub(crate) fn without_secrets(mut error: CallError, secrets: &Secrets) -> CallError {
    for secret in secrets.values().map(ExposeSecret::expose_secret).filter(|secret| !secret.is_empty()) {
        if error.detail.message.contains(secret) || error.detail.code.contains(secret) {
            error.detail.message = error.detail.message.replace(secret, "(secret)");
            error.detail.code = error.detail.code.replace(secret, "(secret)");
        }
        // The SDKs' errors keep the raw answer, where the secret may stand in a part that is not the message.
        if error.source.as_ref().is_some_and(|source| format!("{source:?}").contains(secret)) {
            error.source = None;
        }
    }
    error
}

/// A field of the wanted object as text, or a refusal before anything is sent.
pub(crate) fn text<'a>(provider: &'static str, target: &'a Target, field: &str) -> Result<&'a str, CallError> {
    target.spec.fields.get(field).and_then(serde_json::Value::as_str).ok_or_else(|| missing(provider, field))
}

/// A field of the wanted object as a number, or a refusal before anything is sent.
pub(crate) fn number<T: TryFrom<i64>>(provider: &'static str, target: &Target, field: &str) -> Result<T, CallError> {
    let value = target.spec.fields.get(field).and_then(serde_json::Value::as_i64);
    value.and_then(|value| T::try_from(value).ok()).ok_or_else(|| missing(provider, field))
}

fn missing(provider: &'static str, field: &str) -> CallError {
    let message = format!("the wanted resource has no usable {field}; nothing was sent");
    failed(provider, CallErrorKind::Invalid, "fieldMissing", message)
}
