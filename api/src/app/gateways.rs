//! Gateways: joining, what they are told, what they report.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use data_encoding::BASE64;
use secrecy::ExposeSecret;
use serde_json::json;
use tieline_openapi::{
    ids::{GatewayId, ProjectId},
    problem::FieldError,
    v1::{
        End, Gateway, GatewayConfiguration, GatewayConnection, GatewayPeer, GatewayState, JoinAnswer, JoinRequest,
        KernelLane, Observations, PathChange, PathKind, Timestamp,
    },
};

use super::{App, AppError, Caller, Paged, error::field, one_more};
use crate::{
    events::Topic,
    plan::carried,
    secrets,
    state::{self, Facts, PATH_CONDITIONS, changed},
    store::{ConnectionRecord, GatewayInputs, KeptCondition, NewEvent, NewGateway, ReportEffects, Reported},
    topology::Topology,
};

/// Inner addresses come from 100.64.0.0/10 (RFC 6598): shared address space that no site announces to another.
const INNER_BASE: u32 = u32::from_be_bytes([100, 64, 0, 0]);
/// How many addresses the inner block has.
const INNER_SIZE: u32 = 1 << 22;
/// The most lanes of one gateway.
const MAX_LANES: usize = 16;
/// The most samples, and the most changes, of one report.
const MAX_ROWS: usize = 1000;

/// A gateway's address inside the tunnel, by its number; none beyond the block.
#[must_use]
pub fn inner_address(number: u32) -> Option<IpAddr> {
    (1..INNER_SIZE).contains(&number).then(|| IpAddr::V4(Ipv4Addr::from(INNER_BASE + number)))
}

/// What a gateway must know, but for its preshared keys: pure.
#[must_use]
pub fn configuration(inputs: &GatewayInputs, topology: &Topology) -> GatewayConfiguration {
    let served = inputs.connections.iter().flat_map(|record| {
        End::BOTH.into_iter().filter_map(move |end| {
            (record.intent.end(end).attach_point_id.as_ref() == Some(&inputs.gateway.attach_point_id))
                .then(|| served(inputs, record, end))
                .flatten()
        })
    });
    GatewayConfiguration {
        version: inputs.version,
        gateway_id: inputs.gateway.id,
        probe: topology.probe,
        connections: served.collect(),
    }
}

fn served(inputs: &GatewayInputs, record: &ConnectionRecord, end: End) -> Option<GatewayConnection> {
    let address_of = |id: GatewayId| inputs.numbers.get(&id).copied().and_then(inner_address);
    // Beyond a peer stands no gateway of ours.
    let far = record.intent.end(end.other()).attach_point_id.as_ref()?;
    let peers = inputs.gateways.iter().filter(|gateway| gateway.attach_point_id == *far);
    Some(GatewayConnection {
        connection_id: record.id,
        name: record.intent.name.clone(),
        end,
        inner_address: address_of(inputs.gateway.id)?,
        local_prefixes: carried::announced(&record.intent, end),
        remote_prefixes: carried::announced(&record.intent, end.other()),
        peers: peers
            .filter_map(|peer| {
                Some(GatewayPeer {
                    gateway_id: peer.id,
                    lanes: peer.lanes.clone(),
                    private_address: peer.private_address,
                    inner_address: address_of(peer.id)?,
                    preshared_key: None,
                    preshared_key_changing: false,
                    former_preshared_key: None,
                    kernel_lane: inputs.kernel_lanes.get(&peer.id).cloned(),
                })
            })
            .collect(),
        mtu_bytes: record.negotiated.effective.mtu_bytes,
        mss_bytes: record.negotiated.effective.mss_bytes,
        private_ready: state::established(record),
        tunnel: record.intent.fallback.tunnel,
        fallback_capacity_mbps: record.intent.fallback.capacity_mbps,
    })
}

