//! Names of resources: paths of ids, as `providers/{provider}/environments/{environment}`.
//!
//! The first id is always the caller's own provider id: what `aws` calls at us stands under `providers/aws`. So each
//! peer sees one subtree.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// One id of it.
    #[error("`{0}` is no id: 1 to 128 characters of A-Z, a-z, 0-9, `-`, `.`, `_` and `~`, and not `.` or `..`")]
    Id(String),
    /// The whole of it.
    #[error("`{text}` does not read `{format}`")]
    Format {
        /// The text.
        text: String,
        /// What would be right.
        format: &'static str,
    },
}

/// One id of a name: characters that RFC 3986 (section 2.3) calls unreserved, so that it stands in a path as it is. The
/// specification bounds ids nowhere; a peer that uses others is told so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ResourceId(String);

impl ResourceId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ResourceId {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        let unreserved = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
        let good = (1..=128).contains(&text.len()) && text.bytes().all(unreserved) && text != "." && text != "..";
        if good { Ok(Self(text)) } else { Err(NameError::Id(text.chars().take(80).collect())) }
    }
}

impl FromStr for ResourceId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::try_from(text.to_owned())
    }
}

impl From<ResourceId> for String {
    fn from(id: ResourceId) -> Self {
        id.0
    }
}

impl From<uuid::Uuid> for ResourceId {
    fn from(id: uuid::Uuid) -> Self {
        // A UUID's text is hexadecimal digits and hyphens.
        Self(id.to_string())
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The ids in a path, by the names that they have in its template.
pub trait PathParameters {
    /// Name and id, in the template's order.
    fn parameters(&self) -> Vec<(&'static str, &str)>;
}

impl PathParameters for () {
    fn parameters(&self) -> Vec<(&'static str, &str)> {
        Vec::new()
    }
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $format:literal { $($collection:literal $field:ident $key:literal),+ };)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        pub struct $name {
            $(
                #[doc = concat!("The id after `", $collection, "/`.")]
                #[serde(rename = $key)]
                pub $field: ResourceId,
            )+
        }

        impl $name {
            /// How the name reads.
            pub const FORMAT: &'static str = $format;
        }
        impl PathParameters for $name {
            fn parameters(&self) -> Vec<(&'static str, &str)> {
                vec![$(($key, self.$field.as_str())),+]
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let parts = [$(($collection, self.$field.as_str())),+];
                let parts: Vec<String> = parts.iter().map(|(collection, id)| format!("{collection}/{id}")).collect();
                f.write_str(&parts.join("/"))
            }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                let wrong = || NameError::Format { text: text.chars().take(200).collect(), format: $format };
                let mut parts = text.split('/');
                let name = Self {
                    $($field: match (parts.next(), parts.next()) {
                        (Some($collection), Some(id)) => id.parse()?,
                        _ => return Err(wrong()),
                    },)+
                };
                if parts.next().is_none() { Ok(name) } else { Err(wrong()) }
            }
        }
    )+};
}

names! {
    /// A provider's name.
    ProviderPath = "providers/{provider}" { "providers" provider "provider" };
    /// An environment's name.
    EnvironmentPath = "providers/{provider}/environments/{environment}" {
        "providers" provider "provider", "environments" environment "environment"
    };
    /// An interconnect's name.
    InterconnectPath = "providers/{provider}/environments/{environment}/interconnects/{interconnect}" {
        "providers" provider "provider", "environments" environment "environment",
        "interconnects" interconnect "interconnect"
    };
    /// A channel's name.
    ChannelPath = "providers/{provider}/environments/{environment}/interconnects/{interconnect}/channels/{channel}" {
        "providers" provider "provider", "environments" environment "environment",
        "interconnects" interconnect "interconnect", "channels" channel "channel"
    };
    /// A MACsec key's name.
    MacSecKeyPath = "providers/{provider}/environments/{environment}/interconnects/{interconnect}/channels/{channel}/macSecKeys/{macSecKey}" {
        "providers" provider "provider", "environments" environment "environment",
        "interconnects" interconnect "interconnect", "channels" channel "channel", "macSecKeys" mac_sec_key "macSecKey"
    };
    /// A connection's name: what tells two placements of one UUID apart.
    ConnectionPath = "providers/{provider}/environments/{environment}/interconnects/{interconnect}/connections/{connection}" {
        "providers" provider "provider", "environments" environment "environment",
        "interconnects" interconnect "interconnect", "connections" connection "connection"
    };
    /// A feature's name.
    FeaturePath = "providers/{provider}/environments/{environment}/interconnects/{interconnect}/connections/{connection}/features/{feature}" {
        "providers" provider "provider", "environments" environment "environment",
        "interconnects" interconnect "interconnect", "connections" connection "connection", "features" feature "feature"
    };
    /// An issue's name.
    IssuePath = "providers/{provider}/issues/{issue}" { "providers" provider "provider", "issues" issue "issue" };
}

impl ProviderPath {
    /// One of the provider's environments.
    #[must_use]
    pub fn environment(&self, environment: ResourceId) -> EnvironmentPath {
        EnvironmentPath { provider: self.provider.clone(), environment }
    }
}

impl EnvironmentPath {
    /// One of the environment's interconnects.
    #[must_use]
    pub fn interconnect(&self, interconnect: ResourceId) -> InterconnectPath {
        InterconnectPath { provider: self.provider.clone(), environment: self.environment.clone(), interconnect }
    }
}

impl InterconnectPath {
    /// One of the interconnect's channels.
    #[must_use]
    pub fn channel(&self, channel: ResourceId) -> ChannelPath {
        ChannelPath {
            provider: self.provider.clone(),
            environment: self.environment.clone(),
            interconnect: self.interconnect.clone(),
            channel,
        }
    }

    /// One of the interconnect's connections.
    #[must_use]
    pub fn connection(&self, connection: ResourceId) -> ConnectionPath {
        ConnectionPath {
            provider: self.provider.clone(),
            environment: self.environment.clone(),
            interconnect: self.interconnect.clone(),
            connection,
        }
    }
}

impl ConnectionPath {
    /// The interconnect that it is on.
    #[must_use]
    pub fn parent(&self) -> InterconnectPath {
        InterconnectPath {
            provider: self.provider.clone(),
            environment: self.environment.clone(),
            interconnect: self.interconnect.clone(),
        }
    }

    /// One of its features.
    #[must_use]
    pub fn feature(&self, feature: ResourceId) -> FeaturePath {
        FeaturePath {
            provider: self.provider.clone(),
            environment: self.environment.clone(),
            interconnect: self.interconnect.clone(),
            connection: self.connection.clone(),
            feature,
        }
    }
}
