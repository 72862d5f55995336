//! Rows to write, and a store to write them into.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use serde_json::json;
use sqlx::Connection as _;
use tieline_api::{
    engine::clock::{ChaChaRandom, Random},
    plan::{
        negotiate::{Allocated, Negotiated, NegotiatedChannel, Touched},
        step::{Instance, ProviderCall, Seen, Verdict},
    },
    store::{
        Allocation, Audit, ChangeTo, Claim, ConnectionChange, EngineWrite, NewConnection, NewEvent, NewGateway,
        NewJoinToken, OpenOptions, SqlStore, Store, StoreTime,
    },
};
use tieline_openapi::{
    ids::{ChannelId, ConnectionId, GatewayId, OperationId, ProjectId},
    v1::{
        AttachPointType, ConnectionIntent, ConnectionKind, End, Middle, Operation, OperationKind, OperationState,
        Timestamp, Verb,
    },
};
use tieline_providers::{IdentityKind, ResourceKey, ResourceKind};
use uuid::Uuid;

/// Long ago, so that the machine's own time is never taken for it.
pub(crate) const START: i64 = 1_700_000_000_000;
pub(crate) const LEASE: u64 = 30_000;

pub(crate) fn ms(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap()
}

pub(crate) fn project() -> ProjectId {
    "default".parse().unwrap()
}

pub(crate) fn channel_id(n: u8) -> ChannelId {
    format!("ch{n}").parse().unwrap()
}

/// A fresh database whose time stands still until the test moves it.
pub(crate) struct Db {
    pub(crate) store: Arc<SqlStore>,
    pub(crate) options: OpenOptions,
    pub(crate) url: String,
    random: ChaChaRandom,
    drawn: AtomicI64,
    _folder: Option<tempfile::TempDir>,
}

pub(crate) fn on_sqlite<F: Future<Output = ()>>(test: impl FnOnce(Db) -> F) {
    runtime().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("tieline.db").display());
        test(Db::open(url, Some(folder)).await).await;
    });
}

