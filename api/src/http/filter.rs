//! Which connections to list: exact comparisons, some of which may be given more than once. A typo is an error.

use axum::{extract::FromRequestParts, http::request::Parts};
use serde::de::DeserializeOwned;
use tieline_openapi::{
    problem::FieldError,
    v1::{AddressFamily, ConnectionState},
};
use utoipa::IntoParams;

use super::{Http, problem::Fault};
use crate::app::{connections::Wanted, error::field};

/// The query of the list, as documented.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its documentation is used: names that repeat are read by hand")]
pub(super) struct ListQuery {
    /// Only the one with this name.
    name: Option<String>,
    /// Only those over this environment.
    #[param(rename = "environmentId")]
    environment_id: Option<String>,
    /// Only those with this IP version.
    family: Option<AddressFamily>,
    /// Only those in this state; given more than once, in one of these.
    state: Option<Vec<ConnectionState>>,
    /// Only those with this label, as `key=value`; given more than once, with all of these.
    label: Option<Vec<String>>,
    /// Rows of the page; 100 where it is absent. A page may be short and still have a next one.
    #[param(rename = "pageSize", minimum = 1, maximum = 1000)]
    page_size: Option<u32>,
    /// `nextPageToken` of the page before. It is good for the same query only.
    #[param(rename = "pageToken")]
    page_token: Option<String>,
}

/// The query of the list, as read.
#[derive(Debug, Default)]
pub(super) struct Filtered {
    pub(super) wanted: Wanted,
    pub(super) page_size: Option<u32>,
    pub(super) page_token: Option<String>,
}

impl FromRequestParts<Http> for Filtered {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &Http) -> Result<Self, Fault> {
        Self::read(parts.uri.query().unwrap_or_default()).map_err(Fault::invalid)
    }
}

impl Filtered {
    fn read(query: &str) -> Result<Self, Vec<FieldError>> {
        let (mut read, mut errors) = (Self::default(), Vec::new());
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if let Err(message) = read.take(&name, &value) {
                errors.push(field(format!("?{name}"), message));
            }
        }
        if errors.is_empty() { Ok(read) } else { Err(errors) }
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), String> {
        if name.contains('\0') || value.contains('\0') {
            return Err("the NUL character is not taken".to_owned());
        }
        let stored = &mut self.wanted.stored;
        match name {
            "name" => once(&mut stored.name, value.to_owned()),
            "environmentId" => once(&mut stored.environment, value.to_owned()),
            "family" => once(&mut stored.family, word::<AddressFamily>(value, "IPV4 or IPV6")?),
            "state" => {
                let known = "PENDING, PROVISIONING, ACTIVE, DEGRADED, UPDATING, ACTION_REQUIRED or DELETING";
                self.wanted.states.push(word::<ConnectionState>(value, known)?);
                Ok(())
            }
            "label" => {
                let (key, value) = value.split_once('=').ok_or("a label is given as `key=value`")?;
                let before = stored.labels.insert(key.to_owned(), value.to_owned());
                before.map_or(Ok(()), |_| Err(format!("label `{key}` is given twice")))
            }
            "pageSize" => once(&mut self.page_size, value.parse().map_err(|_| "a whole number".to_owned())?),
            "pageToken" => once(&mut self.page_token, value.to_owned()),
            _ => Err("there is no such parameter".to_owned()),
        }
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), String> {
    if slot.replace(value).is_some() { Err("give it once".to_owned()) } else { Ok(()) }
}

fn word<T: DeserializeOwned>(value: &str, known: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::from(value)).map_err(|_| format!("expected {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parameters_are_read() {
        let read =
            Filtered::read("state=ACTIVE&state=DEGRADED&label=team%3Dnet&label=a=b%3Dc&name=n+1&pageSize=7").unwrap();
        assert_eq!(read.wanted.states, [ConnectionState::Active, ConnectionState::Degraded]);
        assert_eq!(read.wanted.stored.labels.get("team").map(String::as_str), Some("net"));
        assert_eq!(read.wanted.stored.labels.get("a").map(String::as_str), Some("b=c"));
        assert_eq!(read.wanted.stored.name.as_deref(), Some("n 1"));
        assert_eq!(read.page_size, Some(7));
    }

    #[test]
    fn every_typo_is_named() {
        let query = "stat=ACTIVE&state=ACTIV&label=team&name=a&name=b&pageSize=-1&family=IPV5&label=k%3D1&label=k%3D2";
        let pointers: Vec<String> = Filtered::read(query).unwrap_err().into_iter().map(|error| error.pointer).collect();
        assert_eq!(pointers, ["?stat", "?state", "?label", "?name", "?pageSize", "?family", "?label"]);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = Filtered::read(&text);
        }
    }
}
