//! Typed identifiers. A wrong kind of id is a compile error, a malformed one a problem document.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a UUID in its hyphenated form.
    #[error("`{0}` is not a UUID such as 0192f0c1-2345-7abc-8def-0123456789ab")]
    Uuid(String),
    /// Not a slug.
    #[error(
        "`{text}` is not an identifier: 1 to {longest} characters of a-z, 0-9, `-`, `.` and `_`, starting with a letter or \
         digit"
    )]
    Slug {
        /// Its beginning.
        text: String,
        /// How many characters it may have.
        longest: usize,
    },
}

macro_rules! uuid_id {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "String", into = "Uuid")]
        #[schema(value_type = Uuid)]
        pub struct $name(pub Uuid);

        impl $name {
            /// The UUID itself.
            #[must_use]
            pub const fn uuid(self) -> Uuid { self.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                // Only the hyphenated form: one id has one spelling in paths, logs and ETags.
                match Uuid::try_parse(text) {
                    Ok(id) if text.len() == 36 && !text.bytes().any(|b| b.is_ascii_uppercase()) => Ok(Self(id)),
                    _ => Err(IdError::Uuid(text.chars().take(40).collect())),
                }
            }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> { text.parse() }
        }
        impl From<Uuid> for $name { fn from(id: Uuid) -> Self { Self(id) } }
        impl From<$name> for Uuid { fn from(id: $name) -> Self { id.0 } }
    )*};
}

uuid_id! {
    /// A Connection (UUID v7).
    ConnectionId
    /// An Operation (UUID v7).
    OperationId
    /// A saved Plan (UUID v7).
    PlanId
    /// An API token (UUID v7).
    TokenId
    /// A gateway join token (UUID v7).
    JoinTokenId
    /// A Gateway (UUID v7).
    GatewayId
    /// An Issue (UUID v7).
    IssueId
    /// One installation of Tieline: drawn at the first start, written into the name or tags of everything it creates.
    InstallationId
    /// One instance of a cloud-side resource; a new generation of the same resource is a new instance.
    InstanceId
    /// One ledger row: one mutating call to a provider.
    ProviderCallId
}

macro_rules! slug_id {
    ($longest:tt, $pattern:tt; $($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String, min_length = 1, max_length = $longest, pattern = $pattern)]
        pub struct $name(String);

        impl $name {
            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> { Self::try_from(text.to_owned()) }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                if is_slug(&text, $longest) {
                    Ok(Self(text))
                } else {
                    Err(IdError::Slug { text: text.chars().take(80).collect(), longest: $longest })
                }
            }
        }
        impl From<$name> for String { fn from(id: $name) -> String { id.0 } }
    )*};
}

slug_id! { 63, "^[a-z0-9][a-z0-9._-]{0,62}$";
    /// A cloud account in `tieline.toml`.
    AccountId
    /// A customer-side place to attach.
    AttachPointId
    /// One LAG of an interconnect.
    ChannelId
    /// A channel's end in one cloud.
    PortId
    /// A group of gateways in one attach point's network.
    GatewayGroupId
    /// A tenant's name space.
    ProjectId
    /// A router of the operator's own.
    RouterId
    /// A provider's short name: `aws`, `google`, ...
    ProviderName
}

// Of what is shared with a peer the id names the peer too, so it is longer.
slug_id! { 191, "^[a-z0-9][a-z0-9._-]{0,190}$";
    /// A pair of sites.
    EnvironmentId
    /// A redundancy group of channels.
    InterconnectId
}

fn is_slug(text: &str, longest: usize) -> bool {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    first
        && text.len() <= longest
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let id = "0192f0c1-2345-7abc-8def-0123456789ab";
        assert_eq!(id.parse::<ConnectionId>().unwrap().to_string(), id);
        for bad in [
            "",
            "0192f0c123457abc8def0123456789ab",
            "{0192f0c1-2345-7abc-8def-0123456789ab}",
            "urn:uuid:0192f0c1-2345-7abc-8def-0123456789ab",
            "0192f0c1-2345-7abc-8def-0123456789aG",
            "0192F0C1-2345-7ABC-8DEF-0123456789AB",
        ] {
            assert!(bad.parse::<ConnectionId>().is_err(), "{bad}");
            assert!(serde_json::from_value::<ConnectionId>(serde_json::json!(bad)).is_err(), "{bad}");
        }
        let error = "x".repeat(1_000).parse::<ConnectionId>().unwrap_err().to_string();
        assert!(error.len() < 200, "{error}");
    }

    #[test]
    fn slugs_are_short_and_plain() {
        for good in ["a", "0", "aws-us-east-1.google-us-east4", "a_b", &"a".repeat(63)] {
            assert_eq!(good.parse::<ChannelId>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", ".a", "A", "a b", "a/b", "ä", &"a".repeat(64)] {
            let error = bad.parse::<ChannelId>().unwrap_err().to_string();
            assert!(error.contains("1 to 63 characters"), "{error}");
        }
        assert!("a".repeat(191).parse::<EnvironmentId>().is_ok());
        let error = "a".repeat(192).parse::<InterconnectId>().unwrap_err().to_string();
        assert!(error.contains("1 to 191 characters"), "{error}");
    }

    proptest! {
        /// What is taken comes back the same, by text and by JSON; nothing is a panic.
        #[test]
        fn what_is_taken_comes_back(text in "[a-zA-Z0-9._ -]{0,70}") {
            if let Ok(slug) = text.parse::<PortId>() {
                prop_assert_eq!(slug.as_str(), &text);
                let json = serde_json::to_value(&slug).unwrap();
                prop_assert_eq!(serde_json::from_value::<PortId>(json).unwrap(), slug);
            }
        }

        #[test]
        fn uuids_come_back(bits: u128) {
            let id = InstanceId(Uuid::from_u128(bits));
            prop_assert_eq!(id.to_string().parse::<InstanceId>().unwrap(), id);
            prop_assert_eq!(serde_json::from_value::<InstanceId>(serde_json::to_value(id).unwrap()).unwrap(), id);
        }
    }
}