/// Whether a gateway is heard: within the last three report intervals, and no less than three seconds.
#[must_use]
pub fn liveness(gateway: &Gateway, report_ms: u32, now: Timestamp) -> GatewayState {
    let Some(heard) = gateway.last_heard_at else { return GatewayState::Joined };
    let silent_ms = now.as_millisecond().saturating_sub(heard.as_millisecond());
    if silent_ms <= i64::from(report_ms).saturating_mul(3).max(3_000) {
        GatewayState::Live
    } else {
        GatewayState::Silent
    }
}

/// The event of a change of path.
#[must_use]
pub fn path_event(project: &ProjectId, gateway: GatewayId, end: End, change: &PathChange, now: Timestamp) -> NewEvent {
    // Leaving the private path is a demotion; every other change puts a path in place.
    let kind = match (change.from, change.to) {
        (Some(PathKind::Private), PathKind::Tunnel) => "path.demoted",
        (None | Some(PathKind::Tunnel | PathKind::Private), PathKind::Private)
        | (None | Some(PathKind::Tunnel), PathKind::Tunnel) => "path.promoted",
    };
    NewEvent {
        project: project.clone(),
        time: now,
        kind: kind.to_owned(),
        subject: format!("/v1/connections/{}", change.connection_id),
        generation: None,
        cause: format!("gateway:{gateway}"),
        data: json!({
            "gatewayId": gateway, "end": end, "at": change.at, "from": change.from, "to": change.to,
            "reason": change.reason,
        }),
    }
}

/// The event of a condition that a gateway's report gave another status.
fn condition_event(record: &ConnectionRecord, by: GatewayId, now: &KeptCondition) -> NewEvent {
    NewEvent {
        project: record.project.clone(),
        time: now.since,
        kind: "connection.conditionChanged".to_owned(),
        subject: format!("/v1/connections/{}", record.id),
        generation: Some(record.generation),
        cause: format!("gateway:{by}"),
        data: json!({"type": now.kind, "status": now.status}),
    }
}

fn check_join(request: &JoinRequest) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let length = request.name.chars().count();
    if !(1..=63).contains(&length) || request.name.chars().any(char::is_control) {
        errors.push(field("/name", "a gateway's name has 1 to 63 printable characters"));
    }
    if request.private_address.is_unspecified() || request.private_address.is_multicast() {
        errors.push(field("/privateAddress", "the gateway's own unicast address in the site's network"));
    }
    if !(1..=MAX_LANES).contains(&request.lanes.len()) {
        errors.push(field("/lanes", format!("from 1 to {MAX_LANES} lanes")));
    }
    for (n, lane) in request.lanes.iter().enumerate().take(MAX_LANES) {
        if usize::from(lane.n) != n {
            errors.push(field(format!("/lanes/{n}/n"), "lanes count from 0 without a gap"));
        }
        check_way(n, &lane.public_key, lane.endpoint, &mut errors);
    }
    errors
}

/// The key and the endpoint of the lane that stands at `n`.
fn check_way(n: usize, public_key: &str, endpoint: SocketAddr, errors: &mut Vec<FieldError>) {
    if BASE64.decode(public_key.as_bytes()).map_or(0, |key| key.len()) != 32 {
        errors.push(field(format!("/lanes/{n}/publicKey"), "an X25519 public key: 32 bytes as base64, 44 characters"));
    }
    if endpoint.port() == 0 || endpoint.ip().is_unspecified() || endpoint.ip().is_multicast() {
        errors.push(field(format!("/lanes/{n}/endpoint"), "a unicast address and a port that peers can send to"));
    }
}

fn check_kernel_lanes(id: GatewayId, lanes: &[KernelLane]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if lanes.len() > MAX_ROWS {
        errors.push(field("/lanes", format!("{} lanes; at most {MAX_ROWS}", lanes.len())));
    }
    let mut seen = BTreeSet::new();
    for (n, lane) in lanes.iter().enumerate().take(MAX_ROWS) {
        if lane.peer_id == id {
            errors.push(field(format!("/lanes/{n}/peerId"), "a gateway is no peer of its own"));
        }
        if !seen.insert(lane.peer_id) {
            errors.push(field(format!("/lanes/{n}/peerId"), "a lane for this peer stands before it; one a peer"));
        }
        check_way(n, &lane.public_key, lane.endpoint, &mut errors);
    }
    errors
}

