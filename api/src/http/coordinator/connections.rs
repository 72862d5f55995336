//! Connections.

use std::sync::Arc;

use axum::Router;
use tieline_openapi::coordinator::{
    Connection, CreateConnection, DeleteConnection, Empty, GenerateFeatureGuidance, GenerateFeatureGuidanceResponse,
    GetConnection, ListConnections, ListConnectionsResponse, NotifyConnectionStatus, UpdateConnection,
};

use super::{Fault, Incoming, Peers, done, with};
use crate::{
    coordinator::{Coordination, cut},
    plan::coordinate::{Ask, Reply, wire},
};

type Shared = Arc<Coordination>;

pub(super) fn routes(router: Router<Peers>) -> Router<Peers> {
    let router = with::<ListConnections, _, _>(router, list);
    let router = with::<CreateConnection, _, _>(router, create);
    let router = with::<GetConnection, _, _>(router, show);
    let router = with::<UpdateConnection, _, _>(router, update);
    let router = with::<DeleteConnection, _, _>(router, delete);
    let router = with::<GenerateFeatureGuidance, _, _>(router, guide);
    with::<NotifyConnectionStatus, _, _>(router, notify)
}

async fn list(shared: Shared, asked: Incoming<ListConnections>) -> Result<ListConnectionsResponse, Fault> {
    let environments = &asked.peer().terms().environments;
    let there = environments.get(&asked.path.environment).map(|e| &e.interconnects);
    if !there.is_some_and(|all| all.contains_key(&asked.path.interconnect)) {
        return Err(Fault::not_found());
    }
    let at = asked.cut(&shared, asked.query.page_size, asked.query.page_token.as_deref())?;
    let all = shared.shown_connections(&asked.call, &asked.path).await?;
    let (connections, last) = cut(all, at.after.as_deref(), at.size);
    Ok(ListConnectionsResponse { connections, next_page_token: at.next(&shared, last)? })
}

async fn create(shared: Shared, asked: Incoming<CreateConnection>) -> Result<Connection, Fault> {
    let id = &asked.query.connection_id;
    let answered = shared
        .answer(&asked.call, |book| book.read_create(&asked.path, id.clone(), asked.call.id(), &asked.body))
        .await?;
    done(&answered.reply)?;
    // What was asked is what was made. The key is nobody's business any more.
    Ok(Connection {
        name: Some(asked.path.connection(id.clone()).to_string()),
        bandwidth_mbps: asked.body.bandwidth_mbps,
        defer_provisioning: asked.body.defer_provisioning,
        connection_type: asked.body.connection_type.clone(),
        ..wire::connection_of(&asked.path.provider, &wire::place_of(&asked.path.connection(id.clone())), 0, None, false)
    })
}

async fn show(shared: Shared, asked: Incoming<GetConnection>) -> Result<Connection, Fault> {
    let place = wire::place_of(&asked.path);
    let look = Ask::Look { place: place.clone(), as_of: 0 };
    let answered = shared.answer(&asked.call, |_| Ok(look.clone())).await?;
    done(&answered.reply)?;
    match answered.reply {
        Reply::Seen { bandwidth_mbps, verified, .. } => {
            Ok(wire::connection_of(&asked.path.provider, &place, bandwidth_mbps, answered.kind, verified))
        }
        Reply::Done | Reply::Key(_) | Reply::Guidance(_) | Reply::Refused(_) => Err(Fault::not_found()),
    }
}

async fn update(shared: Shared, asked: Incoming<UpdateConnection>) -> Result<Connection, Fault> {
    let place = wire::place_of(&asked.path);
    let read = || {
        let to_mbps = wire::read_update(asked.query.update_mask.as_ref(), &asked.body)?;
        Ok(Ask::Resize { place: place.clone(), to_mbps, request_id: asked.call.id() })
    };
    let answered = shared.answer(&asked.call, |_| read()).await?;
    done(&answered.reply)?;
    let shown = wire::connection_of(&asked.path.provider, &place, 0, answered.kind, answered.verified);
    Ok(Connection { bandwidth_mbps: asked.body.bandwidth_mbps, ..shown })
}

async fn delete(shared: Shared, asked: Incoming<DeleteConnection>) -> Result<Empty, Fault> {
    let ask = Ask::Delete { place: wire::place_of(&asked.path), request_id: asked.call.id() };
    done(&shared.answer(&asked.call, |_| Ok(ask.clone())).await?.reply)?;
    Ok(Empty {})
}

async fn guide(
    shared: Shared,
    asked: Incoming<GenerateFeatureGuidance>,
) -> Result<GenerateFeatureGuidanceResponse, Fault> {
    let ask = Ask::Guidance { place: wire::place_of(&asked.path) };
    let answered = shared.answer(&asked.call, |_| Ok(ask.clone())).await?;
    done(&answered.reply)?;
    let Reply::Guidance(guidance) = answered.reply else { return Err(Fault::not_found()) };
    let on = asked.path.parent();
    let feature_guidance = guidance.iter().map(|one| wire::guidance_of(&on, one)).collect();
    Ok(GenerateFeatureGuidanceResponse { feature_guidance })
}

async fn notify(shared: Shared, asked: Incoming<NotifyConnectionStatus>) -> Result<Empty, Fault> {
    let ask = Ask::Notify { place: wire::place_of(&asked.path), shown: 0, request_id: asked.call.id() };
    done(&shared.answer(&asked.call, |_| Ok(ask.clone())).await?.reply)?;
    Ok(Empty {})
}