pub(crate) fn on_postgres<F: Future<Output = ()>>(test: impl FnOnce(Db) -> F) {
    runtime().block_on(async {
        if let Some(url) = crate::postgres::database() {
            test(Db::open(url, None).await).await;
        }
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

impl Db {
    async fn open(url: String, folder: Option<tempfile::TempDir>) -> Self {
        let options = OpenOptions { time: StoreTime::Row, ..OpenOptions::default() };
        let store = SqlStore::open(&url, options.clone()).await.unwrap();
        let db =
            Self { store, options, url, random: ChaChaRandom::from_seed(7), drawn: AtomicI64::new(0), _folder: folder };
        db.at(0).await;
        db
    }

    /// A second replica: another handle on Postgres, the same one on SQLite, whose file has one process.
    pub(crate) async fn replica(&self) -> Arc<SqlStore> {
        if self.is_postgres() {
            SqlStore::open(&self.url, self.options.clone()).await.unwrap()
        } else {
            Arc::clone(&self.store)
        }
    }

    /// The same database, opened again.
    pub(crate) async fn reopened(self, time: StoreTime) -> Self {
        let Self { store, options, url, random, drawn, _folder } = self;
        store.close().await;
        drop(store);
        let options = OpenOptions { time, ..options };
        let store = SqlStore::open(&url, options.clone()).await.unwrap();
        Self { store, options, url, random, drawn, _folder }
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.url.starts_with("postgres")
    }

    /// Rows of the audit log, which nothing but SQL reads.
    pub(crate) async fn audit_rows(&self) -> i64 {
        const SQL: &str = "SELECT COUNT(*) FROM audit";
        if self.is_postgres() {
            let mut connection = sqlx::PgConnection::connect(&self.url).await.unwrap();
            sqlx::query_scalar(SQL).fetch_one(&mut connection).await.unwrap()
        } else {
            let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
            sqlx::query_scalar(SQL).fetch_one(&mut connection).await.unwrap()
        }
    }

    /// Everything that is allocated at the places of these tests.
    pub(crate) async fn allocated(&self) -> Allocated {
        let ports = ["port-a1", "port-b1", "port-a2", "port-b2"].map(|port| port.parse().unwrap());
        let prefixes = ["point-a", "point-b"].map(|point| {
            let everything = ["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"].map(|net| net.parse().unwrap());
            (point.parse().unwrap(), everything.into())
        });
        let touched =
            Touched { ports: ports.into(), channels: [channel_id(1), channel_id(2)].into(), prefixes: prefixes.into() };
        self.store.allocated(&touched).await.unwrap()
    }

    /// Sets the store's time, in milliseconds after [`START`].
    pub(crate) async fn at(&self, millis: i64) {
        self.store.set_time(ms(START + millis)).await.unwrap();
    }

    /// Ids rise in the order in which they are drawn.
    pub(crate) fn uuid(&self) -> Uuid {
        self.random.uuid_v7(ms(START + self.drawn.fetch_add(1, Ordering::Relaxed)))
    }

    /// A connection named `name` without allocations.
    pub(crate) fn connection(&self, name: &str) -> NewConnection {
        let id = ConnectionId(self.uuid());
        NewConnection {
            id,
            project: project(),
            kind: ConnectionKind::Direct,
            intent: intent(name),
            negotiated: negotiated(id, &[(1, 1)]),
            allocations: Vec::new(),
            secrets: Vec::new(),
            operation: self.operation(id, OperationKind::Create, 1),
            event: event("connection.created", id),
            audit: audit("createConnection"),
            idempotency: None,
            shared: None,
            at: ms(START),
        }
    }

    pub(crate) async fn created(&self, name: &str) -> ConnectionId {
        let new = self.connection(name);
        let id = new.id;
        self.store.create_connection(new).await.unwrap();
        id
    }

    pub(crate) fn operation(&self, target: ConnectionId, kind: OperationKind, generation: u64) -> Operation {
        Operation {
            id: OperationId(self.uuid()),
            kind,
            target,
            generation,
            state: OperationState::Running,
            stages: Vec::new(),
            problem: None,
            created_at: ms(START),
            finished_at: None,
        }
    }

    pub(crate) fn change(&self, id: ConnectionId, expected_generation: u64, to: ChangeTo) -> ConnectionChange {
        let kind = if matches!(to, ChangeTo::Deletion) { OperationKind::Delete } else { OperationKind::Update };
        ConnectionChange {
            id,
            project: project(),
            expected_generation,
            to,
            operation: self.operation(id, kind, expected_generation + 1),
            event: event("connection.changed", id),
            audit: audit("changeConnection"),
            idempotency: None,
            at: ms(START + 1),
        }
    }

    /// Claims exactly one connection.
    pub(crate) async fn claim(&self, owner: &str) -> Claim {
        let mut claims = self.store.claim(owner, LEASE, 1).await.unwrap();
        assert_eq!(claims.len(), 1, "one connection is due");
        claims.remove(0)
    }

    pub(crate) fn instance(&self, channel: u8, generation: u32) -> Instance {
        Instance {
            id: self.uuid().into(),
            channel_id: channel_id(channel),
            channel_generation: generation,
            key: key(),
            account_id: "fake-a".parse().unwrap(),
            cloud_id: None,
            seen: Seen::Never,
            twin: None,
        }
    }

    pub(crate) fn call(&self, instance: &Instance, verb: Verb, at: i64) -> (ProviderCall, EngineWrite) {
        let call = ProviderCall {
            id: self.uuid().into(),
            instance_id: instance.id,
            verb,
            identity: IdentityKind::Token { lifetime_ms: 60_000 },
            written_at: ms(START + at),
            deadline: ms(START + at + 10_000),
            verdict: Verdict::Open,
            decided_at: None,
            answer: None,
        };
        let write = EngineWrite::OpenCall {
            call: Box::new(call.clone()),
            key: instance.key.clone(),
            account_id: instance.account_id.clone(),
            name: "tl-00000000-x".to_owned(),
            token: call.id.to_string(),
            digest: [3; 32],
        };
        (call, write)
    }

    /// Adds a gateway at an attach point, through a join token of its own.
    pub(crate) async fn joined(&self, attach_point: &str) -> GatewayId {
        let (join, gateway) = self.join(attach_point);
        let hash = join.hash;
        self.store.insert_join_token(&project(), join).await.unwrap();
        self.store.join_gateway(hash, gateway).await.unwrap().id
    }

    pub(crate) fn join(&self, attach_point: &str) -> (NewJoinToken, NewGateway) {
        let mut secret = [0; 64];
        self.random.fill(&mut secret);
        let (join_hash, credential_hash) = secret.split_at(32);
        let id = GatewayId(self.uuid());
        let token = NewJoinToken {
            id: self.uuid().into(),
            group: "group".parse().unwrap(),
            attach_point_id: attach_point.parse().unwrap(),
            expires_at: ms(START + 3_600_000),
            hash: join_hash.try_into().unwrap(),
            audit: audit("issueJoinToken"),
            idempotency: None,
        };
        let gateway = NewGateway {
            id,
            request: serde_json::from_value(json!({
                "name": "gw", "privateAddress": "10.0.0.10",
                "lanes": [{ "n": 0, "publicKey": "k".repeat(44), "endpoint": "192.0.2.1:51820" }],
            }))
            .unwrap(),
            credential_hash: credential_hash.try_into().unwrap(),
            audit: audit("joinGateway"),
            event: NewEvent { subject: format!("/v1/gateways/{id}"), ..event("gateway.joined", ConnectionId(id.0)) },
            at: ms(START),
        };
        (token, gateway)
    }
}

pub(crate) fn key() -> ResourceKey {
    ResourceKey { end: End::A, kind: ResourceKind::of("fake.attachment") }
}

pub(crate) fn audit(action: &str) -> Audit {
    Audit {
        principal: "token:t".to_owned(),
        request_id: "r".to_owned(),
        action: action.to_owned(),
        subject: "/v1/x".to_owned(),
        at: ms(START),
    }
}

pub(crate) fn event(kind: &str, about: ConnectionId) -> NewEvent {
    NewEvent {
        project: project(),
        time: ms(START),
        kind: kind.to_owned(),
        subject: format!("/v1/connections/{about}"),
        generation: Some(1),
        cause: "test".to_owned(),
        data: json!({ "n": 1 }),
    }
}

pub(crate) fn intent(name: &str) -> ConnectionIntent {
    serde_json::from_value(json!({
        "name": name, "environmentId": "env", "bandwidthMbps": 1000,
        "a": { "attachPointId": "point-a", "advertisedPrefixes": ["10.0.0.0/16"] },
        "b": { "attachPointId": "point-b", "advertisedPrefixes": ["10.1.0.0/16"] },
        "labels": { "team": name },
    }))
    .unwrap()
}

/// A configuration with these channels, each with its generation.
pub(crate) fn negotiated(id: ConnectionId, channels: &[(u8, u32)]) -> Negotiated {
    Negotiated {
        environment_id: "env".parse().unwrap(),
        interconnect_id: "ic".parse().unwrap(),
        middle: Middle::None,
        channels: channels.iter().map(|&(n, generation)| channel(id, n, generation)).collect(),
        effective: serde_json::from_value(json!({
            "mtuBytes": 1400, "privateMtuBytes": 1500, "tunnelMtuBytes": 1400, "mssBytes": 1360,
            "detectMs": { "aToB": 900, "bToA": 900 },
        }))
        .unwrap(),
        findings: Vec::new(),
    }
}

pub(crate) fn channel(id: ConnectionId, n: u8, generation: u32) -> NegotiatedChannel {
    let side = |end: &str, host: u8| {
        json!({
            "connectionId": id, "connectionName": "c", "channelId": format!("ch{n}"), "end": end,
            "accountId": format!("fake-{end}"), "region": "r", "portId": format!("port-{end}{n}"),
            "attachPointId": format!("point-{end}"), "attachPointKind": AttachPointType::CloudRouter,
            "attachPointCloudId": "x", "asn": 64512, "peerAsn": 64513, "vlan": 100, "bandwidth": 1000, "mtu": 1500,
            "ipv4": { "fixed": { "subnet": "169.254.0.0/30", "host": format!("169.254.0.{host}"),
                                  "peer": format!("169.254.0.{}", 3 - host) } },
            "ipv6": null, "bfd": null, "advertisedPrefixes": [], "acceptedPrefixes": [], "maxPrefixes": null,
        })
    };
    serde_json::from_value(json!({
        "channelId": format!("ch{n}"), "generation": generation, "sides": { "a": side("a", 1), "b": side("b", 2) },
        "reservedSubnets": ["169.254.0.0/30"], "bandwidth": 1000, "why": [],
    }))
    .unwrap()
}

pub(crate) fn vlan(n: u8, generation: u32, vlan: u16) -> Allocation {
    Allocation::Vlan { channel_id: channel_id(n), generation, port_id: "port-a1".parse().unwrap(), vlan }
}

pub(crate) fn subnet(n: u8, generation: u32, subnet: &str) -> Allocation {
    Allocation::Subnet {
        channel_id: channel_id(n),
        generation,
        attach_point_id: "point-a".parse().unwrap(),
        subnet: subnet.parse().unwrap(),
    }
}

pub(crate) fn bandwidth(n: u8, mbps: u64, capacity_mbps: u64) -> Allocation {
    Allocation::Bandwidth { channel_id: channel_id(n), mbps, capacity_mbps }
}

pub(crate) fn release(due_in_ms: u64) -> EngineWrite {
    EngineWrite::Release { due_in_ms, failures: 0, progress: true }
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}
