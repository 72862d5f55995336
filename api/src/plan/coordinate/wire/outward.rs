//! What is sent: requests to the peer, and answers to it.

use tieline_openapi::coordinator::{
    AdminState, Connection, EncodedKey, Feature, FeatureConfig, FeatureType, L3Base, ProvisioningState, ResourceId,
    Sensitive, SourceConnectionName, SourceData, VerificationState,
};

use super::{
    super::{
        serve::SeenFeature,
        state::{Kind, Place, Source},
    },
    connection_path, interconnect_path,
};

/// CreateConnection's body. `key` is the text that the customer brought, for a connection that is made from one.
#[must_use]
pub fn creation_of(
    caller: &ResourceId,
    source: &Source,
    key: Option<&Sensitive>,
    bandwidth_mbps: u32,
    kind: Kind,
    defer: bool,
) -> Connection {
    let source_data = match source {
        Source::Key(_) => key.map(|key| SourceData::Key(EncodedKey { encoded_key: key.clone() })),
        Source::Connection(from) => {
            let source_connection_name = connection_path(caller, from).to_string();
            Some(SourceData::Connection(SourceConnectionName { source_connection_name }))
        }
    };
    Connection {
        // A peer of the published revision knows only the older field.
        activation_key: key.filter(|_| matches!(source, Source::Key(_))).cloned(),
        source_data,
        bandwidth_mbps: Some(mbps(bandwidth_mbps)),
        defer_provisioning: defer.then_some(true),
        connection_type: Some(kind.into()),
        ..Connection::default()
    }
}

/// UpdateConnection's body.
#[must_use]
pub fn resize_of(to_mbps: u32) -> Connection {
    Connection { bandwidth_mbps: Some(mbps(to_mbps)), ..Connection::default() }
}

/// A connection as a server shows it.
#[must_use]
pub fn connection_of(
    caller: &ResourceId,
    place: &Place,
    bandwidth_mbps: u32,
    kind: Option<Kind>,
    verified: bool,
) -> Connection {
    let state = if verified { VerificationState::Verified } else { VerificationState::Unverified };
    Connection {
        name: Some(connection_path(caller, place).to_string()),
        bandwidth_mbps: Some(mbps(bandwidth_mbps)),
        admin_state: Some(AdminState::Enabled),
        verification_state: Some(state),
        connection_type: kind.map(Into::into),
        ..Connection::default()
    }
}

/// A feature: CreateFeature's body, and with its state as a server shows it.
#[must_use]
pub fn feature_of(
    caller: &ResourceId,
    place: &Place,
    channel: &ResourceId,
    id: &ResourceId,
    config: &L3Base,
    is_final: Option<bool>,
) -> Feature {
    let state = |is_final| if is_final { ProvisioningState::Final } else { ProvisioningState::Pending };
    Feature {
        name: Some(connection_path(caller, place).feature(id.clone()).to_string()),
        channel: Some(interconnect_path(caller, place).channel(channel.clone()).to_string()),
        feature_config: Some(FeatureConfig {
            feature_type: Some(FeatureType::L3Base),
            l3_base_config: Some(config.to_config()),
        }),
        provisioning_state: is_final.map(state),
        // A layer 3 feature is immutable (the specification's rule).
        updatable: is_final.map(|_| false),
    }
}

/// A feature of a look.
#[must_use]
pub fn seen_feature(caller: &ResourceId, place: &Place, seen: &SeenFeature) -> Feature {
    feature_of(caller, place, &seen.channel, &seen.id, &seen.config, Some(seen.is_final))
}

fn mbps(mbps: u32) -> i32 {
    // A bandwidth is at most 800,000.
    i32::try_from(mbps).unwrap_or(i32::MAX)
}
