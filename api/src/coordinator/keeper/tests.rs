//! Random schedules of two providers whose books are kept in a real store: after every change, what a service that has just
//! started reads is what was decided, so that it does not matter when one ends and another begins. The store's constraints
//! refuse nothing that the protocol allows, and whoever decided from an older revision writes nothing.

#[path = "../../../tests/postgres/mod.rs"]
mod postgres;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tieline_openapi::{
    client::coordinator::{ByConnection, Coordinator, PeerAddress},
    config::{Config, CoordinatorConfig},
    coordinator::Timestamp,
};
use tokio::{runtime::Runtime, sync::Mutex};

use super::{Doing, Remembered};
use crate::{
    app::Vault,
    coordinator::{Coordination, CoordinationParts, Peer, RouterKeys, channels::Silent, identity::Security},
    engine::clock::{ChaChaRandom, Clock, Random},
    events::Hints,
    plan::coordinate::{
        Book, Change,
        tests::{Kept, channels, connections, world},
    },
    secrets::Sealer,
    store::{BookWrite, Books as _, OpenOptions, SqlStore, StoreError},
};

/// A clock that stands still: the books' times are the schedule's.
struct Still;

#[async_trait]
impl Clock for Still {
    fn now(&self) -> Timestamp {
        world::start()
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
    async fn sleep(&self, _: Duration) {}
}

/// Our section of `tieline.toml`. What is agreed with the peer is the schedule's.
fn config(us: &str, them: &str) -> CoordinatorConfig {
    let channels: String = (1..=4)
        .map(|n| {
            format!(
                "[[coordinator.peers.environments.interconnects.channels]]\nid = \"c{n}\"\ndevice = \"{us}-{n}\"\n\
                 asn = 64512\nvlans = [1025, 1034]\nsubnets = [\"169.254.10.0/25\"]\nsizeGbps = 10\n"
            )
        })
        .collect();
    let text = format!(
        "[coordinator]\nprovider = \"{us}\"\nlisten = \"127.0.0.1:0\"\ncertificateFile = \"us.pem\"\nkeyFile = \"us.key\"\n\
         [[coordinator.peers]]\nprovider = \"{them}\"\nendpoint = \"https://127.0.0.1:1\"\ncaFile = \"ca.pem\"\n\
         identity = {{ dnsName = \"{them}.example\" }}\n\
         [[coordinator.peers.environments]]\nid = \"e1\"\nourSite = \"here\"\ntheirSite = \"there\"\n\
         bandwidthsMbps = [1000]\n\
         [[coordinator.peers.environments.interconnects]]\nid = \"i1\"\nmaxBandwidthMbps = 10000\n{channels}"
    );
    Config::parse(&text, "tieline.toml").unwrap().coordinator.unwrap()
}

/// One provider over a store.
struct Side {
    coordination: Coordination,
    peer: Peer,
}

impl Side {
    fn new(store: &Arc<SqlStore>, us: &str, them: &str) -> Self {
        let config = config(us, them);
        let random: Arc<dyn Random> = Arc::new(ChaChaRandom::from_seed(1));
        let sealer = Arc::new(Sealer::from_text(&"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=".into()).unwrap());
        let parts = CoordinationParts {
            books: store.clone(),
            store: store.clone(),
            vault: Vault::new(sealer, Arc::clone(&random)),
            clock: Arc::new(Still),
            random,
            routers: Vec::new(),
            hints: Hints::new(),
            macsec: Arc::new(RouterKeys::default()),
            owner: us.to_owned(),
        };
        let peer = config.peers[0].clone();
        let address =
            PeerAddress { base_url: peer.endpoint.clone(), cleartext: false, timeout: Duration::from_secs(1) };
        let peer = Peer {
            id: peer.provider.clone(),
            terms: world::terms(us, them, 64_512, false),
            client: Coordinator::new(&address, reqwest::Client::builder(), Arc::new(ByConnection)).unwrap(),
            security: Security::of(&peer).unwrap(),
            config: peer,
            lock: Mutex::new(()),
            remembered: Remembered::default(),
        };
        let coordination = Coordination { config, peers: [].into(), parts, silent: Silent::default() };
        Self { coordination, peer }
    }

