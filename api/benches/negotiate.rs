//! How long one two-channel link takes to negotiate and plan, with 1,000 links on the same ports and attach points: the
//! decision by itself, and a whole dry run over SQLite.

#![allow(clippy::unwrap_used, reason = "a measurement ends at the first surprise")]

use std::{collections::BTreeMap, hint::black_box, sync::Arc};

use criterion::Criterion;
use serde_json::json;
use tieline_api::{
    app::{App, Caller, Vault},
    engine::clock::{ChaChaRandom, Clock, Random, SystemClock},
    events::Hints,
    plan::{
        negotiate::{Allocated, Negotiated, Request, allocations, negotiate},
        step::rehearse::{Start, rehearse},
    },
    secrets::Sealer,
    store::{Allocation, OpenOptions, SqlStore},
    topology::Topology,
};
use tieline_openapi::{
    config::Config,
    ids::ConnectionId,
    v1::{ConnectionIntent, Scope, Timestamp},
};
use tieline_providers::{
    IdentityKind, Rules,
    fake::{FakeRules, FakeSide},
};
use uuid::Uuid;

const LINKS: u16 = 1_000;

fn topology() -> Topology {
    let account = |n: usize, provider: &str| {
        json!({ "id": format!("acct-{n}"), "provider": provider, "externalId": n.to_string(),
                "credentialRef": "anonymous", "region": "r" })
    };
    let point = |n: usize| {
        json!({ "id": format!("point-{n}"), "accountId": format!("acct-{n}"), "site": format!("site-{n}"),
                "type": "CLOUD_ROUTER", "cloudId": format!("router-{n}"), "asn": 64512 + n })
    };
    let port = |channel: usize, n: usize| {
        json!({ "accountId": format!("acct-{n}"), "portId": format!("port-{channel}{n}"),
                "device": format!("dev-{channel}") })
    };
    let environment = json!({ "id": "env", "kind": "DIRECT", "bandwidthsMbps": [100], "sites": [
        { "provider": "picking", "site": "site-0", "displayName": "0" },
        { "provider": "taking", "site": "site-1", "displayName": "1" }] });
    let interconnect = json!({ "id": "ic", "environmentId": "env", "maxBandwidthMbps": 400_000, "channels": [
        { "id": "ch1", "a": port(1, 0), "b": port(1, 1) }, { "id": "ch2", "a": port(2, 0), "b": port(2, 1) }] });
    let config = Config {
        accounts: vec![
            serde_json::from_value(account(0, "picking")).unwrap(),
            serde_json::from_value(account(1, "taking")).unwrap(),
        ],
        environments: vec![serde_json::from_value(environment).unwrap()],
        interconnects: vec![serde_json::from_value(interconnect).unwrap()],
        attach_points: vec![serde_json::from_value(point(0)).unwrap(), serde_json::from_value(point(1)).unwrap()],
        ..Config::default()
    };
    let rules = |side| Arc::new(FakeRules { side, identity: IdentityKind::Named }) as Arc<dyn Rules>;
    let rules = [("picking", rules(FakeSide::Picking)), ("taking", rules(FakeSide::Taking))];
    Topology::new(&config, rules.into_iter().map(|(name, rules)| (name.parse().unwrap(), rules)).collect())
}

/// The n-th link: prefixes of its own, two channels.
fn intent(n: u16) -> ConnectionIntent {
    let [third, fourth] = n.to_be_bytes();
    serde_json::from_value(json!({
        "name": format!("link-{n}"), "environmentId": "env", "bandwidthMbps": 100, "redundancy": "DUAL",
        "a": { "attachPointId": "point-0", "advertisedPrefixes": [format!("10.{third}.{fourth}.0/24")] },
        "b": { "attachPointId": "point-1", "advertisedPrefixes": [format!("10.{}.{fourth}.0/24", 128 + third)] },
    }))
    .unwrap()
}

fn decide(topology: &Topology, allocated: &Allocated, id: ConnectionId, intent: &ConnectionIntent) -> Negotiated {
    let request = Request { connection_id: id, intent, keep: BTreeMap::new(), refused: BTreeMap::new() };
    negotiate(topology, allocated, &request).unwrap()
}

/// What 1,000 links hold.
fn held(topology: &Topology) -> Allocated {
    let mut allocated = Allocated::default();
    for n in 0..LINKS {
        let (id, intent) = (ConnectionId(Uuid::from_u128(u128::from(n))), intent(n));
        let negotiated = decide(topology, &allocated, id, &intent);
        for allocation in allocations(&negotiated, topology) {
            match allocation {
                Allocation::Vlan { port_id, vlan, .. } => {
                    allocated.vlans.entry(port_id).or_default().insert(vlan);
                }
                Allocation::Subnet { attach_point_id, subnet, .. } => {
                    allocated.subnets.entry(attach_point_id).or_default().insert(subnet);
                }
                Allocation::Bandwidth { channel_id, mbps, .. } => {
                    *allocated.bandwidth.entry(channel_id).or_default() += mbps;
                }
            }
        }
        allocated.carry(id, &intent);
    }
    allocated
}

fn decision(criterion: &mut Criterion) {
    let topology = topology();
    let allocated = held(&topology);
    let (id, intent) = (ConnectionId(Uuid::max()), intent(LINKS));
    criterion.bench_function("negotiate and plan one link among 1,000", |bencher| {
        bencher.iter(|| {
            let negotiated = decide(&topology, black_box(&allocated), id, &intent);
            let start = Start {
                wanted: &negotiated.channels,
                channels: &[],
                instances: &[],
                calls: &[],
                wishes: &intent.wanted,
                middle: negotiated.middle,
                rules: &topology,
                now: Timestamp::UNIX_EPOCH,
            };
            let rehearsal = rehearse(&start, &topology.engine);
            assert_eq!(rehearsal.calls.len(), 6);
            rehearsal
        });
    });
}

fn dry_run(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let random: Arc<dyn Random> = Arc::new(ChaChaRandom::from_seed(1));
    let (sealer, _) = Sealer::from_key_file_or_new(&folder.path().join("key"), &*random).unwrap();
    let url = format!("sqlite://{}", folder.path().join("tieline.db").display());
    let store = runtime.block_on(SqlStore::open(&url, OpenOptions::default())).unwrap();
    let vault = Vault::new(Arc::new(sealer), Arc::clone(&random));
    let app = App {
        store: store.clone(),
        topology: Arc::new(topology()),
        vault,
        clock,
        random,
        hints: Hints::new(),
        coordination: None,
        choosing: Default::default(),
    };
    let caller = Caller {
        principal: "token:t".to_owned(),
        project: "default".parse().unwrap(),
        scope: Some(Scope::Admin),
        request_id: "r".to_owned(),
        action: "createConnection",
    };
    for n in 0..LINKS {
        runtime.block_on(app.create(&caller, intent(n), None)).unwrap();
    }
    let intent = intent(LINKS);
    criterion.bench_function("dry run of one link among 1,000, over SQLite", |bencher| {
        bencher.iter(|| {
            let plan = runtime.block_on(app.dry_create(&caller, black_box(&intent))).unwrap();
            assert!(plan.applicable && plan.steps.len() == 6);
            plan
        });
    });
    runtime.block_on(store.close());
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    decision(&mut criterion);
    dry_run(&mut criterion);
    criterion.final_summary();
}
