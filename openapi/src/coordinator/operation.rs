//! The operations: one declaration each, and everything else follows from it. The document is generated from these, the
//! client builds its calls from them, and a server routes [`OperationId::ALL`] to handlers of [`Operation`]'s types. So
//! none of the three can drift from the others.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::{
    IntoParams, ToSchema,
    openapi::{RefOr, Schema, path::Parameter, path::ParameterIn, schema::Ref},
};
use uuid::Uuid;

use super::*;

/// What is said without a body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoBody {}

/// An operation of the specification.
pub trait Operation: Send + Sync + 'static {
    /// The ids in its path.
    type Path: PathParameters + DeserializeOwned + Send + Sync;
    /// Its query.
    type Query: Serialize + DeserializeOwned + Send + Sync;
    /// Its body; [`NoBody`] if it has none.
    type Body: Serialize + DeserializeOwned + Send + Sync;
    /// Its answer.
    type Answer: Serialize + DeserializeOwned + Send + Sync;
    /// Which it is.
    const ID: OperationId;
}

/// The methods in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Reads.
    Get,
    /// Creates, and custom verbs.
    Post,
    /// Changes.
    Patch,
    /// Deletes.
    Delete,
}

impl Method {
    /// The method in an HTTP request.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// Schemas that a type brings along.
pub(super) type Schemas = Vec<(String, RefOr<Schema>)>;

fn schema_of<T: ToSchema>(schemas: &mut Schemas) -> Ref {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
    Ref::from_schema_name(T::name())
}

macro_rules! body {
    () => {
        NoBody
    };
    ($Body:ty) => {
        $Body
    };
}
macro_rules! body_schema {
    ($schemas:ident) => {
        None
    };
    ($schemas:ident $Body:ty) => {
        Some(schema_of::<$Body>($schemas))
    };
}

macro_rules! operations {
    ($(
        #[doc = $summary:literal]
        $name:ident: $method:ident $template:literal, $tag:literal,
        ($Path:ty, $Query:ty $(, body $Body:ty)?) -> $Answer:ty;
    )+) => {
        /// Which operation, by the specification's `operationId`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum OperationId {
            $(#[doc = $summary] $name,)+
        }

        impl OperationId {
            /// Every operation of the specification.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The `operationId`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// The method.
            #[must_use]
            pub const fn method(self) -> Method {
                match self { $(Self::$name => Method::$method,)+ }
            }

            /// The path under [`BASE_PATH`], with ids in braces.
            #[must_use]
            pub const fn template(self) -> &'static str {
                match self { $(Self::$name => $template,)+ }
            }

            pub(super) const fn tag(self) -> &'static str {
                match self { $(Self::$name => $tag,)+ }
            }

            pub(super) const fn summary(self) -> &'static str {
                match self { $(Self::$name => $summary,)+ }
            }

            pub(super) fn query(self) -> Vec<Parameter> {
                match self { $(Self::$name => <$Query>::into_params(|| Some(ParameterIn::Query)),)+ }
            }

            pub(super) fn body(self, schemas: &mut Schemas) -> Option<Ref> {
                match self { $(Self::$name => body_schema!(schemas $($Body)?),)+ }
            }

            pub(super) fn answer(self, schemas: &mut Schemas) -> Ref {
                match self { $(Self::$name => schema_of::<$Answer>(schemas),)+ }
            }

            /// Reads a body as this operation's and writes it again: what a test compares.
            #[cfg(test)]
            pub(super) fn reread(self, answer: bool, value: serde_json::Value) -> serde_json::Result<serde_json::Value> {
                fn through<T: Serialize + DeserializeOwned>(v: serde_json::Value) -> serde_json::Result<serde_json::Value> {
                    serde_json::to_value(serde_json::from_value::<T>(v)?)
                }
                match (self, answer) { $(
                    (Self::$name, true) => through::<$Answer>(value),
                    (Self::$name, false) => through::<body!($($Body)?)>(value),
                )+ }
            }
        }

        $(
            #[doc = $summary]
            #[derive(Debug, Clone, Copy)]
            pub struct $name;

            impl Operation for $name {
                type Path = $Path;
                type Query = $Query;
                type Body = body!($($Body)?);
                type Answer = $Answer;
                const ID: OperationId = OperationId::$name;
            }
        )+
    };
}

impl OperationId {
    /// Whether it changes something at the server. GenerateFeatureGuidance and ConfirmActivationKey do not, though they
    /// are sent by POST.
    #[must_use]
    pub const fn mutates(self) -> bool {
        !matches!(self, Self::GenerateFeatureGuidance | Self::ConfirmActivationKey)
            && !matches!(self.method(), Method::Get)
    }

