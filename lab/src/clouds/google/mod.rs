//! The part of Google Compute Engine's REST API (v1) that deals with interconnects and Cloud Routers.
//!
//! `interconnects` list and get; `interconnectAttachments` insert, get, list, patch and delete (of the type `DEDICATED`,
//! IPv4, also on Cross-Cloud Interconnect); `routers` get, list, patch, update and getRouterStatus; `regionOperations` get, list and wait;
//! `globalOperations` get. Everything else is a 404. One project and one region exist.
//!
//! Mutations answer an operation, and become true when it is `DONE`. A router's patch replaces whole arrays, has no
//! fingerprint, and is refused with `resourceNotReady` while another operation is at work on the router.

mod attachments;
mod handlers;
mod names;
mod operations;
mod query;
mod resources;
mod routers;
mod state;
mod status;
mod strangers;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{
    clock::Clock,
    network::Network,
    server::{self, ServeError},
    settings::CloudSettings,
    sim::{Running, Sim},
    world::GoogleWorld,
};
use state::Google;

/// Starts the simulator of one Google project and region on a loopback port.
///
/// # Errors
/// [`ServeError`] where no port can be had or the world contradicts itself.
pub async fn serve(
    settings: CloudSettings,
    world: GoogleWorld,
    network: Arc<dyn Network>,
    clock: Arc<dyn Clock>,
) -> Result<Running, ServeError> {
    check(&world)?;
    let state = Google::new(&world, &settings, clock.now());
    let sim = Sim::new(state, settings, network, clock);
    server::start(Arc::clone(&sim), handlers::routes(sim)).await
}

fn check(world: &GoogleWorld) -> Result<(), ServeError> {
    let named = world.interconnects.iter().map(|interconnect| ("interconnect", &interconnect.name));
    for (what, name) in named.chain([("router", &world.router), ("network", &world.network)]) {
        names::check_name("name", name)
            .map_err(|_| ServeError::World(format!("{what} name {name:?} is no RFC 1035 name")))?;
    }
    for (i, one) in world.interconnects.iter().enumerate() {
        if world.interconnects[..i].iter().any(|other| other.name == one.name || other.location == one.location) {
            let message = format!("interconnect {} shares its name or its location with another one", one.name);
            return Err(ServeError::World(message));
        }
    }
    Ok(())
}
