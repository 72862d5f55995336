//! One gateway as a process of its own, so that its CPU time can be told from that of others.

use std::{
    collections::BTreeMap,
    io::Read,
    net::{IpAddr, SocketAddr},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use boringtun::x25519::{PublicKey, StaticSecret};
use tieline_dataplane::{
    Dataplane, DataplaneOptions,
    shell::{kernel, netns::NetNs, offloads::Offload},
};
use tieline_openapi::{
    ids::{ConnectionId, GatewayId},
    v1::{End, GatewayConfiguration, GatewayConnection, GatewayPeer, Lane, ProbeSettings, TunnelBackend},
};
use uuid::Uuid;

use super::contender::{MTU, PORT, inner, outer};

pub(crate) fn key(n: usize, lane: usize) -> StaticSecret {
    StaticSecret::from([u8::try_from(16 * (n + 1) + lane).unwrap(); 32])
}

pub(crate) fn public(n: usize, lane: usize) -> String {
    STANDARD.encode(PublicKey::from(&key(n, lane)).as_bytes())
}

fn private_address(n: usize) -> IpAddr {
    [10, u8::try_from(n).unwrap(), 2, 10].into()
}

/// Runs gateway `n` in the network namespace that it was started in, until the standard input closes.
pub(crate) fn run(n: usize, lanes: usize) {
    let switched_off = std::env::var("TIELINE_BENCH_WITHOUT").unwrap_or_default();
    let switched_off: Vec<Offload> =
        switched_off.split(',').filter(|name| !name.is_empty()).map(|name| name.parse().unwrap()).collect();
    let (reports, _reported) = tokio::sync::mpsc::channel(1);
    let options = DataplaneOptions {
        netns: NetNs::open(None).unwrap(),
        tun_name: format!("tlb{n}"),
        private_address: private_address(n),
        private_next_hop: None,
        wan_endpoint: SocketAddr::new(outer(n), PORT),
        listen_port: PORT,
        private_key: key(n, 0),
        further_keys: (1..lanes).map(|lane| key(n, lane)).collect(),
        backend: TunnelBackend::Boringtun,
        kernel_key: key(n, 15),
        kernel_ports: kernel::ports_after(PORT),
        switched_off,
        session: 1,
        holds: BTreeMap::new(),
        uapi: None,
        taken: None,
    };
    let dataplane = Dataplane::start(options, reports).unwrap();
    let other = 1 - n;
    let lane = |lane: usize| Lane {
        n: u8::try_from(lane).unwrap(),
        public_key: public(other, lane),
        endpoint: SocketAddr::new(outer(other), PORT + u16::try_from(lane).unwrap()),
        backend: TunnelBackend::Boringtun,
    };
    let gateway = |n: usize| GatewayId(Uuid::from_u128(n as u128 + 1));
    dataplane.apply(GatewayConfiguration {
        version: 1,
        gateway_id: gateway(n),
        probe: ProbeSettings::default(),
        connections: vec![GatewayConnection {
            connection_id: ConnectionId(Uuid::from_u128(9)),
            name: "bench".to_owned(),
            end: if n == 0 { End::A } else { End::B },
            inner_address: inner(n),
            local_prefixes: vec![],
            remote_prefixes: vec![],
            peers: vec![GatewayPeer {
                gateway_id: gateway(other),
                lanes: (0..lanes).map(lane).collect(),
                private_address: private_address(other),
                inner_address: inner(other),
                preshared_key: None,
                preshared_key_changing: false,
                former_preshared_key: None,
                kernel_lane: None,
            }],
            mtu_bytes: u64::from(MTU).try_into().unwrap(),
            mss_bytes: MTU - 40,
            private_ready: false,
            tunnel: true,
            fallback_capacity_mbps: None,
        }],
    });
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).unwrap();
    if std::env::var_os("TIELINE_BENCH_STATUS").is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let status = runtime.block_on(dataplane.status()).unwrap();
        eprintln!("{}", serde_json::to_string(&status.packet_path).unwrap());
        eprintln!("{}", serde_json::to_string(&status.connections[0].peers[0].tunnel).unwrap());
    }
    dataplane.stop();
}
