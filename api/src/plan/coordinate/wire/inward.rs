//! What comes: the peer's requests, and its answers to ours.

use tieline_openapi::coordinator::{
    ActivationKey, ChannelPath, ConfirmActivationKeyRequest, Connection, ConnectionPath, ConnectionType,
    EnvironmentPath, Feature, FeaturePath, FeatureType, FieldMask, InterconnectPath, L3Base, ProvisioningState,
    ResourceId, Sensitive, SourceData, VerificationState, decode_key,
};
use uuid::Uuid;

use super::{
    super::{
        serve::{Reply, SeenFeature},
        state::{Book, IssuedKey, Kind, Place, Source},
        step::Ask,
    },
    WireError, key_digest, place_of, wrong,
};

fn bandwidth(connection: &Connection) -> Result<u32, WireError> {
    let mbps = connection.bandwidth_mbps.ok_or_else(|| wrong("bandwidthMbps", "is required"))?;
    let mbps = u32::try_from(mbps).ok().filter(|mbps| *mbps > 0);
    mbps.ok_or_else(|| wrong("bandwidthMbps", "is a number of Mbit/s above 0"))
}

fn kind(connection: &Connection) -> Result<Kind, WireError> {
    match &connection.connection_type {
        None | Some(ConnectionType::Standard) => Ok(Kind::Standard),
        Some(ConnectionType::Test) => Ok(Kind::Test),
        Some(ConnectionType::Monitoring) => Ok(Kind::Monitoring),
        Some(ConnectionType::Other(other)) => Err(wrong("connectionType", format!("`{other}` is not known here"))),
    }
}

fn key(text: &Sensitive, field: &'static str) -> Result<ActivationKey, WireError> {
    decode_key(text).map_err(|error| wrong(field, error.to_string()))
}

impl Book {
    fn issued(&self, key: &ActivationKey) -> Option<&IssuedKey> {
        let digest = key_digest(key);
        self.keys.values().find(|issued| issued.digest == digest)
    }

    /// Reads ConfirmActivationKey. A key that was never issued is asked about by a UUID that nobody has.
    ///
    /// # Errors
    /// [`WireError`] where no key stands in the request, or what stands there is none.
    pub fn read_confirm(
        &self,
        path: &EnvironmentPath,
        request: &ConfirmActivationKeyRequest,
    ) -> Result<Ask, WireError> {
        let brought = match (&request.encoded_key, &request.key) {
            (Some(text), _) => key(text, "encodedKey")?,
            (None, Some(key)) => key.clone(),
            (None, None) => return Err(wrong("encodedKey", "is required")),
        };
        let issued = self.issued(&brought);
        Ok(Ask::Confirm {
            environment: path.environment.clone(),
            key: issued.map_or(Uuid::nil(), |issued| issued.uuid),
            bandwidth_mbps: issued.map_or(0, |issued| issued.bandwidth_mbps),
        })
    }

    /// Reads CreateConnection. `path` is the caller's: a source is a connection of the same caller.
    ///
    /// # Errors
    /// [`WireError`] naming the field that is wrong.
    pub fn read_create(
        &self,
        path: &InterconnectPath,
        connection_id: ResourceId,
        request_id: Uuid,
        body: &Connection,
    ) -> Result<Ask, WireError> {
        let place = place_of(&path.connection(connection_id));
        let bandwidth_mbps = bandwidth(body)?;
        let (source, uuid) = match (&body.source_data, &body.activation_key) {
            (Some(SourceData::Key(source)), _) => self.by_key(&place, &key(&source.encoded_key, "sourceData")?),
            (None, Some(text)) => self.by_key(&place, &key(text, "activationKey")?),
            (Some(SourceData::Connection(source)), _) => {
                let name: ConnectionPath =
                    source.source_connection_name.parse().map_err(|e| wrong("sourceData", format!("{e}")))?;
                if name.provider != path.provider {
                    return Err(wrong("sourceData", "the source is a connection of another provider"));
                }
                let from = place_of(&name);
                let uuid = self.rows.get(&from).map_or(Uuid::nil(), |row| row.uuid);
                (Source::Connection(from), uuid)
            }
            (None, None) => return Err(wrong("sourceData", "is required")),
        };
        Ok(Ask::Create {
            place,
            source,
            uuid,
            bandwidth_mbps,
            kind: kind(body)?,
            defer: body.defer_provisioning.unwrap_or(false),
            request_id,
        })
    }

