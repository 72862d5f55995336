//! The protocol's requests and answers as the documents of the specification, in both directions.
//!
//! Whatever is asked or answered can be written; whatever comes is read strictly, and refused by the name of the field
//! that is wrong. What is written and read again is the same: a property holds it.

mod channel;
mod guidance;
mod inward;
mod outward;
#[cfg(test)]
mod tests;

use sha2::{Digest as _, Sha256};
use tieline_openapi::coordinator::{
    ActivationKey, ConnectionPath, ConnectionType, EnvironmentPath, InterconnectPath, ResourceId,
};

use super::state::{Kind, Place};

pub use channel::{channel_of, channel_path, event_of, key_of, key_path, read_event, read_key, read_keys, shown_key};
pub use guidance::{guidance_of, read_guidance};
pub use inward::{read_feature, read_seen, read_update};
pub use outward::{connection_of, creation_of, feature_of, resize_of, seen_feature};

/// A document that cannot be acted upon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct WireError {
    /// The field, as it stands in JSON.
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub message: String,
}

fn wrong(field: &'static str, message: impl Into<String>) -> WireError {
    WireError { field, message: message.into() }
}

/// A digest of a key, by which its issuer knows it again: of a key of version 2 it can read nothing else.
#[must_use]
pub fn key_digest(key: &ActivationKey) -> [u8; 32] {
    // A key is numbers and text: it can always be written as JSON, and one key is written in one way.
    Sha256::digest(serde_json::to_vec(key).unwrap_or_default()).into()
}

/// The name of a place's interconnect, under the provider that calls.
#[must_use]
pub fn interconnect_path(caller: &ResourceId, place: &Place) -> InterconnectPath {
    environment_path(caller, &place.environment).interconnect(place.interconnect.clone())
}

/// The name of an environment, under the provider that calls.
#[must_use]
pub fn environment_path(caller: &ResourceId, environment: &ResourceId) -> EnvironmentPath {
    EnvironmentPath { provider: caller.clone(), environment: environment.clone() }
}

/// The name of a connection, under the provider that calls.
#[must_use]
pub fn connection_path(caller: &ResourceId, place: &Place) -> ConnectionPath {
    interconnect_path(caller, place).connection(place.connection.clone())
}

/// The place that a connection's name tells.
#[must_use]
pub fn place_of(path: &ConnectionPath) -> Place {
    Place {
        environment: path.environment.clone(),
        interconnect: path.interconnect.clone(),
        connection: path.connection.clone(),
    }
}

impl From<Kind> for ConnectionType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Standard => Self::Standard,
            Kind::Test => Self::Test,
            Kind::Monitoring => Self::Monitoring,
        }
    }
}
