//! What is agreed is in both routers, and what they say is known on both sides.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tieline_api::coordinator::Router;
use tieline_openapi::{
    config::{ChannelRouterConfig, CommandConfig, CoordinatorConfig, RouterConfig, RouterDriver},
    v1::BgpState,
};
use tieline_providers::network::{Device, DeviceError, Listed, Owner, Session, SessionName};

use super::{
    customers::patch,
    fixture::{Devices, Pair, Side},
    pairing::{accept, delete, ended, issue, until_gone},
};
use crate::http::fixture::{Backing, Go};

/// The channels between both providers, and what each end's routers hold.
#[derive(Debug, Default)]
struct Wires(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By provider and router.
    held: BTreeMap<(&'static str, String, SessionName), Session>,
    /// Interfaces without light.
    cut: BTreeSet<String>,
    /// Routers that do not answer.
    silent: BTreeSet<(&'static str, String)>,
    /// Sessions that no router takes, by channel.
    refused: BTreeSet<String>,
    /// The fewest sessions that carried since it was asked last.
    fewest: usize,
}

impl State {
    fn is_up(&self, side: &'static str, session: &Session) -> bool {
        let other = |held: &Session| {
            held.interface == session.interface
                && (held.vlan, held.local_ip, held.local_asn) == (session.vlan, session.peer_ip, session.peer_asn)
                && (held.peer_ip, held.peer_asn) == (session.local_ip, session.local_asn)
                && held.password == session.password
        };
        !self.cut.contains(&session.interface) && self.held.iter().any(|((of, ..), held)| *of != side && other(held))
    }

    /// Sessions of north's that are up and drained at neither end.
    fn carrying(&self) -> usize {
        let drained = |session: &Session| {
            self.held
                .values()
                .any(|held| (&held.interface, held.vlan) == (&session.interface, session.vlan) && held.drained)
        };
        let north = self.held.iter().filter(|((side, ..), _)| *side == "north");
        north.filter(|(_, session)| self.is_up("north", session) && !drained(session)).count()
    }

    fn changed(&mut self) {
        self.fewest = self.fewest.min(self.carrying());
    }
}

impl Wires {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    /// Looks again and again until something is so.
    async fn until(&self, mut is_so: impl FnMut(&mut State) -> bool) {
        let looking = async {
            while !self.with(&mut is_so) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), looking).await.expect("the routers do not get there");
    }

    fn devices(self: &Arc<Self>, side: &'static str) -> Devices {
        let one = |id: String| Router {
            config: RouterConfig {
                id: id.parse().unwrap(),
                announces: vec![],
                poll_ms: 100,
                drain_ms: 300,
                driver: RouterDriver::Command(CommandConfig { run: vec![], timeout_ms: 1_000 }),
            },
            device: Arc::new(Fake { side, router: id, wires: Arc::clone(self) }),
        };
        Devices { routers: (1..=4).map(|n| one(format!("r{n}"))).collect(), macsec: None }
    }

    async fn pair(self: &Arc<Self>) -> Pair {
        Pair::start_routed([Backing::sqlite(), Backing::sqlite()], routed, |side, _| self.devices(side)).await
    }
}

/// Channel `n` of each interconnect is on router `n`.
fn routed(config: &mut CoordinatorConfig) {
    for interconnect in &mut config.peers[0].environments[0].interconnects {
        for (n, channel) in interconnect.channels.iter_mut().enumerate() {
            let interface = format!("{}-{}", interconnect.id, channel.id);
            channel.router = Some(ChannelRouterConfig { id: format!("r{}", n + 1).parse().unwrap(), interface });
        }
    }
}

#[derive(Debug)]
struct Fake {
    side: &'static str,
    router: String,
    wires: Arc<Wires>,
}

impl Fake {
    fn answers(&self, state: &State) -> Result<(), DeviceError> {
        if state.silent.contains(&(self.side, self.router.clone())) {
            return Err(DeviceError::Start { program: self.router.clone(), source: io::ErrorKind::NotFound.into() });
        }
        Ok(())
    }
}

#[async_trait]
impl Device for Fake {
    async fn list(&self, owner: &Owner) -> Result<BTreeMap<SessionName, Listed>, DeviceError> {
        self.wires.with(|state| {
            self.answers(state)?;
            let ours = state
                .held
                .iter()
                .filter(|((side, router, name), _)| *side == self.side && *router == self.router && owner.owns(name));
            let listed = |session: &Session| Listed {
                fingerprint: session.fingerprint(),
                bgp: if state.is_up(self.side, session) { BgpState::Established } else { BgpState::Active },
                ..Listed::default()
            };
            Ok(ours.map(|((_, _, name), session)| (name.clone(), listed(session))).collect())
        })
    }

    async fn put(&self, session: &Session) -> Result<(), DeviceError> {
        self.wires.with(|state| {
            self.answers(state)?;
            if state.refused.contains(&session.channel) {
                return Err(DeviceError::Invalid { name: session.name.clone(), rule: "it cannot be".to_owned() });
            }
            state.held.insert((self.side, self.router.clone(), session.name.clone()), session.clone());
            state.changed();
            Ok(())
        })
    }

    async fn delete(&self, name: &SessionName) -> Result<(), DeviceError> {
        self.wires.with(|state| {
            self.answers(state)?;
            state.held.remove(&(self.side, self.router.clone(), name.clone()));
            state.changed();
            Ok(())
        })
    }
}

/// Channels that are up on both sides, in the eyes of one.
fn up(connection: &Value) -> usize {
    let placements = connection["placements"].as_array().cloned().unwrap_or_default();
    let channels = placements.iter().flat_map(|p| p["channels"].as_array().unwrap());
    channels.filter(|c| c["provisioningState"] == "FINAL" && c["bgpState"] == "ESTABLISHED").count()
}

fn verified(connection: &Value) -> bool {
    let one = connection["placements"].as_array().is_some_and(|p| p.len() == 1);
    one && connection["state"] == "ACTIVE" && connection["verificationState"] == "VERIFIED" && up(connection) == 4
}

/// Where a connection is: in the north, and in the south.
type At = [String; 2];

async fn both(pair: &Pair, [north, south]: &At, is_so: impl Fn(&Value) -> bool + Copy) -> [Value; 2] {
    let (north, south) = tokio::join!(pair.north.until(north, is_so), pair.south.until(south, is_so));
    [north, south]
}

/// A connection that both sides have accepted.
async fn accepted(north: &Side, south: &Side) -> At {
    let (key, at_north) = issue(north, "south", 1_000).await;
    [at_north, accept(south, &key).await]
}

/// A connection that both sides call verified.
async fn connected(pair: &Pair) -> At {
    let at = accepted(&pair.north, &pair.south).await;
    both(pair, &at, verified).await;
    at
}

async fn deleted(pair: &Pair, wires: &Wires, at: &At) {
    delete(&pair.north, &at[0]).await;
    tokio::join!(pair.north.until_empty("south"), pair.south.until_empty("north"));
    tokio::join!(until_gone(&pair.north, &at[0]), until_gone(&pair.south, &at[1]));
    assert_eq!(wires.with(|state| state.held.clone()), BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_goes_down_makes_it_unverified_and_the_peer_is_told() {
    let wires = Arc::new(Wires::default());
    let pair = wires.pair().await;
    let at = connected(&pair).await;
    let interface = wires.with(|state| state.held.values().next().unwrap().interface.clone());
    // Only north's router is asked from here on: south knows it from north alone.
    wires.with(|state| {
        state.silent.extend((1..=4).map(|n| ("south", format!("r{n}"))));
        state.cut.insert(interface.clone())
    });
    let seen = both(&pair, &at, |connection| up(connection) == 3).await;
    for connection in &seen {
        assert_eq!(connection["verificationState"], "UNVERIFIED", "{connection}");
    }
    wires.with(|state| (state.silent.clear(), state.cut.clear()));
    both(&pair, &at, verified).await;
    deleted(&pair, &wires, &at).await;
    pair.end().await;
}

fn open<'v>(issues: &'v Value, code: &str) -> Vec<&'v Value> {
    let all = issues["issues"].as_array().unwrap().iter();
    all.filter(|issue| issue["code"] == code && issue["state"] == "OPEN").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_does_not_answer_holds_no_other_and_is_an_issue() {
    let wires = Arc::new(Wires::default());
    let pair = wires.pair().await;
    wires.with(|state| state.silent.insert(("north", "r1".to_owned())));
    let at = accepted(&pair.north, &pair.south).await;
    both(&pair, &at, |connection| up(connection) == 3).await;
    let issues = pair.north.until("/v1/issues", |issues| !open(issues, "router-unreachable").is_empty()).await;
    let [issue] = open(&issues, "router-unreachable")[..] else { panic!("{issues}") };
    assert_eq!(issue["about"], json!(["routers/r1/peers/south", at[0]]));
    wires.with(|state| state.silent.clear());
    both(&pair, &at, verified).await;
    pair.north.until("/v1/issues", |issues| open(issues, "router-unreachable").is_empty()).await;
    deleted(&pair, &wires, &at).await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_a_router_does_not_take_holds_no_other_and_is_an_issue() {
    let wires = Arc::new(Wires::default());
    let pair = wires.pair().await;
    wires.with(|state| state.refused.insert("c2".to_owned()));
    let at = accepted(&pair.north, &pair.south).await;
    both(&pair, &at, |connection| up(connection) == 3).await;
    let issues = pair.south.until("/v1/issues", |issues| !open(issues, "session-refused").is_empty()).await;
    let shared = pair.south.get(&at[1]).await["sharedConnectionUuid"].as_str().unwrap().to_owned();
    let subject = format!("routers/r2/peers/north/connections/{shared}");
    assert_eq!(open(&issues, "session-refused")[0]["about"], json!([subject, at[1]]));
    wires.with(|state| state.refused.clear());
    both(&pair, &at, verified).await;
    pair.south.until("/v1/issues", |issues| open(issues, "session-refused").is_empty()).await;
    deleted(&pair, &wires, &at).await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_moves_make_before_break_and_changes_its_bandwidth() {
    let wires = Arc::new(Wires::default());
    let pair = wires.pair().await;
    let at = connected(&pair).await;
    let place = |connection: &Value| {
        let id = connection["placements"][0]["interconnectId"].as_str().unwrap();
        id.rsplit('.').next().unwrap().to_owned()
    };
    let from = place(&pair.south.get(&at[1]).await);
    wires.with(|state| state.fewest = usize::MAX);
    // Either side may wish it.
    let migrate = || pair.north.ask(Method::POST, &format!("{}:migrate", at[0])).header("if-match", "*");
    let moving = migrate().go(StatusCode::ACCEPTED).await;
    migrate().go(StatusCode::CONFLICT).await;
    assert_eq!(ended(&pair.north, moving.header("operation-location")).await["state"], "SUCCEEDED");
    both(&pair, &at, |connection| verified(connection) && place(connection) != from).await;
    assert!(wires.with(|state| state.fewest) >= 4, "the new place works before the old one is drained");
    assert_eq!(wires.with(|state| state.held.len()), 8, "nothing is left of the old place");

    let resized = patch(&pair.south, &at[1], json!({"bandwidthMbps": 5_000})).await;
    assert_eq!(ended(&pair.south, resized.header("operation-location")).await["state"], "SUCCEEDED");
    pair.north.until(&at[0], |c| c["placements"][0]["channels"][0]["bandwidthMbps"] == 5_000).await;
    let told = |state: &mut State| state.held.values().all(|session| session.bandwidth_mbps.get() == 5_000);
    wires.until(told).await;
    both(&pair, &at, |connection| up(connection) == 4).await;
    deleted(&pair, &wires, &at).await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_finds_what_is_there_and_takes_away_what_is_not_wanted() {
    let wires = Arc::new(Wires::default());
    let Pair { mut north, south, ca } = wires.pair().await;
    let at = accepted(&north, &south).await;
    south.until(&at[1], |connection| up(connection) > 0).await;
    let listen = north.config.listen;
    let (backing, config) = north.end().await;
    // While it is away: a session of its own that nothing wants any more, and one of somebody else's.
    let template = wires.with(|state| state.held.values().next().unwrap().clone());
    let [stray, stranger] = [["north", "south"], ["north", "east"]].map(|parts| Owner::new(&parts).session(&["x"]));
    wires.with(|state| {
        for name in [&stray, &stranger] {
            let session = Session { name: name.clone(), interface: name.to_string(), ..template.clone() };
            state.held.insert(("north", "r1".to_owned(), name.clone()), session);
        }
    });
    let listener = tokio::net::TcpListener::bind(listen).await.unwrap();
    north = Side::start_routed("north", backing, config, listener, wires.devices("north")).await;
    let pair = Pair { north, south, ca };
    both(&pair, &at, verified).await;
    let gone = |state: &mut State| !state.held.keys().any(|(.., name)| *name == stray);
    wires.until(gone).await;
    let there = wires.with(|state| state.held.keys().any(|(.., name)| *name == stranger));
    assert!(there, "what is another's is left alone");
    wires.with(|state| state.held.retain(|(_, _, name), _| *name != stranger));
    deleted(&pair, &wires, &at).await;
    pair.end().await;
}
