//! Pages: size, opaque token, and the link to the next one.

use std::collections::BTreeMap;

use axum::{
    Json,
    http::{HeaderValue, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tieline_openapi::problem::FieldError;

use super::{Http, operations::PageQuery, problem::Fault};
use crate::app::{Caller, Paged, error::field};

/// Rows of a page where the query does not say.
const DEFAULT: u32 = 100;
/// The most rows of a page.
const MOST: u32 = 1000;

/// Where a page begins and how long it is.
pub(super) struct Cut {
    /// Rows.
    pub(super) size: u32,
    /// The last id of the page before.
    pub(super) after: Option<String>,
    query: String,
}

/// Rows of a page.
///
/// # Errors
/// The field error of a size out of bounds.
pub(super) fn size(asked: Option<u32>) -> Result<u32, FieldError> {
    match asked {
        None => Ok(DEFAULT),
        Some(size) if (1..=MOST).contains(&size) => Ok(size),
        Some(size) => Err(field("?pageSize", format!("{size} is outside 1 to {MOST}"))),
    }
}

impl Cut {
    /// Reads size and token. `rest` is the rest of the query, which a token belongs to.
    pub(super) fn of(
        http: &Http,
        caller: &Caller,
        rest: &str,
        asked: Option<u32>,
        token: Option<&str>,
    ) -> Result<Self, Fault> {
        let query = format!("{}|{}|{rest}", caller.action, caller.project);
        let mut errors = Vec::new();
        let size = size(asked).unwrap_or_else(|error| {
            errors.push(error);
            DEFAULT
        });
        let after = token.and_then(|token| {
            let read = http.app.vault.read_page_token(&query, token);
            if read.is_none() {
                let message = "this token is not one that this list gave for this query; begin again without it";
                errors.push(field("?pageToken", message));
            }
            read
        });
        if errors.is_empty() { Ok(Self { size, after, query }) } else { Err(Fault::invalid(errors)) }
    }

    /// The id that the page begins after, of a list by UUID.
    pub(super) fn after_uuid(&self) -> Option<uuid::Uuid> {
        self.after.as_deref().and_then(|text| text.parse().ok())
    }

    /// The answer: the page, and where the next one is.
    pub(super) fn answer<T, L: Serialize>(
        &self,
        http: &Http,
        uri: &Uri,
        page: Paged<T>,
        list: impl FnOnce(Vec<T>, Option<String>) -> L,
    ) -> Result<Response, Fault> {
        let next = page.last.map(|last| http.app.vault.page_token(&self.query, &last)).transpose()?;
        let link = next.as_deref().and_then(|token| HeaderValue::from_str(&next_link(uri, token)).ok());
        let mut response = Json(list(page.items, next)).into_response();
        response.headers_mut().extend(link.map(|link| (header::LINK, link)));
        Ok(response)
    }

    /// A page of what is in memory, in order of its id.
    fn of_memory<K: std::fmt::Display, T: Clone>(&self, all: &BTreeMap<K, T>) -> Paged<T> {
        let rest = all.iter().map(|(id, item)| (id.to_string(), item));
        let rest = rest.filter(|(id, _)| self.after.as_ref().is_none_or(|after| id > after));
        let rows: Vec<(String, &T)> = rest.take(self.size as usize + 1).collect();
        let page = Paged::of(rows, self.size, |(id, _)| id.clone());
        Paged { items: page.items.into_iter().map(|(_, item)| item.clone()).collect(), last: page.last }
    }
}

/// A page of a noun of which the topology holds everything.
pub(super) fn of_topology<K: std::fmt::Display, T: Clone, L: Serialize>(
    http: &Http,
    caller: &Caller,
    uri: &Uri,
    query: &PageQuery,
    all: &BTreeMap<K, T>,
    list: impl FnOnce(Vec<T>, Option<String>) -> L,
) -> Result<Response, Fault> {
    let cut = Cut::of(http, caller, "", query.page_size, query.page_token.as_deref())?;
    cut.answer(http, uri, cut.of_memory(all), list)
}

/// One of them.
pub(super) fn one_of_topology<K: Ord, T: Clone>(all: &BTreeMap<K, T>, id: &K) -> Result<Json<T>, Fault> {
    all.get(id).cloned().map(Json).ok_or_else(Fault::not_found)
}

/// RFC 8288: for users of curl.
fn next_link(uri: &Uri, token: &str) -> String {
    let pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs.filter(|(name, _)| name != "pageToken"))
        .append_pair("pageToken", token)
        .finish();
    format!("<{}?{query}>; rel=\"next\"", uri.path())
}
