//! ActivationKey: what a customer carries from one provider to the other.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_with::skip_serializing_none;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, OneOfBuilder, Ref, RefOr, Schema,
        schema::{Discriminator, KnownFormat, SchemaFormat, Type},
    },
};
use uuid::Uuid;

use super::Sensitive;
use crate::units::BandwidthMbps;

/// The `version` of a key: one number, and no other is read for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyVersion<const N: i32>;

impl<const N: i32> Serialize for KeyVersion<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i32(N)
    }
}

impl<'de, const N: i32> Deserialize<'de> for KeyVersion<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let version = i32::deserialize(deserializer)?;
        if version == N { Ok(Self) } else { Err(de::Error::custom(format!("version is {version} and not {N}"))) }
    }
}

impl<const N: i32> PartialSchema for KeyVersion<N> {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
            .enum_values(Some([N]))
            .into()
    }
}

/// A key in clear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActivationKeyV1 {
    /// 1.
    #[schema(schema_with = KeyVersion::<1>::schema)]
    pub version: KeyVersion<1>,
    /// The environment where the key is to be used.
    pub destination_environment_uri: String,
    /// The UUID that both providers know the connection by.
    pub shared_connection_uuid: String,
    /// The connection's bandwidth in Mbit/s.
    pub connection_size_mbps: i32,
    /// The customer's account at the other provider: only its users may bring the key.
    pub destination_account_id: String,
}

/// A key whose contents only the destination environment can read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActivationKeyV2 {
    /// 2.
    #[schema(schema_with = KeyVersion::<2>::schema)]
    pub version: KeyVersion<2>,
    /// The environment where the key is to be used.
    pub destination_environment_uri: String,
    /// Base64 of an [`ActivationKeyEncryptedPayload`] as JSON, encrypted to the environment's public key.
    #[schema(format = Byte)]
    pub encrypted_contents: String,
}

/// What a key of version 2 hides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActivationKeyEncryptedPayload {
    /// The UUID that both providers know the connection by.
    pub shared_connection_uuid: String,
    /// The connection's bandwidth in Mbit/s.
    pub connection_size_mbps: i32,
    /// The customer's account at the other provider.
    pub destination_account_id: String,
}

/// A key. It travels as base64 of its JSON: see [`super::decode_key`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActivationKey {
    /// Version 1.
    V1(ActivationKeyV1),
    /// Version 2.
    V2(ActivationKeyV2),
    /// A version that is not known, or one of the above without what it must hold. The published revision bounds `version`
    /// nowhere, so reading it is no error; such a key is never valid.
    Other {
        /// Its version.
        version: i32,
        /// The environment where it is to be used.
        destination_environment_uri: String,
    },
}

impl ActivationKey {
    /// The environment where the key is to be used: in clear in every version.
    #[must_use]
    pub fn destination_environment_uri(&self) -> &str {
        match self {
            Self::V1(key) => &key.destination_environment_uri,
            Self::V2(key) => &key.destination_environment_uri,
            Self::Other { destination_environment_uri, .. } => destination_environment_uri,
        }
    }
}

/// Every field that any version has.
#[skip_serializing_none]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnyVersion {
    version: i32,
    destination_environment_uri: String,
    shared_connection_uuid: Option<String>,
    connection_size_mbps: Option<i32>,
    destination_account_id: Option<String>,
    encrypted_contents: Option<String>,
}

impl Serialize for ActivationKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::V1(key) => key.serialize(serializer),
            Self::V2(key) => key.serialize(serializer),
            Self::Other { version, destination_environment_uri } => AnyVersion {
                version: *version,
                destination_environment_uri: destination_environment_uri.clone(),
                shared_connection_uuid: None,
                connection_size_mbps: None,
                destination_account_id: None,
                encrypted_contents: None,
            }
            .serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ActivationKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let any = AnyVersion::deserialize(deserializer)?;
        let destination_environment_uri = any.destination_environment_uri;
        let clear = (any.shared_connection_uuid, any.connection_size_mbps, any.destination_account_id);
        Ok(match (any.version, clear, any.encrypted_contents) {
            (1, (Some(shared_connection_uuid), Some(connection_size_mbps), Some(destination_account_id)), _) => {
                Self::V1(ActivationKeyV1 {
                    version: KeyVersion,
                    destination_environment_uri,
                    shared_connection_uuid,
                    connection_size_mbps,
                    destination_account_id,
                })
            }
            (2, _, Some(encrypted_contents)) => {
                Self::V2(ActivationKeyV2 { version: KeyVersion, destination_environment_uri, encrypted_contents })
            }
            (version, _, _) => Self::Other { version, destination_environment_uri },
        })
    }
}