impl App {
    /// Spends a join token and adds the gateway.
    ///
    /// # Errors
    /// [`AppError::Invalid`], [`AppError::Spent`], or the store's.
    pub async fn join(
        &self,
        caller: &Caller,
        join_hash: [u8; 32],
        request: JoinRequest,
    ) -> Result<JoinAnswer, AppError> {
        let errors = check_join(&request);
        if !errors.is_empty() {
            return Err(AppError::Invalid(errors));
        }
        let now = self.now();
        let id = GatewayId(self.random.uuid_v7(now));
        let credential = secrets::token_secret(&*self.random).expose_secret().to_owned();
        let credential_hash = secrets::token_hash(&credential);
        let event = NewEvent {
            project: caller.project.clone(),
            time: now,
            kind: "gateway.joined".to_owned(),
            subject: format!("/v1/gateways/{id}"),
            generation: None,
            cause: format!("gateway:{id}"),
            data: json!({"name": request.name}),
        };
        let audit = caller.audit(format!("/v1/gateways/{id}"), now);
        let new = NewGateway { id, request, credential_hash, audit, event, at: now };
        let gateway = self.store.join_gateway(join_hash, new).await?;
        Ok(JoinAnswer { gateway: self.judged(gateway), credential })
    }

    fn judged(&self, mut gateway: Gateway) -> Gateway {
        gateway.state = liveness(&gateway, self.topology.probe.report_ms, self.now());
        gateway
    }

    /// A page of gateways, by id.
    ///
    /// # Errors
    /// The store's.
    pub async fn gateways(
        &self,
        project: &ProjectId,
        size: u32,
        after: Option<uuid::Uuid>,
    ) -> Result<Paged<Gateway>, AppError> {
        let rows = self.store.gateways(project, one_more(size, after)).await?;
        let judged = rows.into_iter().map(|gateway| self.judged(gateway)).collect();
        Ok(Paged::of(judged, size, |gateway| gateway.id.to_string()))
    }

    /// One gateway.
    ///
    /// # Errors
    /// [`AppError::NotFound`], or the store's.
    pub async fn gateway(&self, project: &ProjectId, id: GatewayId) -> Result<Gateway, AppError> {
        Ok(self.judged(self.store.gateway(project, id).await?))
    }

    /// What a gateway must know now.
    ///
    /// # Errors
    /// [`AppError::NotFound`], or the store's.
    pub async fn gateway_configuration(&self, id: GatewayId) -> Result<GatewayConfiguration, AppError> {
        let inputs = self.store.gateway_inputs(id).await?;
        let mut configuration = configuration(&inputs, &self.topology);
        self.give_tunnel_keys(id, &inputs.keys, &mut configuration)?;
        Ok(configuration)
    }

    /// Takes which lanes in its kernel a gateway has, for which peers.
    ///
    /// # Errors
    /// [`AppError::Invalid`], [`AppError::NotFound`], or the store's.
    pub async fn put_kernel_lanes(&self, id: GatewayId, lanes: &[KernelLane]) -> Result<(), AppError> {
        let errors = check_kernel_lanes(id, lanes);
        if !errors.is_empty() {
            return Err(AppError::Invalid(errors));
        }
        Ok(self.store.put_kernel_lanes(id, lanes).await?)
    }

    /// Waits for a configuration with another version than the one that the gateway has, at most for `longest`.
    ///
    /// # Errors
    /// As [`App::gateway_configuration`].
    pub async fn next_configuration(
        &self,
        id: GatewayId,
        has: Option<u64>,
        longest: Duration,
    ) -> Result<Option<GatewayConfiguration>, AppError> {
        let mut news = self.hints.subscribe(Topic::Configuration);
        let configuration = self.gateway_configuration(id).await?;
        if has != Some(configuration.version) {
            return Ok(Some(configuration));
        }
        news.wait_at_most(&*self.clock, longest).await;
        Ok(None)
    }

