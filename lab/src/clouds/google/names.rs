//! Names, URLs and enumerations.

use super::wire::GoogleError;

/// Where the real service's URLs begin. Answers carry them whatever endpoint the client uses.
pub(super) const BASE: &str = "https://www.googleapis.com/compute/v1/";

/// Checks RFC 1035 names as the API does: `[a-z]([-a-z0-9]{0,61}[a-z0-9])?`.
pub(super) fn check_name(field: &str, name: &str) -> Result<(), GoogleError> {
    let bytes = name.as_bytes();
    let inner = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    let ends = bytes.first().is_some_and(u8::is_ascii_lowercase) && bytes.last().is_some_and(|b| *b != b'-');
    if (1..=63).contains(&bytes.len()) && inner && ends {
        return Ok(());
    }
    Err(GoogleError::invalid(field, name, "Must be a match of regex '[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?'"))
}

/// Checks a value against an enumeration.
pub(super) fn check_enum(field: &str, value: &str, allowed: &[&str]) -> Result<(), GoogleError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(GoogleError::invalid(field, value, &format!("Must be one of {}.", allowed.join(", "))))
}

/// The name that a full or partial URL of a collection ends in: `https://.../regions/r/routers/NAME`, `routers/NAME` or `NAME`.
pub(super) fn name_in_url(field: &str, url: &str, collection: &str) -> Result<String, GoogleError> {
    let malformed = || GoogleError::invalid(field, url, "The URL is malformed.");
    let mut segments = url.rsplit('/');
    let name = segments.next().filter(|name| !name.is_empty()).ok_or_else(malformed)?;
    match segments.next() {
        None => Ok(name.to_owned()),
        Some(segment) if segment == collection => Ok(name.to_owned()),
        Some(_) => Err(malformed()),
    }
}
