//! List parameters: `filter`, `orderBy`, `maxResults`, `pageToken`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{names::BASE, wire::GoogleError};
use crate::clouds::page::{key, page};

/// The largest page, and the default one (`maxResults`: 0 to 500, default 500).
const PAGE: usize = 500;

/// The query of a list or a mutation. Parameters that steer only the wire (`$alt`, `prettyPrint`) are taken and ignored.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Query {
    filter: Option<String>,
    order_by: Option<String>,
    max_results: Option<usize>,
    page_token: Option<String>,
    pub(super) request_id: Option<String>,
    pub(super) validate_only: Option<bool>,
}

/// One comparison of a filter.
struct Term {
    field: String,
    op: Op,
    value: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Op {
    Is,
    IsNot,
    Has,
}

impl Term {
    fn matches(&self, item: &Value) -> bool {
        let actual = match &item[self.field.as_str()] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => other.to_string(),
        };
        match self.op {
            Op::Is => glob(&self.value, &actual),
            Op::IsNot => !glob(&self.value, &actual),
            Op::Has if self.value.contains('*') => glob(&self.value, &actual),
            Op::Has => actual.contains(&self.value),
        }
    }
}

/// `*` stands for any text.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Reads a filter of comparisons (`=`, `!=`, `:`, `eq`, `ne`) joined by `AND`, each perhaps in parentheses. Other expressions are refused
/// rather than answered wrongly.
fn parse(filter: &str) -> Result<Vec<Term>, GoogleError> {
    let bad = || GoogleError::new(400, "invalid", format!("Invalid list filter expression: {filter}"));
    let flat = filter.replace(") (", " AND ").replace(")(", " AND ").replace(['(', ')'], " ");
    let mut terms = Vec::new();
    for part in flat.split(" AND ").map(str::trim).filter(|part| !part.is_empty()) {
        let ops = [("!=", Op::IsNot), ("=", Op::Is), (":", Op::Has), (" eq ", Op::Is), (" ne ", Op::IsNot)];
        let found = ops.iter().filter_map(|(sign, op)| Some((part.find(sign)?, *sign, *op))).min_by_key(|(at, ..)| *at);
        let (at, sign, op) = found.ok_or_else(bad)?;
        let (field, value) = (part[..at].trim(), part[at + sign.len()..].trim().trim_matches(['"', '\'']));
        if field.is_empty() || field.contains([' ', '.']) || value.contains([' ', '"']) {
            return Err(bad());
        }
        terms.push(Term { field: field.to_owned(), op, value: value.to_owned() });
    }
    Ok(terms)
}

impl Query {
    /// A list in Google's shape. `items` come in the order of their creation.
    pub(super) fn list(&self, kind: &str, path: &str, items: Vec<Value>) -> Result<Value, GoogleError> {
        let terms = parse(self.filter.as_deref().unwrap_or_default())?;
        let size = match self.max_results {
            Some(n) if n > PAGE => return Err(GoogleError::new(400, "invalid", "maxResults must be at most 500.")),
            Some(0) | None => PAGE,
            Some(n) => n,
        };
        let count = u64::try_from(items.len()).unwrap_or(u64::MAX);
        let mut keyed: Vec<(String, Value)> = Vec::new();
        for (n, item) in (0u64..).zip(items) {
            let key = match self.order_by.as_deref() {
                None | Some("" | "name") => item["name"].as_str().unwrap_or_default().to_owned(),
                Some("creationTimestamp desc") => key(count - n),
                Some(other) => return Err(GoogleError::new(400, "invalid", format!("Invalid orderBy: {other}"))),
            };
            keyed.push((key, item));
        }
        keyed.retain(|(_, item)| terms.iter().all(|term| term.matches(item)));
        keyed.sort_by(|a, b| a.0.cmp(&b.0));
        let token = self.page_token.as_deref().filter(|token| !token.is_empty());
        let (items, next) = page(path, keyed, size, token)
            .map_err(|_| GoogleError::new(400, "invalid", "Invalid value for field 'pageToken'"))?;
        let mut list = json!({ "kind": kind, "id": path, "selfLink": format!("{BASE}{path}") });
        if !items.is_empty() {
            list["items"] = Value::Array(items);
        }
        if let Some(next) = next {
            list["nextPageToken"] = json!(next);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(filter: &str) -> Result<Vec<String>, GoogleError> {
        let all = ["a-1", "b-1", "b-2"].iter().map(|n| json!({ "name": n, "state": "ACTIVE" })).collect();
        let query = Query { filter: Some(filter.to_owned()), ..Query::default() };
        let list = query.list("k", "p", all)?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        Ok(items.iter().filter_map(|i| i["name"].as_str().map(str::to_owned)).collect())
    }

    #[test]
    fn filters_compare_and_join() {
        assert_eq!(names("name = \"b-1\""), Ok(vec!["b-1".to_owned()]));
        assert_eq!(names("(name = b-*) (state = ACTIVE)"), Ok(vec!["b-1".to_owned(), "b-2".to_owned()]));
        assert_eq!(names("name:b- AND name != b-2"), Ok(vec!["b-1".to_owned()]));
        assert_eq!(names("name eq a-1"), Ok(vec!["a-1".to_owned()]));
        assert!(names("name > 3 OR x").is_err());
    }
}