    /// What a connection is made from, by the key that stands in the request. A peer of the published revision moves a
    /// connection by creating it a second time, elsewhere and from the same key.
    fn by_key(&self, place: &Place, key: &ActivationKey) -> (Source, Uuid) {
        let Some(issued) = self.issued(key) else { return (Source::Key(Uuid::nil()), Uuid::nil()) };
        let elsewhere = |from: &&Place| {
            from.environment == place.environment && from.interconnect != place.interconnect && issued.spent
        };
        let mut at = self.rows.values().filter(|row| row.uuid == issued.uuid).map(|row| &row.place);
        match at.find(elsewhere) {
            Some(from) => (Source::Connection(from.clone()), issued.uuid),
            None => (Source::Key(issued.uuid), issued.uuid),
        }
    }
}

/// Reads UpdateConnection: the new bandwidth, which is all that may be changed.
///
/// # Errors
/// [`WireError`] where the mask names anything else.
pub fn read_update(mask: Option<&FieldMask>, body: &Connection) -> Result<u32, WireError> {
    let fields = mask.map(FieldMask::fields).unwrap_or_default();
    match fields.iter().find(|field| field.as_str() != "bandwidthMbps") {
        Some(other) => Err(wrong("updateMask", format!("`{other}` cannot be changed: bandwidthMbps can"))),
        None => bandwidth(body),
    }
}

/// Reads a feature's channel and configuration, for a pair of providers. The channel is one of `on`.
///
/// # Errors
/// [`WireError`] naming the field that is wrong.
pub fn read_feature(
    on: &InterconnectPath,
    providers: [&str; 2],
    body: &Feature,
) -> Result<(ResourceId, L3Base), WireError> {
    let channel = body.channel.as_deref().ok_or_else(|| wrong("channel", "is required"))?;
    let channel: ChannelPath = channel.parse().map_err(|e| wrong("channel", format!("{e}")))?;
    if on.channel(channel.channel.clone()) != channel {
        return Err(wrong("channel", "the channel is not one of the connection's interconnect"));
    }
    let config = body.feature_config.as_ref().ok_or_else(|| wrong("featureConfig", "is required"))?;
    match &config.feature_type {
        Some(FeatureType::L3Base) => {}
        Some(FeatureType::Other(other)) => return Err(wrong("featureConfig", format!("`{other}` is not known here"))),
        None => return Err(wrong("featureConfig", "featureType is required")),
    }
    let l3 = config.l3_base_config.as_ref().ok_or_else(|| wrong("featureConfig", "l3BaseConfig is required"))?;
    let config = l3.check(providers).map_err(|error| wrong("featureConfig", error.to_string()))?;
    Ok((channel.channel, config))
}

/// Reads what a server shows of a connection: GetConnection's answer, and all of ListFeatures. A feature of a kind that is
/// not known here is none of ours.
///
/// # Errors
/// [`WireError`] where something that is needed is not there, or breaks a rule: nothing is concluded from such an answer.
pub fn read_seen(
    path: &ConnectionPath,
    providers: [&str; 2],
    connection: &Connection,
    features: &[Feature],
) -> Result<Reply, WireError> {
    let is_ours = |feature: &&Feature| {
        let kind = feature.feature_config.as_ref().and_then(|config| config.feature_type.as_ref());
        !matches!(kind, Some(FeatureType::Other(_)))
    };
    let seen = |feature: &Feature| {
        let name = feature.name.as_deref().ok_or_else(|| wrong("name", "is required"))?;
        let name: FeaturePath = name.parse().map_err(|e| wrong("name", format!("{e}")))?;
        let (channel, config) = read_feature(&path.parent(), providers, feature)?;
        let is_final = feature.provisioning_state == Some(ProvisioningState::Final);
        Ok(SeenFeature { id: name.feature, channel, config, is_final })
    };
    Ok(Reply::Seen {
        bandwidth_mbps: bandwidth(connection)?,
        verified: connection.verification_state == Some(VerificationState::Verified),
        features: features.iter().filter(is_ours).map(seen).collect::<Result<_, WireError>>()?,
    })
}
