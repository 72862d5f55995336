//! MACsec keys and work on channels, between two installations.

use std::{sync::atomic::Ordering, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tieline_api::{engine::clock::Clock as _, store::Books};
use tieline_openapi::{
    client::coordinator::CoordinatorError,
    config::CoordinatorConfig,
    coordinator::{
        ChannelPath, CreateMacSecKey, CreateMacSecKeyQuery, DeleteMacSecKey, GetMacSecKey, GetMaintenanceEvents,
        ListMacSecKeys, MacSecKey, MacSecKeyPath, MacSecKeyRotationRequest, NoBody, NoQuery, NotifyMaintenance,
        NotifyMaintenanceRequest, RequestMacSecKeyRotation, ResourceId, Sensitive,
    },
};

use super::{
    fixture::{Held, Pair, Side},
    pairing::{accept, issue},
};
use crate::http::fixture::{Backing, Go};

pub(super) const MACSEC: &str = "/v1/macSecChannels";
const MAINTENANCE: &str = "/v1/maintenanceEvents";
const TWO_HOURS: Duration = Duration::from_secs(2 * 3_600);

/// North manages the keys of c1 and c2, south of the others.
pub(super) fn with_macsec(config: &mut CoordinatorConfig) {
    for environment in &mut config.peers[0].environments {
        for interconnect in &mut environment.interconnects {
            for (n, channel) in interconnect.channels.iter_mut().enumerate() {
                channel.macsec_manager = Some(if n < 2 { "north" } else { "south" }.parse().unwrap());
            }
        }
    }
}

async fn paired() -> Pair {
    Pair::start_with([Backing::sqlite(), Backing::sqlite()], with_macsec).await
}

pub(super) fn id(text: &str) -> ResourceId {
    text.parse().unwrap()
}

/// A channel, by the name that a provider calls it by.
fn path(caller: &str, channel: &str) -> ChannelPath {
    format!("providers/{caller}/environments/e1/interconnects/i1/channels/{channel}").parse().unwrap()
}

pub(super) fn channel<'v>(list: &'v Value, name: &str) -> Option<&'v Value> {
    let all = list["macSecChannels"].as_array()?;
    let is = |one: &&Value| {
        let ChannelName(interconnect, channel) = ChannelName::of(&one["channel"]);
        format!("{interconnect}/{channel}") == name
    };
    all.iter().find(is)
}

struct ChannelName(String, String);
impl ChannelName {
    fn of(value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        Self(text("interconnectId"), text("channelId"))
    }
}

/// Whether every channel has one key, in use.
fn is_secure(list: &Value) -> bool {
    let all = list["macSecChannels"].as_array().map(Vec::as_slice).unwrap_or_default();
    let settled = |one: &Value| {
        let keys = one["keys"].as_array().unwrap();
        one["secure"] == true && keys.len() == 1 && keys[0]["remoteActive"] != false && one["rotation"] == "NONE"
    };
    all.len() == 8 && all.iter().all(settled)
}

pub(super) async fn until_secure(pair: &Pair) -> [Value; 2] {
    let (north, south) = tokio::join!(pair.north.until(MACSEC, is_secure), pair.south.until(MACSEC, is_secure));
    [north, south]
}

pub(super) fn one(provider: &str, channel: &str) -> Value {
    json!({"provider": provider, "environmentId": "e1", "interconnectId": "i1", "channelId": channel})
}

/// Another key than the one that was there.
pub(super) fn has_changed(name: &'static str, before: &Value) -> impl Fn(&Value) -> bool {
    let before = channel(before, name).unwrap()["keys"][0]["id"].clone();
    move |list| {
        let now = channel(list, name).unwrap();
        now["rotation"] == "NONE" && now["keys"].as_array().unwrap().len() == 1 && now["keys"][0]["id"] != before
    }
}

