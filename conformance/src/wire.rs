//! Requests to the target, and a record of what was sent and received.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::{
    Url,
    header::{ACCEPT, CONTENT_TYPE},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tieline_openapi::coordinator::{OperationId, PathParameters};

use crate::{
    peer::Heard,
    suite::{Stop, violation},
};

/// How long the target may take for one answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// How much of a body is shown, in characters.
const SHOWN: usize = 2_000;
/// Members of a document that hold secrets: they are never shown.
const SECRETS: &[&str] =
    &["cak", "ckn", "md5BgpPassword", "encodedKey", "activationKey", "encryptedContents", "sharedConnectionUuid"];

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// The suite asked the target.
    Suite,
    /// The target asked the suite.
    Target,
}

/// One request and what came of it, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// When it was sent or came, since the suite began.
    pub at: Duration,
    /// Who asked.
    pub asker: Asker,
    /// Method, path and query.
    pub request: String,
    /// The request's body; empty if there was none.
    pub sent: String,
    /// The answer's status, or why there is none.
    pub status: Result<u16, String>,
    /// The answer's body.
    pub received: String,
}

impl Exchange {
    /// What the target asked.
    pub(crate) fn heard(heard: &Heard) -> Self {
        let query: Vec<_> = heard.query.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        let told = |body: &Value| if body.is_null() { String::new() } else { show(body.to_string().as_bytes()) };
        Self {
            at: heard.at,
            asker: Asker::Target,
            request: format!("{} {}{mark}{}", heard.op.method().as_str(), heard.path, query.join("&")),
            sent: told(&heard.body),
            status: heard.answer.as_ref().map(|(status, _)| *status).ok_or_else(|| "lost on purpose".to_owned()),
            received: heard.answer.as_ref().map(|(_, body)| told(body)).unwrap_or_default(),
        }
    }
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (asks, answers, who) = match self.asker {
            Asker::Suite => ('>', '<', "suite"),
            Asker::Target => ('<', '>', "target"),
        };
        writeln!(f, "{asks} {:>8.3} s  {who} asks: {}", self.at.as_secs_f64(), self.request)?;
        if !self.sent.is_empty() {
            writeln!(f, "{asks} {}", self.sent)?;
        }
        match &self.status {
            Ok(status) => writeln!(f, "{answers} {status}")?,
            Err(why) => writeln!(f, "{answers} no answer: {why}")?,
        }
        if self.received.is_empty() { Ok(()) } else { writeln!(f, "{answers} {}", self.received) }
    }
}

/// An answer of the target.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub status: u16,
    pub operation: &'static str,
    body: Vec<u8>,
}

impl Answer {
    /// Whether the target did what was asked.
    pub(crate) fn good(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The document in it, which must be there and fit the specification's schema.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Stop> {
        if !self.good() {
            return Err(violation(format!(
                "{} was answered with {} and not with success",
                self.operation, self.status
            )));
        }
        // A deletion may be answered with nothing at all.
        let body: &[u8] = if self.body.iter().all(u8::is_ascii_whitespace) { b"{}" } else { &self.body };
        let wrong = |error| violation(format!("the answer to {} is not what its schema says: {error}", self.operation));
        serde_json::from_slice(body).map_err(wrong)
    }

    /// The request must have been refused, with one of these statuses.
    pub(crate) fn refused_with(&self, statuses: &[u16], why: &str) -> Result<(), Stop> {
        if statuses.contains(&self.status) {
            return Ok(());
        }
        let wanted: Vec<_> = statuses.iter().map(u16::to_string).collect();
        let wanted = wanted.join(" or ");
        Err(violation(format!("{}, {why}, was answered with {} and not with {wanted}", self.operation, self.status)))
    }

    /// The request must have been refused as the caller's mistake (4xx).
    pub(crate) fn refused(&self, why: &str) -> Result<(), Stop> {
        if (400..500).contains(&self.status) {
            return Ok(());
        }
        Err(violation(format!("{}, {why}, was answered with {} and not with 4xx", self.operation, self.status)))
    }
}

/// The wire to the target, for one case.
pub(crate) struct Wire {
    http: reqwest::Client,
    base: Url,
    monotonic: Arc<dyn Fn() -> Duration + Send + Sync>,
    exchanges: Mutex<Vec<Exchange>>,
}