    /// Takes a gateway's report. What it says of connections that it does not serve (one that was just deleted, most often)
    /// is left out.
    ///
    /// # Errors
    /// [`AppError::Invalid`], [`AppError::NotFound`], or the store's.
    pub async fn observe(&self, caller: &Caller, id: GatewayId, mut report: Observations) -> Result<(), AppError> {
        let mut errors = Vec::new();
        for (pointer, rows) in [("/samples", report.samples.len()), ("/changes", report.changes.len())] {
            if rows > MAX_ROWS {
                errors.push(field(pointer, format!("{rows} rows; at most {MAX_ROWS} in one report")));
            }
        }
        for (n, sample) in report.samples.iter().enumerate().take(MAX_ROWS) {
            for (name, ppm) in [("lossOutPpm", sample.loss_out_ppm), ("lossInPpm", sample.loss_in_ppm)] {
                if ppm > 1_000_000 {
                    errors.push(field(format!("/samples/{n}/{name}"), "at most 1000000 parts per million"));
                }
            }
        }
        for (n, change) in report.changes.iter().enumerate().take(MAX_ROWS) {
            if change.reason.len() > 64 {
                errors.push(field(format!("/changes/{n}/reason"), "at most 64 bytes"));
            }
        }
        if !errors.is_empty() {
            return Err(AppError::Invalid(errors));
        }
        let about = report.samples.iter().map(|sample| sample.connection_id);
        let about = about.chain(report.changes.iter().map(|change| change.connection_id)).collect();
        let (gateway, served) = self.store.reported_on(id, &about).await?;
        let end_of = |connection| {
            let record = served.iter().find(|record| record.id == connection)?;
            let here = Some(&gateway.attach_point_id);
            End::BOTH.into_iter().find(|end| record.intent.end(*end).attach_point_id.as_ref() == here)
        };
        report.samples.retain(|sample| end_of(sample.connection_id).is_some());
        report.changes.retain(|change| end_of(change.connection_id).is_some());
        let now = self.now();
        let mut events: Vec<NewEvent> = report
            .changes
            .iter()
            .filter_map(|change| Some(path_event(&caller.project, id, end_of(change.connection_id)?, change, now)))
            .collect();
        let mut conditions = Vec::new();
        for record in &served {
            let Some(end) = end_of(record.id) else { continue };
            let changed = self.changed_conditions(record, id, end, &report, now);
            events.extend(changed.iter().map(|one| condition_event(record, id, one)));
            if !changed.is_empty() {
                conditions.push((record.id, changed));
            }
        }
        // False where the report was taken before: the answer is the same.
        self.store.observe(id, &report, now, ReportEffects { events, conditions }).await?;
        Ok(())
    }

    /// The conditions of a connection's paths that a report gives another status.
    fn changed_conditions(
        &self,
        before: &ConnectionRecord,
        by: GatewayId,
        end: End,
        report: &Observations,
        now: Timestamp,
    ) -> Vec<KeptCondition> {
        let mut after = before.clone();
        for sample in report.samples.iter().filter(|sample| sample.connection_id == before.id) {
            after.gateway_ends.insert(by, end);
            let same =
                |one: &Reported| (one.by, one.sample.peer_id, one.sample.path) == (by, sample.peer_id, sample.path);
            // Samples of one report may stand in any order.
            if after.samples.iter().any(|one| same(one) && one.sample.at > sample.at) {
                continue;
            }
            after.samples.retain(|one| !same(one));
            after.samples.push(Reported { by, sample: sample.clone() });
        }
        let facts = |record| Facts::of(record, self.topology.probe.report_ms, now);
        changed(&PATH_CONDITIONS, &before.path_conditions, &facts(before), &facts(&after), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_addresses_are_distinct_and_stay_in_their_block() {
        assert_eq!(inner_address(1), Some("100.64.0.1".parse().unwrap()));
        assert_eq!(inner_address(INNER_SIZE - 1), Some("100.127.255.255".parse().unwrap()));
        assert_eq!((inner_address(0), inner_address(INNER_SIZE)), (None, None));
    }
}