    /// What this service remembers, and what one that has just started reads, is this book.
    async fn sees(&self, changes: &[Change], book: &Book) {
        let known = self.peer.remembered.get().map(|(revision, _)| revision);
        for started in [false, true] {
            if started {
                self.peer.remembered.set(None);
            }
            let (revision, read) = self.coordination.load(&self.peer, None).await.unwrap();
            assert_eq!(Some(revision), known, "nothing was read again");
            assert_eq!(read.rows, book.rows);
            assert_eq!(read.keys, book.keys);
            assert_eq!(read.tombstones, book.tombstones);
            assert_eq!(read.channels, book.channels);
        }
        for change in changes {
            if let Change::Replay(id, replay) = change {
                let (_, read) = self.coordination.load(&self.peer, Some(*id)).await.unwrap();
                assert_eq!(read.replays.get(id), Some(replay));
            }
        }
    }
}

/// Both providers over one store: neither may find anything of the other in its own book.
struct Stored {
    runtime: Runtime,
    store: Arc<SqlStore>,
    sides: [Side; 2],
}

impl Stored {
    fn open(url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = runtime.block_on(SqlStore::open(url, OpenOptions::default())).unwrap();
        let sides = [Side::new(&store, "north", "south"), Side::new(&store, "south", "north")];
        Self { runtime, store, sides }
    }
}

impl Kept for Stored {
    fn stored(&mut self, side: usize, changes: &[Change], book: &Book) {
        if changes.is_empty() {
            return;
        }
        let side = &self.sides[side];
        self.runtime.block_on(async {
            let doing = |_: &Book, _| Doing::new((), changes.to_vec());
            side.coordination.act(&side.peer, None, None, doing).await.unwrap();
            side.sees(changes, book).await;
        });
    }

    fn outrun(&mut self, side: usize, changes: &[Change]) {
        let side = &self.sides[side];
        self.runtime.block_on(async {
            let (revision, _) = side.coordination.load(&side.peer, None).await.unwrap();
            let changes = changes.iter().map(|change| side.coordination.written(&side.peer, change.clone()).unwrap());
            let write = BookWrite {
                peer: side.peer.id.clone(),
                revision: revision - 1,
                changes: changes.collect(),
                due: Vec::new(),
                channels_due: Vec::new(),
                intent: None,
                audit: None,
            };
            let written = self.store.write_book(write).await;
            assert!(matches!(written, Err(StoreError::Fenced)), "{written:?}");
        });
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.runtime.block_on(self.store.close());
    }
}

/// A schedule on a fresh database of each kind: `TIELINE_STORED_SEED=n` runs one again, `TIELINE_STORED_SEEDS=n` so many.
fn on_both(sqlite: u64, postgres: u64, schedule: impl Fn(u64, Box<dyn Kept>)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = |usual: u64| {
        number("TIELINE_STORED_SEED").map_or(0..number("TIELINE_STORED_SEEDS").unwrap_or(usual), |seed| seed..seed + 1)
    };
    for seed in seeds(sqlite) {
        println!("seed {seed} on SQLite");
        schedule(seed, Box::new(Stored::open("sqlite::memory:")));
    }
    for seed in seeds(postgres) {
        println!("seed {seed} on Postgres");
        let Some(url) = postgres::database() else { return };
        schedule(seed, Box::new(Stored::open(&url)));
    }
}

#[test]
fn books_of_connections_survive_any_schedule() {
    on_both(6, 2, |seed, kept| drop(connections(seed, kept)));
}

#[test]
fn books_of_channels_survive_any_schedule() {
    on_both(2, 1, channels);
}
