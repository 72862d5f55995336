//! A gateway's status as metrics, in the text format of Prometheus (OpenMetrics): for a node exporter's text files, or whoever
//! scrapes. `tieline gateway status --metrics` prints it.

use std::{collections::BTreeSet, fmt, sync::atomic::AtomicU64};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use tieline_openapi::v1::{PathKind, TunnelBackend};

use super::status::{KernelLaneStatus, LaneStatus, PacketPathStatus, Status};

type Labels = Vec<(&'static str, String)>;
type Counters = Family<Labels, Counter>;
type Gauges = Family<Labels, Gauge>;

#[derive(Default)]
struct Metrics {
    packets: Counters,
    bytes: Counters,
    drops: Counters,
    alive: Gauges,
    handshake_age: Family<Labels, Gauge<f64, AtomicU64>>,
    offloaded: Counters,
    refused: Counters,
    carries: Gauges,
}

/// Writes the metrics.
///
/// # Errors
/// Never, but by the formatter's own leave.
pub fn text(status: &Status) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("tieline_gateway");
    let metrics = Metrics::default();
    registry.register("tunnel_packets", "Inner packets, by lane and direction", metrics.packets.clone());
    registry.register("tunnel_bytes", "Their bytes", metrics.bytes.clone());
    registry.register("drops", "Packets and datagrams that were dropped, and why", metrics.drops.clone());
    registry.register("lane_alive", "Whether traffic may take the lane", metrics.alive.clone());
    registry.register_with_unit("handshake_age", "Age of the session", Unit::Seconds, metrics.handshake_age.clone());
    registry.register("offload_packets", "Packets that an offload of the kernel carried", metrics.offloaded.clone());
    registry.register("offload_refusals", "Times that the kernel refused one", metrics.refused.clone());
    registry.register("path_carries", "Whether a path carries its connection's traffic", metrics.carries.clone());
    metrics.packet_path(&status.packet_path);
    // A peer of several connections has one tunnel.
    let mut seen = BTreeSet::new();
    for connection in &status.connections {
        for peer in &connection.peers {
            if seen.insert(peer.peer_id) {
                let id = peer.peer_id.to_string();
                peer.lanes.iter().for_each(|lane| metrics.lane(&id, lane));
                peer.kernel.iter().for_each(|kernel| metrics.kernel(&id, kernel));
                if !peer.kernel.is_empty() {
                    let reason = ("reason", "kernel_foreign_source".to_owned());
                    metrics.drops.get_or_create(&vec![reason, ("peer", id)]).inc_by(peer.kernel_foreign_source);
                }
            }
            for (path, name) in [(PathKind::Private, "private"), (PathKind::Tunnel, "tunnel")] {
                let labels = vec![
                    ("connection", connection.name.clone()),
                    ("peer", peer.peer_id.to_string()),
                    ("path", name.to_owned()),
                ];
                let carries = peer.active && peer.chosen == Some(path);
                metrics.carries.get_or_create(&labels).set(i64::from(carries));
            }
        }
    }
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

impl Metrics {
    fn packet_path(&self, path: &PacketPathStatus) {
        let drops = [
            ("no_peer", path.no_peer),
            ("not_ours", path.not_ours),
            ("bad_handshake", path.bad_handshakes),
            ("cookie_asked", path.under_load),
            ("handshake_share", path.limited),
            ("tun_refused", path.tun_refused),
            ("not_sent", path.not_sent),
        ];
        for (reason, count) in drops {
            self.drops.get_or_create(&vec![("reason", reason.to_owned())]).inc_by(count);
        }
        for offload in &path.offloads {
            let labels = vec![("offload", offload.offload.name().to_owned())];
            self.offloaded.get_or_create(&labels).inc_by(offload.packets);
            self.refused.get_or_create(&labels).inc_by(offload.refused);
        }
    }

    /// An interface of the kernel's WireGuard, which counts in the UDP payload that it sends.
    fn kernel(&self, peer: &str, kernel: &KernelLaneStatus) {
        let labels: Labels = vec![("peer", peer.to_owned()), ("lane", kernel.interface.clone())];
        self.alive.get_or_create(&labels).set(i64::from(kernel.alive));
        for (way, bytes) in [("out", kernel.bytes_out), ("in", kernel.bytes_in)] {
            let labels = labels.iter().cloned().chain([("direction", way.to_owned())]).collect();
            self.bytes.get_or_create(&labels).inc_by(bytes);
        }
        if let Some(age) = kernel.handshake_age_s {
            self.handshake_age.get_or_create(&labels).set(age as f64);
        }
    }

    fn lane(&self, peer: &str, lane: &LaneStatus) {
        let labels = |more: Option<(&'static str, &str)>| {
            let kernel = if lane.peer_backend == TunnelBackend::Kernel { "-kernel" } else { "" };
            let mut labels: Labels = vec![("peer", peer.to_owned()), ("lane", format!("{}{kernel}", lane.n))];
            labels.extend(more.map(|(name, value)| (name, value.to_owned())));
            labels
        };
        let counters = &lane.counters;
        for (way, packets, bytes) in
            [("out", counters.packets_out, counters.bytes_out), ("in", counters.packets_in, counters.bytes_in)]
        {
            let labels = labels(Some(("direction", way)));
            self.packets.get_or_create(&labels).inc_by(packets);
            self.bytes.get_or_create(&labels).inc_by(bytes);
        }
        let drops = &counters.drops;
        let drops = [
            ("no_session", drops.no_session),
            ("not_authentic", drops.not_authentic),
            ("replayed", drops.replayed),
            ("malformed", drops.malformed),
            ("foreign_source", drops.foreign_source),
            ("under_load", drops.under_load),
            ("congested", drops.congested),
        ];
        for (reason, count) in drops {
            self.drops.get_or_create(&labels(Some(("reason", reason)))).inc_by(count);
        }
        self.alive.get_or_create(&labels(None)).set(i64::from(lane.alive));
        if let Some(age) = lane.handshake_age_s {
            self.handshake_age.get_or_create(&labels(None)).set(age as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        proto::tunnel::{Drops, LaneCounters},
        shell::{clock, status::LaneStatus},
    };

    fn status() -> Status {
        Status {
            gateway_id: None,
            configuration_version: None,
            backend: TunnelBackend::Boringtun,
            at: clock::timestamp(),
            connections: Vec::new(),
            packet_path: PacketPathStatus { no_peer: 3, not_sent: 4, ..PacketPathStatus::default() },
        }
    }

    #[test]
    fn every_reason_is_counted_once() {
        let told = text(&status()).unwrap();
        assert!(told.contains("tieline_gateway_drops_total{reason=\"no_peer\"} 3"), "{told}");
        assert!(told.contains("tieline_gateway_drops_total{reason=\"not_sent\"} 4"), "{told}");
        assert!(told.ends_with("# EOF\n"));

        // A reason that is added to the status is to be added here.
        let reasons = |told: &str| told.lines().filter(|line| line.starts_with("tieline_gateway_drops_total")).count();
        let shown: BTreeMap<String, serde_json::Value> =
            serde_json::from_value(serde_json::to_value(&status().packet_path).unwrap()).unwrap();
        assert_eq!(reasons(&told), shown.values().filter(|value| value.is_u64()).count() - 1, "all but the lanes");

        let metrics = Metrics::default();
        let drops = Drops { no_session: 1, replayed: 2, ..Drops::default() };
        let lane = LaneStatus {
            n: 1,
            peer_backend: TunnelBackend::Boringtun,
            endpoint: "192.0.2.1:1".parse().unwrap(),
            alive: true,
            drifted: false,
            changing: false,
            handshake_age_s: Some(7),
            counters: LaneCounters { drops, packets_in: 9, ..LaneCounters::default() },
        };
        metrics.lane("p", &lane);
        let mut registry = Registry::with_prefix("tieline_gateway");
        registry.register("drops", "x", metrics.drops.clone());
        let mut told = String::new();
        encode(&mut told, &registry).unwrap();
        let shown: BTreeMap<String, u64> = serde_json::from_value(serde_json::to_value(drops).unwrap()).unwrap();
        assert_eq!(reasons(&told), shown.len());
        assert!(told.contains("{peer=\"p\",lane=\"1\",reason=\"replayed\"} 2"), "{told}");
    }
}
