//! We ask: a question of the protocol as calls on the wire, and their answer as an answer of the protocol.

use tieline_openapi::{
    client::coordinator::{CallVerdict, CoordinatorError},
    coordinator::{
        ConfirmActivationKey, ConfirmActivationKeyRequest, CreateConnection, CreateConnectionQuery, CreateFeature,
        CreateFeatureQuery, DeleteConnection, DeleteFeature, FieldMask, GenerateFeatureGuidance,
        GenerateFeatureGuidanceRequest, GetConnection, ListFeatures, NoBody, NoQuery, NotifyConnectionStatus,
        NotifyConnectionStatusRequest, Request, Sensitive, UpdateConnection, UpdateConnectionQuery,
    },
};

use super::{Coordination, Peer, proof::GiveError};
use crate::plan::coordinate::{
    Ask, Place, Refusal, Reply,
    wire::{self, WireError},
};

/// A connection has one feature a channel; a list that does not end is an answer that was lost.
const FEATURES: usize = 10_000;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    /// It was not asked, or did not answer.
    #[error(transparent)]
    Call(#[from] CoordinatorError),
    /// It answered something that cannot be acted upon.
    #[error("the peer's answer breaks a rule")]
    Wire(#[from] WireError),
    /// The account that it is for cannot be proved.
    #[error(transparent)]
    Proof(#[from] GiveError),
    /// The key that the customer brought is not there any more.
    #[error("the activation key's text is gone")]
    NoKey,
}

impl Coordination {
    /// Asks a peer. A refusal is an answer; everything that tells nothing is none.
    pub(super) async fn ask(&self, peer: &Peer, ask: &Ask, key: Option<&Sensitive>) -> Result<Reply, NoAnswer> {
        match self.ask_on_wire(peer, ask, key).await {
            Err(NoAnswer::Call(error)) if error.verdict() == CallVerdict::Refused => {
                let refused = |r: &tieline_openapi::client::coordinator::Refusal| {
                    Reply::Refused(Refusal { status: r.status, rule: r.text.clone() })
                };
                error.refusal().map(refused).ok_or(NoAnswer::Call(error))
            }
            other => other,
        }
    }

    async fn ask_on_wire(&self, peer: &Peer, ask: &Ask, key: Option<&Sensitive>) -> Result<Reply, NoAnswer> {
        let (us, client) = (self.us(), &self.client_for(peer, ask).await?);
        let once = |request_id: &uuid::Uuid| Request { request_id: Some(*request_id) };
        match ask {
            Ask::Confirm { environment, .. } => {
                let body =
                    ConfirmActivationKeyRequest { encoded_key: Some(key.ok_or(NoAnswer::NoKey)?.clone()), key: None };
                let path = wire::environment_path(us, environment);
                let answer = client.call::<ConfirmActivationKey>(&path, &NoQuery {}, &body).await?;
                return Ok(Reply::Key(answer.key_valid.unwrap_or(false)));
            }
            Ask::Create { place, source, bandwidth_mbps, kind, defer, request_id, .. } => {
                let body = wire::creation_of(us, source, key, *bandwidth_mbps, *kind, *defer);
                let query =
                    CreateConnectionQuery { request_id: Some(*request_id), connection_id: place.connection.clone() };
                client.call::<CreateConnection>(&wire::interconnect_path(us, place), &query, &body).await?;
            }
            Ask::Look { place, .. } => return self.look(peer, place).await,
            Ask::Resize { place, to_mbps, request_id } => {
                let query = UpdateConnectionQuery {
                    request_id: Some(*request_id),
                    update_mask: Some(FieldMask::of(&["bandwidthMbps"])),
                };
                let body = wire::resize_of(*to_mbps);
                client.call::<UpdateConnection>(&wire::connection_path(us, place), &query, &body).await?;
            }
            Ask::Delete { place, request_id } => {
                let path = wire::connection_path(us, place);
                client.call::<DeleteConnection>(&path, &once(request_id), &NoBody {}).await?;
            }
            Ask::Guidance { place } => {
                let path = wire::connection_path(us, place);
                let body = GenerateFeatureGuidanceRequest {};
                let answer = client.call::<GenerateFeatureGuidance>(&path, &Request::default(), &body).await?;
                return Ok(Reply::Guidance(wire::read_guidance(&path.parent(), &answer.feature_guidance)?));
            }
            Ask::CreateFeature { place, channel, feature, config, request_id } => {
                let query = CreateFeatureQuery { request_id: Some(*request_id), feature_id: feature.clone() };
                let body = wire::feature_of(us, place, channel, feature, config, None);
                client.call::<CreateFeature>(&wire::connection_path(us, place), &query, &body).await?;
            }
            Ask::DeleteFeature { place, feature, request_id } => {
                let path = wire::connection_path(us, place).feature(feature.clone());
                client.call::<DeleteFeature>(&path, &once(request_id), &NoBody {}).await?;
            }
            Ask::Notify { place, request_id, .. } => {
                let path = wire::connection_path(us, place);
                let body = NotifyConnectionStatusRequest {};
                client.call::<NotifyConnectionStatus>(&path, &once(request_id), &body).await?;
            }
        }
        Ok(Reply::Done)
    }

    /// Two reads: the connection, and all its features.
    async fn look(&self, peer: &Peer, place: &Place) -> Result<Reply, NoAnswer> {
        let path = wire::connection_path(self.us(), place);
        let connection = peer.client.call::<GetConnection>(&path, &Request::default(), &NoBody {}).await?;
        let features = peer.client.all::<ListFeatures>(&path, FEATURES).await?;
        Ok(wire::read_seen(&path, [&peer.terms.us, &peer.terms.them], &connection, &features)?)
    }
}