impl Wire {
    pub(crate) fn new(http: reqwest::Client, base: Url, monotonic: Arc<dyn Fn() -> Duration + Send + Sync>) -> Self {
        Self { http, base, monotonic, exchanges: Mutex::default() }
    }

    /// Adds to what was sent and received.
    pub(crate) fn note(&self, exchanges: Vec<Exchange>) {
        self.exchanges.lock().unwrap_or_else(PoisonError::into_inner).extend(exchanges);
    }

    /// What has been sent and received so far.
    pub(crate) fn take(&self) -> Vec<Exchange> {
        std::mem::take(&mut *self.exchanges.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Calls an operation.
    pub(crate) async fn call(
        &self,
        operation: OperationId,
        path: &impl PathParameters,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, Stop> {
        let body = body.map(|body| body.to_string().into_bytes());
        self.send(operation, &operation.path(path), query, body).await
    }

    /// Sends whatever bytes as a body, to whatever path.
    pub(crate) async fn send(
        &self,
        operation: OperationId,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Result<Answer, Stop> {
        let body = body.map(|body| ("application/json", body));
        self.ask(operation.as_str(), operation.method().as_str(), path, query, body).await
    }

    /// Sends bytes by whatever method, as whatever kind of document.
    pub(crate) async fn raw(
        &self,
        method: &'static str,
        path: &str,
        kind: &'static str,
        body: Vec<u8>,
    ) -> Result<Answer, Stop> {
        self.ask("the request", method, path, &[], Some((kind, body))).await
    }

    async fn ask(
        &self,
        operation: &'static str,
        method: &'static str,
        path: &str,
        query: &[(&str, &str)],
        body: Option<(&'static str, Vec<u8>)>,
    ) -> Result<Answer, Stop> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap_or(reqwest::Method::GET);
        let shown = url.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
        let mut exchange = Exchange {
            at: (self.monotonic)(),
            asker: Asker::Suite,
            request: format!("{method} {shown}"),
            sent: body.as_ref().map(|(_, body)| show(body)).unwrap_or_default(),
            status: Err("the request could not be sent".to_owned()),
            received: String::new(),
        };
        let mut request = self.http.request(method, url).header(ACCEPT, "application/json").timeout(PATIENCE);
        if let Some((kind, body)) = body {
            request = request.header(CONTENT_TYPE, kind).body(body);
        }
        let answered = receive(request).await;
        let answer = match answered {
            Ok((status, body)) => {
                exchange.status = Ok(status);
                exchange.received = show(&body);
                Ok(Answer { status, operation, body })
            }
            Err(why) => {
                exchange.status = Err(why.clone());
                Err(Stop::NoAnswer(why))
            }
        };
        self.exchanges.lock().unwrap_or_else(PoisonError::into_inner).push(exchange);
        let answer = answer?;
        if answer.status >= 500 {
            let status = answer.status;
            return Err(violation(format!("{operation} was answered with {status}: no request may break a server")));
        }
        Ok(answer)
    }
}

async fn receive(request: reqwest::RequestBuilder) -> Result<(u16, Vec<u8>), String> {
    let told = |error: reqwest::Error| chain(&error.without_url());
    let mut response = request.send().await.map_err(told)?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(told)? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(format!("the answer is longer than {MAX_ANSWER_BYTES} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((status, body))
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

/// A body for people: without secrets, and not longer than a screen.
fn show(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<Value>(body) {
        Ok(mut value) => {
            hide(&mut value);
            value.to_string()
        }
        // Nobody knows what is secret in it.
        Err(_) if body.is_empty() => String::new(),
        Err(_) => format!("({} bytes that are no JSON)", body.len()),
    };
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

fn hide(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if SECRETS.contains(&name.as_str()) {
                    *member = Value::from("(secret)");
                } else {
                    hide(member);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_never_shown() {
        let body =
            br#"{"featureConfig":{"l3BaseConfig":{"md5BgpPassword":"hunter2","vlanId":1030}},"keys":[{"cak":"ab12"}]}"#;
        let shown = show(body);
        assert!(shown.contains("1030") && !shown.contains("hunter2") && !shown.contains("ab12"), "{shown}");
        assert!(!show(b"encodedKey=abcdef").contains("abcdef"));
    }

    #[test]
    fn a_long_body_is_cut_between_characters() {
        let body = serde_json::to_vec(&"ä".repeat(SHOWN * 2)).unwrap();
        assert_eq!(show(&body).chars().count(), SHOWN + 1);
    }
}