/// What both devices hold for a channel, as soon as it is one key and the same: a key leaves the list before the device that
/// had it is told.
async fn agreed_key(pair: &Pair, name: &str) -> Held {
    let ours = || pair.north.keys.of(name);
    pair.north.until(MACSEC, |_| ours().0.len() == 1 && ours() == pair.south.keys.of(name)).await;
    ours()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_channel_gets_a_key_that_both_devices_use_and_changes_it_after_the_bake_time() {
    let pair = paired().await;
    let [north, _] = until_secure(&pair).await;
    let before = agreed_key(&pair, "i1/c1").await;
    for name in ["i1/c1", "i1/c4", "i2/c2"] {
        let ours = agreed_key(&pair, name).await;
        let (ckn, cak) = ours.0.iter().next().unwrap();
        assert_eq!((ckn.len(), cak.len(), ours.1.as_ref()), (64, 64, Some(ckn)));
    }
    // Its halves are told nowhere, and sealed at rest.
    let (ckn, cak) = before.0.iter().next().unwrap();
    assert!(!north.to_string().contains(cak) && !north.to_string().contains(ckn));
    let book = pair.north.store.book(&id("south"), None).await.unwrap();
    assert!(book.channels.iter().all(|stored| !format!("{:?}", stored.row).contains(cak)));
    for stored in &book.channels {
        assert!(!stored.sealed.is_empty());
        assert!(stored.row.keys.iter().all(|key| key.cak.expose().is_empty() && key.ckn.expose().is_empty()));
    }
    let rotate = |side: &Side, body: &Value| side.ask(Method::POST, "/v1/macSecChannels:rotate").json(body);
    let wished = rotate(&pair.north, &one("south", "c1")).go(StatusCode::ACCEPTED).await.body;
    assert_eq!((&wished["rotation"], &wished["manager"]), (&json!("WISHED"), &json!("north")));
    // Not before two hours are over, by both clocks.
    pair.north.until(MACSEC, |list| channel(list, "i1/c1").unwrap()["rotation"] == "WISHED").await;
    for side in [&pair.north, &pair.south] {
        side.time.step(TWO_HOURS);
    }
    let changed = has_changed("i1/c1", &north);
    let (ours, _) = tokio::join!(pair.north.until(MACSEC, &changed), pair.south.until(MACSEC, &changed));
    assert_ne!(agreed_key(&pair, "i1/c1").await, before);
    // The other asks the manager: and waits until the change before it has baked.
    rotate(&pair.south, &one("north", "c2")).go(StatusCode::ACCEPTED).await;
    pair.north.until(MACSEC, |list| channel(list, "i1/c2").unwrap()["rotation"] == "WISHED").await;
    for side in [&pair.north, &pair.south] {
        side.time.step(TWO_HOURS);
    }
    let changed = has_changed("i1/c2", &ours);
    tokio::join!(pair.north.until(MACSEC, &changed), pair.south.until(MACSEC, &changed));
    agreed_key(&pair, "i1/c2").await;
    // What cannot be is refused, and the field is named.
    for (field, body) in [("/provider", one("east", "c1")), ("/channelId", one("south", "c9"))] {
        let refused = rotate(&pair.north, &body).go(StatusCode::BAD_REQUEST).await;
        assert_eq!(refused.pointers(), [field]);
    }
    pair.end().await;
}

fn status<T: std::fmt::Debug>(answer: Result<T, CoordinatorError>) -> u16 {
    match answer {
        Ok(_) => 200,
        Err(error) => error.refusal().unwrap_or_else(|| panic!("{error:?}")).status,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_refused_by_the_rules() {
    let pair = paired().await;
    until_secure(&pair).await;
    let client = pair.south.peer_client();
    let key = |n: u8| MacSecKey {
        cak: Some(Sensitive::new(format!("{n:064x}"))),
        ckn: Some(Sensitive::new(format!("{:08x}", u32::from(n) + 1_000))),
        ..MacSecKey::default()
    };
    let query = |key: &str| CreateMacSecKeyQuery { mac_sec_key_id: id(key) };
    let (theirs, ours) = (path("south", "c1"), path("south", "c3"));
    assert_eq!(status(client.call::<CreateMacSecKey>(&theirs, &query("k"), &key(1)).await), 403);
    let unknown = path("south", "c9");
    assert_eq!(status(client.call::<CreateMacSecKey>(&unknown, &query("k"), &key(1)).await), 404);
    assert_eq!(status(client.call::<ListMacSecKeys>(&unknown, &NoQuery {}, &NoBody {}).await), 404);
    let weak = MacSecKey { cak: Some(Sensitive::new("00".repeat(16))), ..key(1) };
    assert_eq!(status(client.call::<CreateMacSecKey>(&ours, &query("k"), &weak).await), 400);
    let odd = MacSecKey { ckn: Some(Sensitive::new("abc")), ..key(1) };
    assert_eq!(status(client.call::<CreateMacSecKey>(&ours, &query("k"), &odd).await), 400);
    // Its first key is not two hours old.
    assert_eq!(status(client.call::<CreateMacSecKey>(&ours, &query("k"), &key(1)).await), 409);
    let listed = client.call::<ListMacSecKeys>(&ours, &NoQuery {}, &NoBody {}).await.unwrap().mac_sec_keys;
    let [first] = listed.as_slice() else { panic!("{listed:?}") };
    assert!(first.active == Some(true) && first.start_time.is_some() && first.cak.is_none() && first.ckn.is_none());
    let first: MacSecKeyPath = first.name.as_ref().unwrap().parse().unwrap();
    assert_eq!(status(client.call::<GetMacSecKey>(&first, &NoQuery {}, &NoBody {}).await), 200);
    assert_eq!(status(client.call::<DeleteMacSecKey>(&first, &NoQuery {}, &NoBody {}).await), 409, "it is active");
    let gone = MacSecKeyPath { mac_sec_key: id("gone"), ..first.clone() };
    assert_eq!(status(client.call::<GetMacSecKey>(&gone, &NoQuery {}, &NoBody {}).await), 404);
    assert_eq!(status(client.call::<DeleteMacSecKey>(&gone, &NoQuery {}, &NoBody {}).await), 404);
    let asks = MacSecKeyRotationRequest { reason: Some("policy".to_owned()) };
    assert_eq!(status(client.call::<RequestMacSecKeyRotation>(&ours, &NoQuery {}, &asks).await), 403);
    assert_eq!(status(client.call::<RequestMacSecKeyRotation>(&theirs, &NoQuery {}, &asks).await), 200);
    // Fail closed: a device that lost its keys uses none, and nothing counts as secure.
    pair.north.keys.dead.store(true, Ordering::SeqCst);
    let list = pair.north.get(MACSEC).await;
    assert_eq!(channel(&list, "i1/c3").unwrap()["secure"], true, "a device that does not answer says nothing");
    pair.end().await;
}

fn state(list: &Value, origin: &str) -> Vec<(String, String)> {
    let all = list["maintenanceEvents"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of = |one: &&Value| one["origin"] == origin;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    all.iter().filter(of).map(|one| (text(&one["channels"][0]["interconnectId"]), text(&one["state"]))).collect()
}

/// Until the one connection with a peer is agreed on so many channels; which.
async fn until_features(side: &Side, peer: &str, count: usize) -> Vec<String> {
    let peer = id(peer);
    let waiting = async {
        loop {
            let rows = side.store.book(&peer, None).await.unwrap().rows;
            let row = rows.first().map(|stored| &stored.row);
            let agreed: Vec<String> =
                row.map(|row| row.agreed().map(|(channel, _)| channel.to_string()).collect()).unwrap_or_default();
            if agreed.len() == count {
                return agreed;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it is agreed")
}

#[tokio::test(flavor = "multi_thread")]
async fn work_closes_a_channel_on_both_sides_until_it_is_over() {
    let pair = Pair::start().await;
    let open = |side: &Side, body: &Value| side.ask(Method::POST, MAINTENANCE).json(body);
    let ends = |hours: i64| (pair.north.time.now() + jiff::SignedDuration::from_hours(hours)).to_string();
    let work = |peer: &str, interconnect: &str, channel: &str| {
        json!({"provider": peer, "environmentId": "e1", "interconnectId": interconnect, "channelId": channel,
            "endTime": ends(1)})
    };
    let mut opened = Vec::new();
    for interconnect in ["i1", "i2"] {
        let event = open(&pair.north, &work("south", interconnect, "c1")).go(StatusCode::CREATED).await.body;
        assert_eq!(event["origin"], "OURS");
        opened.push(event["id"].as_str().unwrap().to_owned());
    }
    // Nothing carries there, so nothing needs to move away.
    let under_way = |origin: &'static str| {
        move |list: &Value| {
            let states = state(list, origin);
            states.len() == 2 && states.iter().all(|(_, state)| state == "UNDER_WAY")
        }
    };
    tokio::join!(pair.north.until(MAINTENANCE, under_way("OURS")), pair.south.until(MAINTENANCE, under_way("THEIRS")));
    // Never two of one interconnect, whoever asks.
    open(&pair.north, &work("south", "i1", "c2")).go(StatusCode::CONFLICT).await;
    open(&pair.south, &work("north", "i1", "c2")).go(StatusCode::CONFLICT).await;
    // The peer sees it as the specification shows it.
    let client = pair.south.peer_client();
    let shown = client.call::<GetMaintenanceEvents>(&path("south", "c1"), &NoQuery {}, &NoBody {}).await.unwrap();
    let [event] = shown.events.as_slice() else { panic!("{shown:?}") };
    assert_eq!(event.maintenance_id.as_deref(), Some(opened[0].as_str()));
    assert!(event.start_time.is_some() && event.end_time > event.start_time);
    for _ in 0..2 {
        let hint = NotifyMaintenanceRequest::default();
        assert_eq!(status(client.call::<NotifyMaintenance>(&path("south", "c1"), &NoQuery {}, &hint).await), 200);
    }
    // Nothing new is made on a closed channel.
    let (key, _) = issue(&pair.north, "south", 1_000).await;
    accept(&pair.south, &key).await;
    let (ours, theirs) = tokio::join!(until_features(&pair.south, "north", 3), until_features(&pair.north, "south", 3));
    assert_eq!(ours, theirs);
    assert!(!ours.contains(&"c1".to_owned()), "{ours:?}");
    for id in &opened {
        let over = pair.north.ask(Method::DELETE, &format!("{MAINTENANCE}/{id}")).go(StatusCode::OK).await.body;
        assert_eq!(over["state"], "DONE");
        pair.north.ask(Method::DELETE, &format!("{MAINTENANCE}/{id}")).go(StatusCode::CONFLICT).await;
    }
    // It is over on both sides, and the channel is used.
    tokio::join!(
        pair.south.until(MAINTENANCE, |list| state(list, "THEIRS").is_empty()),
        until_features(&pair.south, "north", 4),
        until_features(&pair.north, "south", 4)
    );
    for (field, body) in [
        ("/channelId", work("south", "i1", "c9")),
        ("/provider", work("east", "i1", "c1")),
        (
            "/endTime",
            json!({"provider": "south", "environmentId": "e1", "interconnectId": "i1", "channelId": "c1",
            "endTime": "2020-01-01T00:00:00Z"}),
        ),
    ] {
        let refused = open(&pair.north, &body).go(StatusCode::BAD_REQUEST).await;
        assert_eq!(refused.pointers(), [field]);
    }
    let nobodys = format!("{MAINTENANCE}/{}", uuid::Uuid::nil());
    pair.north.ask(Method::GET, &nobodys).go(StatusCode::NOT_FOUND).await;
    pair.north.ask(Method::DELETE, &nobodys).go(StatusCode::NOT_FOUND).await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_the_peer_cannot_be_asked_about_does_not_begin() {
    let Pair { north, south, ca: _ca } = Pair::start().await;
    north.until(MAINTENANCE, |list| list["maintenanceEvents"] == json!([])).await;
    south.end().await;
    let end = (north.time.now() + jiff::SignedDuration::from_hours(1)).to_string();
    let mut work = json!({"provider": "south", "environmentId": "e1", "interconnectId": "i1", "channelId": "c1",
        "endTime": end});
    let event = north.ask(Method::POST, MAINTENANCE).json(&work).go(StatusCode::CREATED).await.body;
    north.time.step(Duration::from_secs(60));
    let shown = north.get(&format!("{MAINTENANCE}/{}", event["id"].as_str().unwrap())).await;
    assert_eq!(shown["state"], "SCHEDULED");
    // An emergency waits for nobody, and is told of as soon as somebody hears it.
    work["channelId"] = json!("c2");
    work["emergency"] = json!(true);
    let event = north.ask(Method::POST, MAINTENANCE).json(&work).go(StatusCode::CREATED).await.body;
    assert_eq!(event["state"], "UNDER_WAY");
    north.end().await;
}