    /// The path under [`BASE_PATH`], with ids filled in.
    #[must_use]
    pub fn path(self, parameters: &impl PathParameters) -> String {
        // An id holds no brace, so what is filled in is never taken for a place to fill.
        parameters
            .parameters()
            .iter()
            .fold(self.template().to_owned(), |path, (key, id)| path.replace(&format!("{{{key}}}"), id))
    }
}

/// No query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoQuery {}

impl IntoParams for NoQuery {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        Vec::new()
    }
}

/// How many items a page has if nothing is said.
pub const DEFAULT_PAGE_SIZE: usize = 50;
/// How many it has at most: more is cut to this, as the specification wants.
pub const MAX_PAGE_SIZE: usize = 1_000;

/// How many items a page has, by what the caller wished: 50 if nothing, 1,000 at most. None for a negative wish.
#[must_use]
pub fn page_size(wished: Option<i32>) -> Option<usize> {
    match wished {
        None | Some(0) => Some(DEFAULT_PAGE_SIZE),
        Some(wished) => usize::try_from(wished).ok().map(|wished| wished.min(MAX_PAGE_SIZE)),
    }
}

/// Which part of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", default)]
pub struct Page {
    /// Items at most; 50 if absent, 1000 at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_size: Option<i32>,
    /// The `nextPageToken` of the page before; everything else stays as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_token: Option<String>,
}

/// A request that may be recognised when it comes again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", default)]
pub struct Request {
    /// A UUID that makes a repetition of the same request recognisable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Uuid>,
}

/// Which part of a list, with a request id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestPage {
    /// A UUID that makes a repetition of the same request recognisable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Uuid>,
    /// Items at most; 50 if absent, 1000 at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_size: Option<i32>,
    /// The `nextPageToken` of the page before; everything else stays as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_token: Option<String>,
}

