//! AWS Direct Connect.
//!
//! `POST /` with `X-Amz-Target: OvertureService.<Operation>` and a JSON body (awsJson1.1), as in the service's model
//! (API version 2012-10-25). Every request's Signature Version 4 is checked against the one known key; its age is not.
//!
//! Simulated: private virtual interfaces on LAGs and to Direct Connect gateways, BGP peers, tags, and everything that reads
//! them. IPv6 peers have addresses and states but no session in the lab's network, so their `bgpStatus` is `unknown`.
//! Connections, LAGs and gateways exist beforehand and are never made or deleted here.

mod peers;
mod reads;
mod state;
mod strangers;
mod tags;
mod views;
mod vifs;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, Uri},
    response::Response,
    routing::post,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    clock::Clock,
    draw::Draw,
    network::Network,
    server::{self, ServeError},
    settings::CloudSettings,
    sim::{Running, Sim},
    world::AwsWorld,
};
use state::Aws;
use wire::{AwsError, Words};

/// The prefix of every `X-Amz-Target`.
const TARGET: &str = "OvertureService.";

struct Api {
    sim: Arc<Sim<Aws>>,
    region: String,
    request_ids: Mutex<Draw>,
}

/// Starts the simulator of one AWS account and region on a loopback port.
///
/// # Errors
/// [`ServeError`] where no port can be had or the world contradicts itself.
pub async fn serve(
    settings: CloudSettings,
    world: AwsWorld,
    network: Arc<dyn Network>,
    clock: Arc<dyn Clock>,
) -> Result<Running, ServeError> {
    check(&world)?;
    let seed = settings.seed;
    let state = Aws::new(&world, &settings, clock.now());
    let sim = Sim::new(state, settings, network, clock);
    let api = Api { sim: Arc::clone(&sim), region: world.region, request_ids: Mutex::new(Draw::new(!seed)) };
    server::start(sim, Router::new().route("/", post(handle)).with_state(Arc::new(api))).await
}

fn check(world: &AwsWorld) -> Result<(), ServeError> {
    if world.account.len() != 12 || !world.account.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ServeError::World(format!("AWS account {:?} is not 12 digits", world.account)));
    }
    for (i, lag) in world.lags.iter().enumerate() {
        if !lag.id.starts_with("dxlag-") {
            return Err(ServeError::World(format!("LAG id {:?} does not begin with dxlag-", lag.id)));
        }
        if world.lags[..i].iter().any(|other| other.id == lag.id || other.device == lag.device) {
            return Err(ServeError::World(format!("LAG {} shares its id or its device with another one", lag.id)));
        }
    }
    Ok(())
}

async fn handle(State(api): State<Arc<Api>>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let request_id = api.request_ids.lock().unwrap_or_else(PoisonError::into_inner).uuid();
    let words = Words { request_id: &request_id };
    let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let operation = target.strip_prefix(TARGET).unwrap_or(target);
    if let Err(refusal) = wire::authenticate(&api.sim.settings, &api.region, &method, &uri, &headers, &body) {
        return wire::answer(&request_id, Err(refusal));
    }
    let run = async {
        api.sim.settle().await;
        wire::answer(&request_id, api.perform(operation, &body).await)
    };
    let reads = ["Describe", "List", "Get"].iter().any(|verb| operation.starts_with(verb));
    api.sim.call(operation, !reads, &words, run).await
}

/// Decodes a request body. A body that does not fit its shape never reaches the service.
fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, AwsError> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| AwsError::new(400, "SerializationException", error.to_string()))
}

impl Api {
    async fn perform(&self, operation: &str, body: &[u8]) -> Result<Value, AwsError> {
        match operation {
            "DescribeLags" => self.describe_lags(decode(body)?).await,
            "DescribeConnections" => self.describe_connections(decode(body)?).await,
            "DescribeDirectConnectGateways" => self.describe_gateways(&decode(body)?),
            "DescribeDirectConnectGatewayAssociations" => self.describe_associations(&decode(body)?),
            "DescribeDirectConnectGatewayAttachments" => self.describe_attachments(&decode(body)?),
            "DescribeVirtualInterfaces" => self.describe_virtual_interfaces(decode(body)?).await,
            "ListVirtualInterfaceRoutes" => self.list_routes(decode(body)?).await,
            "DescribeTags" => self.describe_tags(&decode(body)?),
            "TagResource" => self.tag_resource(decode(body)?),
            "UntagResource" => self.untag_resource(&decode(body)?),
            "CreatePrivateVirtualInterface" => self.create_private(decode(body)?).await,
            "UpdateVirtualInterfaceAttributes" => self.update_attributes(decode(body)?).await,
            "DeleteVirtualInterface" => self.delete_interface(&decode(body)?),
            "CreateBGPPeer" => self.create_peer(decode(body)?).await,
            "DeleteBGPPeer" => self.delete_peer(decode(body)?).await,
            _ => Err(AwsError::new(400, "UnknownOperationException", format!("{operation} is not simulated"))),
        }
    }
}
