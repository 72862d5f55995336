//! MACsec keys of channels, and work on them.

use std::sync::Arc;

use axum::Router;
use tieline_openapi::coordinator::{
    ChannelPath, CreateMacSecKey, DeleteMacSecKey, Empty, GetMacSecKey, GetMaintenanceEvents,
    GetMaintenanceEventsResponse, ListMacSecKeys, ListMacSecKeysResponse, MacSecKey, MacSecKeyPath, NotifyMaintenance,
    Operation, RequestMacSecKeyRotation,
};

use super::{Fault, Incoming, Peers, refused, with};
use crate::{
    app::error::field,
    coordinator::{Coordination, CoordinationError},
    plan::coordinate::{ChannelAsk, ChannelPlace, ChannelReply, SeenKey, wire},
};

type Shared = Arc<Coordination>;

/// The longest reason for a change of key, in bytes.
const LONGEST_REASON: usize = 4_096;

pub(super) fn routes(router: Router<Peers>) -> Router<Peers> {
    let router = with::<GetMaintenanceEvents, _, _>(router, events);
    let router = with::<NotifyMaintenance, _, _>(router, notify);
    let router = with::<ListMacSecKeys, _, _>(router, list);
    let router = with::<GetMacSecKey, _, _>(router, show);
    let router = with::<CreateMacSecKey, _, _>(router, create);
    let router = with::<DeleteMacSecKey, _, _>(router, delete);
    with::<RequestMacSecKeyRotation, _, _>(router, rotate)
}

/// Asks the protocol; a refusal is a fault.
async fn asked<O: Operation>(
    shared: &Coordination,
    asked: &Incoming<O>,
    ask: ChannelAsk,
) -> Result<(ChannelReply, Option<SeenKey>), Fault> {
    match shared.answer_channel(&asked.call, &ask).await? {
        (ChannelReply::Refused(refusal), _) => Err(refused(&refusal)),
        answered => Ok(answered),
    }
}

fn parent(of: &MacSecKeyPath) -> ChannelPath {
    ChannelPath {
        provider: of.provider.clone(),
        environment: of.environment.clone(),
        interconnect: of.interconnect.clone(),
        channel: of.channel.clone(),
    }
}

async fn events(shared: Shared, call: Incoming<GetMaintenanceEvents>) -> Result<GetMaintenanceEventsResponse, Fault> {
    let ask = ChannelAsk::Events { at: wire::channel_of(&call.path), look: 0 };
    let (ChannelReply::Events(events), _) = asked(&shared, &call, ask).await? else { return Err(Fault::not_found()) };
    Ok(GetMaintenanceEventsResponse { events: events.iter().map(wire::event_of).collect() })
}

/// A hint: what is in it is not looked at, the list is fetched.
async fn notify(shared: Shared, call: Incoming<NotifyMaintenance>) -> Result<Empty, Fault> {
    let ask = ChannelAsk::NotifyMaintenance { at: wire::channel_of(&call.path), shown: 0 };
    asked(&shared, &call, ask).await?;
    Ok(Empty {})
}

async fn keys<O: Operation>(
    shared: &Coordination,
    call: &Incoming<O>,
    at: ChannelPlace,
) -> Result<Vec<SeenKey>, Fault> {
    match asked(shared, call, ChannelAsk::Keys { at, as_of: 0 }).await? {
        (ChannelReply::Keys(keys), _) => Ok(keys),
        (ChannelReply::Done { .. } | ChannelReply::Events(_) | ChannelReply::Refused(_), _) => Err(Fault::not_found()),
    }
}

async fn list(shared: Shared, call: Incoming<ListMacSecKeys>) -> Result<ListMacSecKeysResponse, Fault> {
    let keys = keys(&shared, &call, wire::channel_of(&call.path)).await?;
    Ok(ListMacSecKeysResponse { mac_sec_keys: keys.iter().map(|key| wire::shown_key(&call.path, key)).collect() })
}

async fn show(shared: Shared, call: Incoming<GetMacSecKey>) -> Result<MacSecKey, Fault> {
    let of = parent(&call.path);
    let keys = keys(&shared, &call, wire::channel_of(&of)).await?;
    let found = keys.iter().find(|key| key.id == call.path.mac_sec_key);
    found.map(|key| wire::shown_key(&of, key)).ok_or_else(Fault::not_found)
}

async fn create(shared: Shared, call: Incoming<CreateMacSecKey>) -> Result<MacSecKey, Fault> {
    let (cak, ckn) = wire::read_key(&call.body).map_err(CoordinationError::from)?;
    let (at, key) = (wire::channel_of(&call.path), call.query.mac_sec_key_id.clone());
    let ask = ChannelAsk::CreateKey { at, key: key.clone(), cak, ckn, request_id: call.call.id() };
    let (reply, there) = asked(&shared, &call, ask).await?;
    let ChannelReply::Done { at: start_time } = reply else { return Err(Fault::not_found()) };
    let active = there.is_some_and(|key| key.active);
    Ok(wire::shown_key(&call.path, &SeenKey { id: key, start_time, active }))
}

async fn delete(shared: Shared, call: Incoming<DeleteMacSecKey>) -> Result<Empty, Fault> {
    let (at, key) = (wire::channel_of(&parent(&call.path)), call.path.mac_sec_key.clone());
    asked(&shared, &call, ChannelAsk::DeleteKey { at, key, request_id: call.call.id() }).await?;
    Ok(Empty {})
}

async fn rotate(shared: Shared, call: Incoming<RequestMacSecKeyRotation>) -> Result<Empty, Fault> {
    let words = call.body.reason.clone().unwrap_or_default();
    if words.len() > LONGEST_REASON {
        return Err(Fault::invalid(vec![field("/reason", "is 4096 bytes at most")]));
    }
    let at = wire::channel_of(&call.path);
    asked(&shared, &call, ChannelAsk::RequestRotation { at, words, request_id: call.call.id() }).await?;
    Ok(Empty {})
}