macro_rules! creations {
    ($($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $field:ident: $Type:ty,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
        #[serde(rename_all = "camelCase")]
        pub struct $name { $($(#[$of])* pub $field: $Type,)+ }
    )+};
}

creations! {
    /// CreateConnection's query.
    CreateConnectionQuery {
        /// A UUID that makes a repetition of the same request recognisable.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request_id: Option<Uuid>,
        /// The last id of the new connection's name.
        #[param(value_type = String)]
        connection_id: ResourceId,
    }
    /// CreateFeature's query.
    CreateFeatureQuery {
        /// A UUID that makes a repetition of the same request recognisable.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request_id: Option<Uuid>,
        /// The last id of the new feature's name.
        #[param(value_type = String)]
        feature_id: ResourceId,
    }
    /// CreateMacSecKey's query.
    CreateMacSecKeyQuery {
        /// The last id of the new key's name.
        #[param(value_type = String)]
        mac_sec_key_id: ResourceId,
    }
    /// CreateIssue's query.
    CreateIssueQuery {
        /// The last id of the new issue's name.
        #[param(value_type = String)]
        issue_id: ResourceId,
    }
    /// UpdateConnection's query.
    UpdateConnectionQuery {
        /// A UUID that makes a repetition of the same request recognisable.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request_id: Option<Uuid>,
        /// Which fields to change, separated by commas.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[param(value_type = Option<String>, format = "fieldmask", pattern = r"^(\s*[^,\s.]+(\s*[,.]\s*[^,\s.]+)*)?$")]
        update_mask: Option<FieldMask>,
    }
    /// UpdateFeature's query. The specification gives it no request id.
    UpdateFeatureQuery {
        /// Which fields to change, separated by commas.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[param(value_type = Option<String>, format = "fieldmask", pattern = r"^(\s*[^,\s.]+(\s*[,.]\s*[^,\s.]+)*)?$")]
        update_mask: Option<FieldMask>,
    }
}

/// Fields to change, by their JSON names; in a nested one the names are joined by dots. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldMask(Vec<String>);

/// A text that is no field mask.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("updateMask holds names of fields, separated by commas")]
pub struct FieldMaskError;

impl FieldMask {
    /// A mask of these fields.
    #[must_use]
    pub fn of(fields: &[&str]) -> Self {
        Self(fields.iter().map(|field| (*field).to_owned()).collect())
    }

    /// The fields.
    #[must_use]
    pub fn fields(&self) -> &[String] {
        &self.0
    }
}

impl TryFrom<String> for FieldMask {
    type Error = FieldMaskError;
    fn try_from(text: String) -> Result<Self, FieldMaskError> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let field = |part: &str| {
            let names: Vec<&str> = part.split('.').map(str::trim).collect();
            let good = |name: &&str| !name.is_empty() && !name.contains(char::is_whitespace);
            if names.iter().all(good) { Ok(names.join(".")) } else { Err(FieldMaskError) }
        };
        text.split(',').map(field).collect::<Result<_, _>>().map(Self)
    }
}

impl From<FieldMask> for String {
    fn from(mask: FieldMask) -> Self {
        mask.0.join(",")
    }
}

operations! {
    /// Lists the providers that this server speaks for or with.
    ListProviders: Get "/providers", "Providers", ((), NoQuery) -> ListProvidersResponse;
    /// Shows a provider.
    GetProvider: Get "/providers/{provider}", "Providers", (ProviderPath, NoQuery) -> Provider;
    /// Lists the environments that the two providers share.
    ListEnvironments: Get "/providers/{provider}/environments", "Environments",
        (ProviderPath, Page) -> ListEnvironmentsResponse;
    /// Shows an environment.
    GetEnvironment: Get "/providers/{provider}/environments/{environment}", "Environments",
        (EnvironmentPath, NoQuery) -> Environment;
    /// Tells whether an activation key is good, before a connection is made from it. It uses nothing up.
    ConfirmActivationKey: Post "/providers/{provider}/environments/{environment}/ConfirmActivationKey", "Environments",
        (EnvironmentPath, NoQuery, body ConfirmActivationKeyRequest) -> ConfirmActivationKeyResponse;
    /// Shows which activation keys an environment takes, and the public key for version 2.
    GetActivationKeyParameters: Get "/providers/{provider}/environments/{environment}/activationKeyParameters",
        "Environments", (EnvironmentPath, Request) -> GetActivationKeyParametersResponse;
    /// Lists an environment's interconnects.
    ListInterconnects: Get "/providers/{provider}/environments/{environment}/interconnects", "Interconnects",
        (EnvironmentPath, Page) -> ListInterconnectsResponse;
    /// Shows an interconnect.
    GetInterconnect: Get "/providers/{provider}/environments/{environment}/interconnects/{interconnect}",
        "Interconnects", (InterconnectPath, NoQuery) -> Interconnect;
    /// Lists an interconnect's channels.
    ListChannels: Get "/providers/{provider}/environments/{environment}/interconnects/{interconnect}/channels",
        "Channels", (InterconnectPath, Page) -> ListChannelsResponse;
    /// Shows a channel.
    GetChannel: Get "/providers/{provider}/environments/{environment}/interconnects/{interconnect}/channels/{channel}",
        "Channels", (ChannelPath, NoQuery) -> Channel;
    /// Says that a channel's maintenance changed; the receiver fetches it.
    NotifyMaintenance: Post
        "/providers/{provider}/environments/{environment}/interconnects/{interconnect}/channels/{channel}/NotifyMaintenance",
        "Channels", (ChannelPath, NoQuery, body NotifyMaintenanceRequest) -> Empty;
    /// Asks the manager of a channel's MACsec keys to change the key.
    RequestMacSecKeyRotation: Post
        "/providers/{provider}/environments/{environment}/interconnects/{interconnect}/channels/{channel}/RequestMacSecKeyRotation",
        "Channels", (ChannelPath, NoQuery, body MacSecKeyRotationRequest) -> Empty;
    /// Lists a channel's maintenance, planned and under way.
    GetMaintenanceEvents: Get
        "/providers/{provider}/environments/{environment}/interconnects/{interconnect}/channels/{channel}/maintenanceEvents",
        "Channels", (ChannelPath, NoQuery) -> GetMaintenanceEventsResponse;
    /// Gives a channel another MACsec key.
    CreateMacSecKey: Post
        "/providers/{provider}/environments/{environment}/interconnects/{interconnect}/channels/{channel}/macSecKeys",
        "MacSecKey", (ChannelPath, CreateMacSecKeyQuery, body MacSecKey) -> MacSecKey;
    /// Lists a channel's MACsec keys.
    ListMacSecKeys: Get
        "/providers/{provider}/environments/{environment}/interconnects/{interconnect}/channels/{channel}/macSecKeys",
        "MacSecKey", (ChannelPath, NoQuery) -> ListMacSecKeysResponse;
    /// Shows a MACsec key.
    GetMacSecKey: Get
        "/providers/{provider}/environments/{environment}/interconnects/{interconnect}/channels/{channel}/macSecKeys/{macSecKey}",
        "MacSecKey", (MacSecKeyPath, NoQuery) -> MacSecKey;
    /// Deletes a MACsec key that is not active.
    DeleteMacSecKey: Delete
        "/providers/{provider}/environments/{environment}/interconnects/{interconnect}/channels/{channel}/macSecKeys/{macSecKey}",
        "MacSecKey", (MacSecKeyPath, NoQuery) -> Empty;
    /// Lists an interconnect's connections.
    ListConnections: Get
        "/providers/{provider}/environments/{environment}/interconnects/{interconnect}/connections",
        "Connections", (InterconnectPath, RequestPage) -> ListConnectionsResponse;
    /// Creates a connection. The caller has created its own before; 409: it is there already, or there is no room.
    CreateConnection: Post
        "/providers/{provider}/environments/{environment}/interconnects/{interconnect}/connections",
        "Connections", (InterconnectPath, CreateConnectionQuery, body Connection) -> Connection;
    /// Shows a connection.
    GetConnection: Get
        "/providers/{provider}/environments/{environment}/interconnects/{interconnect}/connections/{connection}",
        "Connections", (ConnectionPath, Request) -> Connection;
    /// Changes a connection's bandwidth; 409: a change is under way.
    UpdateConnection: Patch
        "/providers/{provider}/environments/{environment}/interconnects/{interconnect}/connections/{connection}",
        "Connections", (ConnectionPath, UpdateConnectionQuery, body Connection) -> Connection;
    /// Deletes a connection and its features. It cannot be declined.
    DeleteConnection: Delete
        "/providers/{provider}/environments/{environment}/interconnects/{interconnect}/connections/{connection}",
        "Connections", (ConnectionPath, Request) -> Empty;
    /// Tells what features of a connection the server would take, channel by channel.
    GenerateFeatureGuidance: Post
        "/providers/{provider}/environments/{environment}/interconnects/{interconnect}/connections/{connection}/GenerateFeatureGuidance",
        "Connections", (ConnectionPath, Request, body GenerateFeatureGuidanceRequest) -> GenerateFeatureGuidanceResponse;
    /// Says that a connection's state changed; the receiver reads it at once.
    NotifyConnectionStatus: Post
        "/providers/{provider}/environments/{environment}/interconnects/{interconnect}/connections/{connection}/NotifyConnectionStatus",
        "Connections", (ConnectionPath, Request, body NotifyConnectionStatusRequest) -> Empty;
    /// Lists a connection's features.
    ListFeatures: Get
        "/providers/{provider}/environments/{environment}/interconnects/{interconnect}/connections/{connection}/features",
        "Features", (ConnectionPath, RequestPage) -> ListFeaturesResponse;
    /// Creates a feature: taken whole or refused whole. 400: the guidance was not followed; 409: another was faster.
    CreateFeature: Post
        "/providers/{provider}/environments/{environment}/interconnects/{interconnect}/connections/{connection}/features",
        "Features", (ConnectionPath, CreateFeatureQuery, body Feature) -> Feature;
    /// Shows a feature.
    GetFeature: Get
        "/providers/{provider}/environments/{environment}/interconnects/{interconnect}/connections/{connection}/features/{feature}",
        "Features", (FeaturePath, Request) -> Feature;
    /// Changes a feature; 405 for a layer 3 feature, which never changes.
    UpdateFeature: Patch
        "/providers/{provider}/environments/{environment}/interconnects/{interconnect}/connections/{connection}/features/{feature}",
        "Features", (FeaturePath, UpdateFeatureQuery, body Feature) -> Feature;
    /// Deletes a feature.
    DeleteFeature: Delete
        "/providers/{provider}/environments/{environment}/interconnects/{interconnect}/connections/{connection}/features/{feature}",
        "Features", (FeaturePath, Request) -> Empty;
    /// Lists issues.
    ListIssues: Get "/providers/{provider}/issues", "Issues", (ProviderPath, Page) -> ListIssuesResponse;
    /// Creates an issue.
    CreateIssue: Post "/providers/{provider}/issues", "Issues", (ProviderPath, CreateIssueQuery, body Issue) -> Issue;
    /// Shows an issue.
    GetIssue: Get "/providers/{provider}/issues/{issue}", "Issues", (IssuePath, NoQuery) -> Issue;
    /// Closes an issue.
    CloseIssue: Post "/providers/{provider}/issues/{issue}/Close", "Issues",
        (IssuePath, NoQuery, body CloseIssueRequest) -> Issue;
    /// Lists an issue's comments, the newest first.
    ListComments: Get "/providers/{provider}/issues/{issue}/comments", "Issues",
        (IssuePath, Page) -> ListCommentsResponse;
    /// Adds a comment to an issue.
    AddComment: Post "/providers/{provider}/issues/{issue}/AddComment", "Issues",
        (IssuePath, NoQuery, body AddCommentRequest) -> AddCommentResponse;
}