impl PartialSchema for ActivationKey {
    fn schema() -> RefOr<Schema> {
        let versions = ["ActivationKeyV1", "ActivationKeyV2"].map(|name| Ref::from_schema_name(name).ref_location);
        let mapping = ["1", "2"].into_iter().zip(versions);
        OneOfBuilder::new()
            .schema_type(Type::Object)
            .item(Ref::from_schema_name("ActivationKeyV1"))
            .item(Ref::from_schema_name("ActivationKeyV2"))
            .discriminator(Some(Discriminator::with_mapping("version", mapping)))
            .description(Some("A key. It travels as base64 of its JSON."))
            // The builder knows no `required` beside a `oneOf`; as a keyword it stands where it belongs.
            .extensions(Some([("required", vec!["version", "destinationEnvironmentUri"])].into_iter().collect()))
            .into()
    }
}

impl ToSchema for ActivationKey {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push(("ActivationKeyV1".to_owned(), ActivationKeyV1::schema()));
        schemas.push(("ActivationKeyV2".to_owned(), ActivationKeyV2::schema()));
    }
}

/// What every key says, read strictly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyContents {
    /// The UUID that both providers know the connection by.
    pub shared_connection_uuid: Uuid,
    /// The connection's bandwidth.
    pub bandwidth: BandwidthMbps,
    /// The customer's account at the other provider.
    pub destination_account_id: String,
}

/// The longest account id that fits into an RSA-OAEP-256 message under a 2048-bit key (190 bytes) beside the rest.
pub const MAX_ACCOUNT_ID_BYTES: usize = 64;

/// Which part of a key's contents is no good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyContentsError {
    /// The UUID.
    #[error("sharedConnectionUuid is no UUID")]
    Uuid,
    /// The bandwidth.
    #[error("connectionSizeMbps is no bandwidth")]
    Bandwidth,
    /// The account.
    #[error("destinationAccountId has 1 to 64 printable ASCII characters")]
    Account,
}

impl KeyContents {
    fn read(uuid: &str, mbps: i32, account: &str) -> Result<Self, KeyContentsError> {
        let bandwidth = u64::try_from(mbps).ok().and_then(|mbps| BandwidthMbps::try_from(mbps).ok());
        let plain =
            (1..=MAX_ACCOUNT_ID_BYTES).contains(&account.len()) && account.bytes().all(|b| b.is_ascii_graphic());
        Ok(Self {
            shared_connection_uuid: Uuid::try_parse(uuid).map_err(|_| KeyContentsError::Uuid)?,
            bandwidth: bandwidth.ok_or(KeyContentsError::Bandwidth)?,
            destination_account_id: plain.then(|| account.to_owned()).ok_or(KeyContentsError::Account)?,
        })
    }

    /// What a key in clear says.
    ///
    /// # Errors
    /// [`KeyContentsError`] naming the part that is no good.
    pub fn of_v1(key: &ActivationKeyV1) -> Result<Self, KeyContentsError> {
        Self::read(&key.shared_connection_uuid, key.connection_size_mbps, &key.destination_account_id)
    }

    /// What a decrypted payload says.
    ///
    /// # Errors
    /// [`KeyContentsError`] naming the part that is no good.
    pub fn of_payload(payload: &ActivationKeyEncryptedPayload) -> Result<Self, KeyContentsError> {
        Self::read(&payload.shared_connection_uuid, payload.connection_size_mbps, &payload.destination_account_id)
    }

    /// A key in clear that says this.
    #[must_use]
    pub fn to_v1(&self, destination_environment_uri: &str) -> ActivationKeyV1 {
        let ActivationKeyEncryptedPayload { shared_connection_uuid, connection_size_mbps, destination_account_id } =
            self.to_payload();
        ActivationKeyV1 {
            version: KeyVersion,
            destination_environment_uri: destination_environment_uri.to_owned(),
            shared_connection_uuid,
            connection_size_mbps,
            destination_account_id,
        }
    }

    /// The payload of an encrypted key that says this.
    #[must_use]
    pub fn to_payload(&self) -> ActivationKeyEncryptedPayload {
        ActivationKeyEncryptedPayload {
            shared_connection_uuid: self.shared_connection_uuid.to_string(),
            // A bandwidth is below 800,000.
            connection_size_mbps: i32::try_from(self.bandwidth.get()).unwrap_or(i32::MAX),
            destination_account_id: self.destination_account_id.clone(),
        }
    }
}

impl ActivationKey {
    /// The key as a customer carries it.
    #[must_use]
    pub fn encode(&self) -> Sensitive {
        super::encode_key(self)
    }
}
