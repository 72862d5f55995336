//! The adapter against a little Compute Engine at a loopback port, every request and answer held against Google's schemas.

use proptest::prelude::*;
use secrecy::SecretString;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};
use tieline_openapi::v1::{BfdState, BgpState, End};

use super::{INTERCONNECT_ATTACHMENT, ROUTER_PEER, connect, map, router, rules};
use crate::{
    api::{CloudApi, ListScope, Secrets},
    call::BGP_PASSWORD,
    error::{CallErrorKind, Outcome},
    feature::{Addressing, FeatureSide, Ipv4Pair},
    resource::{Presence, ResourceSpec},
    testing::{Answer, Recorded, Server, account, owner, picked, side, target, vendor_model},
};

mod cloud;
mod openapi;

use cloud::{Cloud, PROJECT, is_change};

const KEY: &str = "abc123DEF456";

fn ours(ipv4: Addressing) -> FeatureSide {
    side(End::B, "cci-1", "cr-1", 16_550, 64_512, ipv4)
}

/// The attachment and the peer.
fn specs(side: &FeatureSide) -> [ResourceSpec; 2] {
    rules().decompose(side).try_into().unwrap()
}

fn fixed() -> [ResourceSpec; 2] {
    specs(&ours(Addressing::Fixed(picked())))
}

fn secrets() -> Secrets {
    Secrets::from([(BGP_PASSWORD.to_owned(), SecretString::from(KEY))])
}

async fn start(cloud: Arc<Mutex<Cloud>>) -> (Server, Arc<dyn CloudApi>) {
    serve(move |request| cloud.lock().unwrap().answer(request)).await
}

async fn serve(handler: impl Fn(&Recorded) -> Answer + Send + Sync + 'static) -> (Server, Arc<dyn CloudApi>) {
    let schemas = vendor_model("gcp-compute-v1.interconnect-routers.openapi.json").map(openapi::Schemas::new);
    let server = Server::start(handler, move |request, status, answer| {
        schemas.as_ref().map_or_else(Vec::new, |schemas| schemas.check(request, status, answer))
    })
    .await;
    let api = connect(&account("google", PROJECT, "us-east4", &server.url)).await.unwrap();
    (server, api)
}

#[tokio::test]
async fn a_life_takes_one_request_a_change_and_leaves_the_router_as_it_was() {
    let cloud = Arc::new(Mutex::new(Cloud::new()));
    let (router, attachments) = {
        let mut cloud = cloud.lock().unwrap();
        cloud.slow = 2;
        (cloud.router.clone(), cloud.attachments.clone())
    };
    let (server, api) = start(cloud.clone()).await;
    assert_eq!(api.identity(Duration::from_secs(5)).await.unwrap(), PROJECT);

    let [attachment, peer] = specs(&ours(Addressing::CloudPicks(vec![picked().subnet])));
    assert!(attachment.ready && !peer.ready);
    assert_eq!(peer.after, std::slice::from_ref(&attachment.key));
    assert!(api.read(&target(&attachment, 1, None)).await.unwrap().is_none());
    server.take_changes(is_change);
    let made = api.create(&target(&attachment, 1, None), &Secrets::new()).await.unwrap();
    let sent = server.take_changes(is_change);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].body["name"], owner(1).name());
    assert_eq!(sent[0].body["candidateSubnets"], json!(["169.254.61.88/29"]));
    assert_eq!(sent[0].body["interconnect"], "projects/orders-prod/global/interconnects/cci-1");
    assert!(!sent[0].query.contains("requestId"));

    let seen = api.read(&target(&attachment, 1, None)).await.unwrap().unwrap();
    assert_eq!((seen.cloud_id.as_str(), seen.owner), (made.cloud_id.as_str(), Some(owner(1))));
    assert_eq!((seen.presence, seen.learned.ipv4), (Presence::Usable, Some(picked())));
    assert_eq!(seen.created_at, Some("2026-11-20T22:25:00.123Z".parse().unwrap()));
    assert_eq!(rules().diff(&attachment, &seen), []);

    let [attachment, peer] = fixed();
    assert!(attachment.ready && peer.ready);
    assert_eq!(rules().diff(&attachment, &seen), []);
    assert!(api.read(&target(&peer, 2, None)).await.unwrap().is_none());
    server.take_changes(is_change);
    let made = api.create(&target(&peer, 2, None), &secrets()).await.unwrap();
    let sent = server.take_changes(is_change);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].method, "PATCH");
    assert_eq!(
        sent[0].body["md5AuthenticationKeys"],
        json!([{ "name": "their-key" }, { "name": owner(2).name(), "key": KEY }])
    );
    let linked = &sent[0].body["interfaces"][2]["linkedInterconnectAttachment"];
    assert_eq!(linked.as_str().map(map::last_segment), Some(owner(1).name().as_str()));

    let seen = api.read(&target(&peer, 2, None)).await.unwrap().unwrap();
    assert_eq!((seen.cloud_id.as_str(), seen.owner), (made.cloud_id.as_str(), Some(owner(2))));
    assert_eq!(
        (seen.presence, seen.bgp, seen.bfd),
        (Presence::Usable, Some(BgpState::Established), Some(BfdState::Up))
    );
    assert_eq!(rules().diff(&peer, &seen), []);
    assert!(!serde_json::to_string(&seen).unwrap().contains(KEY));
    let scope = ListScope { kind: ROUTER_PEER, parent: peer.shared_parent.clone(), timeout: Duration::from_secs(5) };
    let listed = api.list(&scope, None).await.unwrap().items;
    assert_eq!(listed.iter().map(|seen| seen.owner).collect::<Vec<_>>(), [None, None, Some(owner(2))]);
    assert!(listed.contains(&seen));

    let mut quieter = ours(Addressing::Fixed(picked()));
    quieter.advertised_prefixes.clear();
    quieter.bandwidth = 5_000.try_into().unwrap();
    let [slower, quieter] = specs(&quieter);
    for (wanted, n, pointer) in [(&quieter, 2, "/advertisedIpRanges"), (&slower, 1, "/bandwidth")] {
        let seen = api.read(&target(wanted, n, None)).await.unwrap().unwrap();
        let changes = rules().diff(wanted, &seen);
        assert_eq!(changes.iter().map(|c| (c.pointer.as_str(), c.immutable)).collect::<Vec<_>>(), [(pointer, false)]);
        server.take_changes(is_change);
        api.update(&target(wanted, n, None), &secrets()).await.unwrap();
        assert_eq!(server.take_changes(is_change).len(), 1);
        let seen = api.read(&target(wanted, n, None)).await.unwrap().unwrap();
        assert_eq!(rules().diff(wanted, &seen), []);
    }

    for (wanted, n) in [(&peer, 2), (&attachment, 1)] {
        server.take_changes(is_change);
        api.delete(&target(wanted, n, None)).await.unwrap();
        assert_eq!(server.take_changes(is_change).len(), 1);
        assert!(api.read(&target(wanted, n, None)).await.unwrap().is_none());
        let again = api.delete(&target(wanted, n, None)).await.unwrap_err();
        assert_eq!(again.kind, CallErrorKind::NotFound);
    }
    let cloud = cloud.lock().unwrap();
    assert_eq!((&cloud.router, &cloud.attachments), (&router, &attachments));
    drop(cloud);
    server.assert_valid();
}

#[tokio::test]
async fn the_last_peer_goes_too() {
    let cloud = Arc::new(Mutex::new(Cloud::new()));
    {
        let mut cloud = cloud.lock().unwrap();
        let name = owner(2).name();
        cloud.router["interfaces"] = json!([{ "name": name, "ipRange": "169.254.61.89/29" }]);
        cloud.router["bgpPeers"] = json!([{ "name": name, "interfaceName": name }]);
        cloud.router["md5AuthenticationKeys"] = json!([{ "name": name }]);
    }
    let (server, api) = start(cloud.clone()).await;
    let [_, peer] = fixed();
    api.delete(&target(&peer, 2, None)).await.unwrap();
    for array in ["interfaces", "bgpPeers", "md5AuthenticationKeys"] {
        assert_eq!(cloud.lock().unwrap().router[array], json!([]), "{array}");
    }
    server.assert_valid();
}

#[tokio::test]
async fn harm_to_others_is_a_conflict_that_names_them() {
    let cloud = Arc::new(Mutex::new(Cloud::new()));
    let name = owner(1).name();
    {
        let mut cloud = cloud.lock().unwrap();
        cloud.attachments.insert(name.clone(), cloud::attachment(&name, 1025, "ACTIVE"));
        cloud.loses = true;
    }
    let (server, api) = start(cloud).await;
    let [_, peer] = fixed();
    let error = api.create(&target(&peer, 2, None), &secrets()).await.unwrap_err();
    assert_eq!((error.kind, error.detail.code.as_str()), (CallErrorKind::Conflict, "foreignPartsChanged"));
    assert_eq!(error.kind.outcome(), Outcome::Unknown);
    assert!(error.detail.message.contains("bgpPeers/their-peer"), "{error}");
    assert_eq!(server.take_changes(is_change).len(), 1);
    server.assert_valid();
}

#[tokio::test]
async fn a_patch_that_fails_after_a_while_is_refused_and_its_text_keeps_no_key() {
    let cloud = Arc::new(Mutex::new(Cloud::new()));
    let name = owner(1).name();
    {
        let mut cloud = cloud.lock().unwrap();
        cloud.attachments.insert(name.clone(), cloud::attachment(&name, 1025, "ACTIVE"));
        cloud.slow = 3;
        cloud.operation_error = Some(json!({ "code": "INVALID_FIELD_VALUE", "message": format!("bad key {KEY}") }));
    }
    let (server, api) = start(cloud).await;
    let [_, peer] = fixed();
    let error = api.create(&target(&peer, 2, None), &secrets()).await.unwrap_err();
    assert_eq!((error.kind, error.detail.code.as_str()), (CallErrorKind::Invalid, "INVALID_FIELD_VALUE"));
    assert!(!format!("{error} {error:?}").contains(KEY), "{error:?}");
    server.assert_valid();
}

#[tokio::test]
async fn a_peer_waits_for_its_attachment_and_its_password() {
    let (server, api) = start(Arc::new(Mutex::new(Cloud::new()))).await;
    let [_, peer] = fixed();
    let error = api.create(&target(&peer, 2, None), &secrets()).await.unwrap_err();
    assert_eq!((error.kind, error.detail.code.as_str()), (CallErrorKind::NotFound, "attachmentMissing"));
    let error = api.create(&target(&peer, 2, None), &Secrets::new()).await.unwrap_err();
    assert_eq!((error.kind, error.detail.code.as_str()), (CallErrorKind::Invalid, "secretMissing"));
    assert!(server.take_changes(is_change).is_empty());
    server.assert_valid();
}

#[tokio::test]
async fn a_taken_vlan_and_a_repeated_create_are_told_apart() {
    let cloud = Arc::new(Mutex::new(Cloud::new()));
    let (server, api) = start(cloud.clone()).await;
    let [attachment, _] = fixed();
    api.create(&target(&attachment, 1, None), &Secrets::new()).await.unwrap();
    let again = api.create(&target(&attachment, 1, None), &Secrets::new()).await.unwrap_err();
    assert_eq!(again.kind, CallErrorKind::Conflict);
    let taken = api.create(&target(&attachment, 9, None), &Secrets::new()).await.unwrap_err();
    assert_eq!(taken.kind, CallErrorKind::SlotTaken);
    // Every page of the list, ours and others'.
    let scope = ListScope { kind: INTERCONNECT_ATTACHMENT, parent: None, timeout: Duration::from_secs(5) };
    let (mut owners, mut page) = (Vec::new(), None::<String>);
    loop {
        let answer = api.list(&scope, page.as_deref()).await.unwrap();
        owners.extend(answer.items.into_iter().map(|seen| seen.owner));
        page = answer.next;
        if page.is_none() {
            break;
        }
    }
    assert_eq!(owners, [None, Some(owner(1))]);
    server.assert_valid();
}

#[tokio::test]
async fn errors_are_told_and_never_retried() {
    let rows: [(u16, &str, &str, CallErrorKind); 9] = [
        (400, "invalid", "Invalid value for field", CallErrorKind::Invalid),
        (401, "authError", "Invalid Credentials", CallErrorKind::Unauthenticated),
        (403, "forbidden", "Required permission", CallErrorKind::Forbidden),
        (403, "quotaExceeded", "Quota 'INTERCONNECT_ATTACHMENTS' exceeded.", CallErrorKind::Quota),
        (403, "rateLimitExceeded", "Rate Limit Exceeded", CallErrorKind::Throttled),
        (409, "alreadyExists", "The resource already exists", CallErrorKind::Conflict),
        (412, "conditionNotMet", "stale", CallErrorKind::Conflict),
        (429, "rateLimitExceeded", "Too many", CallErrorKind::Throttled),
        (503, "backendError", "Unavailable", CallErrorKind::Unavailable),
    ];
    let [attachment, peer] = fixed();
    for (status, reason, message, kind) in rows {
        let (server, api) = serve(move |_| cloud::error(status, reason, message)).await;
        let by_sdk = api.create(&target(&attachment, 1, None), &Secrets::new()).await.unwrap_err();
        let by_wire = api.delete(&target(&peer, 2, None)).await.unwrap_err();
        assert_eq!((by_sdk.kind, by_wire.kind), (kind, kind), "{status} {reason}: {by_sdk} / {by_wire}");
        assert_eq!((by_sdk.detail.message.as_str(), by_sdk.detail.code.as_str()), (message, reason));
        assert_eq!(server.requests().len(), 2);
    }
    let (_server, api) = serve(|_| Answer::Text(404, "<html>no such host</html>")).await;
    assert_eq!(api.read(&target(&attachment, 1, None)).await.unwrap_err().kind, CallErrorKind::Malformed);
    let (_server, api) = serve(|_| Answer::Text(200, "[")).await;
    assert_eq!(api.read(&target(&attachment, 1, None)).await.unwrap_err().kind, CallErrorKind::Malformed);
    assert_eq!(api.delete(&target(&peer, 2, None)).await.unwrap_err().kind, CallErrorKind::Malformed);
}

#[tokio::test]
async fn no_log_of_any_level_has_the_key_or_the_token() {
    let path = std::env::temp_dir().join(format!("tieline-google-log-{}", std::process::id()));
    std::fs::write(&path, "secret-token").unwrap();
    let cloud = Arc::new(Mutex::new(Cloud::new()));
    let name = owner(1).name();
    cloud.lock().unwrap().attachments.insert(name.clone(), cloud::attachment(&name, 1025, "ACTIVE"));
    let (server, _) = start(cloud).await;
    let mut with_token = account("google", PROJECT, "us-east4", &server.url);
    with_token.credential_ref = format!("file:{}", path.display());
    let (kept, _guard) = crate::testing::logs();
    tracing::trace!("the log works");
    let api = connect(&with_token).await.unwrap();
    let [_, peer] = fixed();
    api.create(&target(&peer, 2, None), &secrets()).await.unwrap();
    api.read(&target(&peer, 2, None)).await.unwrap().unwrap();
    let log = kept.lock().unwrap().clone();
    assert!(log.contains("the log works") && !log.contains(KEY) && !log.contains("secret-token"), "{log}");
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn silence_is_unknown_and_a_closed_port_is_not_sent() {
    let [attachment, peer] = fixed();
    let (server, api) = serve(|_| Answer::Never).await;
    for wanted in [&attachment, &peer] {
        let mut hurried = target(wanted, 1, None);
        hurried.timeout = Duration::from_millis(300);
        assert_eq!(api.delete(&hurried).await.unwrap_err().kind, CallErrorKind::Unknown);
    }
    assert_eq!(server.requests().len(), 2);

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let api = connect(&account("google", PROJECT, "us-east4", &url)).await.unwrap();
    for wanted in [&attachment, &peer] {
        let error = api.delete(&target(wanted, 1, None)).await.unwrap_err();
        assert_eq!(error.kind, CallErrorKind::NotSent, "{error:?}");
    }
}

#[tokio::test]
async fn a_list_that_google_calls_incomplete_is_no_list() {
    let warning = json!({ "code": "UNREACHABLE", "message": "some scopes were not reached", "data": [] });
    let (server, api) = serve(move |_| Answer::Json(200, json!({ "items": [], "warning": warning }))).await;
    for kind in [INTERCONNECT_ATTACHMENT, ROUTER_PEER] {
        let scope = ListScope { kind, parent: None, timeout: Duration::from_secs(5) };
        assert_eq!(api.list(&scope, None).await.unwrap_err().kind, CallErrorKind::Unavailable);
    }
    server.assert_valid();
}

#[tokio::test]
async fn a_token_in_a_file_is_read_for_each_call_and_no_token_is_ever_shown() {
    let path = std::env::temp_dir().join(format!("tieline-google-{}", std::process::id()));
    let (server, api) = start(Arc::new(Mutex::new(Cloud::new()))).await;
    api.identity(Duration::from_secs(5)).await.unwrap();
    assert!(!server.take_changes(|_| true)[0].headers.contains_key("authorization"));
    let mut with_token = account("google", PROJECT, "us-east4", &server.url);
    with_token.credential_ref = format!("file:{}", path.display());
    std::fs::write(&path, "first-token\n").unwrap();
    let api = connect(&with_token).await.unwrap();
    let [_, peer] = fixed();
    for token in ["first-token", "second-token"] {
        std::fs::write(&path, token).unwrap();
        api.identity(Duration::from_secs(5)).await.unwrap();
        api.read(&target(&peer, 2, None)).await.unwrap();
        let sent = server.take_changes(|_| true);
        assert_eq!(sent.len(), 2);
        assert!(sent.iter().all(|request| request.headers["authorization"] == format!("Bearer {token}")));
    }
    std::fs::remove_file(&path).unwrap();
    let error = api.read(&target(&peer, 2, None)).await.unwrap_err();
    assert_eq!(error.kind, CallErrorKind::Unauthenticated, "{error:?}");
    assert!(server.requests().is_empty());
    for wrong in ["two words", "{\"type\":\"authorized_user\"}", "{", ""] {
        std::fs::write(&path, wrong).unwrap();
        assert!(connect(&with_token).await.is_err(), "{wrong}");
    }
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn an_endpoint_that_is_no_url_is_refused() {
    for wrong in ["127.0.0.1:80", "ftp://x", "http://"] {
        assert!(connect(&account("google", PROJECT, "us-east4", wrong)).await.is_err(), "{wrong}");
    }
}

/// A router as somebody else may have left it, with members that the API may add one day.
fn any_router() -> impl Strategy<Value = Value> {
    let entry = (prop::option::of(0u32..9), any::<bool>()).prop_map(|(priority, flag)| {
        let mut entry = json!({ "managementType": "MANAGED_BY_USER", "future": { "flag": flag, "list": [1, null] } });
        if let Some(priority) = priority {
            entry["advertisedRoutePriority"] = json!(priority);
        }
        entry
    });
    let array = move |prefix: &'static str| {
        prop::collection::vec(entry.clone(), 0..5).prop_map(move |mut entries| {
            for (n, entry) in entries.iter_mut().enumerate() {
                entry["name"] = json!(format!("{prefix}-{n}"));
            }
            entries
        })
    };
    (array("if"), array("peer"), array("key")).prop_map(|(interfaces, peers, keys)| {
        json!({
            "name": "cr-1", "interfaces": interfaces, "bgpPeers": peers, "md5AuthenticationKeys": keys,
            "nats": [{ "name": "nat" }],
        })
    })
}

/// What a PATCH makes of a router.
fn patched(router: &Value, patch: &Value) -> Value {
    let mut router = router.clone();
    for (array, entries) in patch.as_object().unwrap() {
        router[array] = entries.clone();
    }
    router
}

proptest! {
    #[test]
    fn others_keep_everything_through_create_update_and_delete(before in any_router()) {
        let name = owner(2).name();
        let [_, peer] = fixed();
        let parts = || router::OurParts::new(&name, "projects/p/regions/r/interconnectAttachments/a", &peer.fields, KEY);
        let created = patched(&before, &router::with_ours(&before, &name, parts()));
        prop_assert!(router::has_ours(&created, &name));
        prop_assert_eq!(router::harmed(&before, &created, &name), Vec::<String>::new());
        prop_assert_eq!(rules().diff(&peer, &map::router_peer("p", "r", &created, None, &name).unwrap()), vec![]);
        let updated = patched(&created, &router::with_ours(&created, &name, parts()));
        prop_assert_eq!(&updated, &created);
        let deleted = patched(&updated, &router::without_ours(&updated, &name));
        prop_assert_eq!(&deleted, &before);
        // Taking away anything of others is noticed.
        for array in ["interfaces", "bgpPeers", "md5AuthenticationKeys"] {
            for n in 0..before[array].as_array().unwrap().len() {
                let mut harmed = created.clone();
                harmed[array].as_array_mut().unwrap().remove(n);
                prop_assert_eq!(router::harmed(&before, &harmed, &name).len(), 1);
            }
        }
    }

    #[test]
    fn what_is_made_as_wanted_shows_no_drift(
        vlan in 2u64..=4093, asn in 1u64..4_294_967_295, tier in 0usize..3, third in 6u8..=160, bfd: bool,
        prefixes in prop::collection::vec((1u8..=223, 0u8..=255), 0..4),
    ) {
        prop_assume!(asn != 23_456 && asn != 65_535);
        let pair = Ipv4Pair {
            subnet: format!("169.254.{third}.8/29").parse().unwrap(),
            host: format!("169.254.{third}.9").parse().unwrap(),
            peer: format!("169.254.{third}.10").parse().unwrap(),
        };
        let mut wanted = side(End::B, "cci-1", "cr-1", 16_550, asn, Addressing::Fixed(pair));
        wanted.vlan = vlan.try_into().unwrap();
        wanted.bandwidth = [50u64, 1_000, 400_000][tier].try_into().unwrap();
        wanted.advertised_prefixes = prefixes.iter().map(|(a, b)| format!("{a}.{b}.0.0/16").parse().unwrap()).collect();
        if !bfd {
            wanted.bfd = None;
        }
        let [attachment, peer] = specs(&wanted);
        let mut seen = cloud::attachment(&owner(1).name(), vlan, "ACTIVE");
        seen.as_object_mut().unwrap().extend(openapi::object(attachment.fields.clone()));
        seen["router"] = json!("https://www.googleapis.com/compute/v1/projects/p/regions/r/routers/cr-1");
        let seen = map::attachment("p", "r", &seen).unwrap();
        prop_assert_eq!(seen.learned.ipv4, Some(pair));
        prop_assert_eq!(rules().diff(&attachment, &seen), vec![]);
        let name = owner(2).name();
        let empty = json!({ "name": "cr-1" });
        let parts = router::OurParts::new(&name, "projects/p/regions/r/interconnectAttachments/a", &peer.fields, KEY);
        let seen = map::router_peer("p", "r", &patched(&empty, &router::with_ours(&empty, &name, parts)), None, &name);
        prop_assert_eq!(rules().diff(&peer, &seen.unwrap()), vec![]);
        prop_assert_eq!(specs(&wanted), [attachment, peer]);
    }

    #[test]
    fn names_fit_google_and_every_dependency_is_given(picks: bool) {
        let wanted = ours(if picks { Addressing::CloudPicks(vec![picked().subnet]) } else { Addressing::Fixed(picked()) });
        let mut done = BTreeSet::new();
        let specs = rules().decompose(&wanted);
        for _ in 0..specs.len() {
            let next = specs.iter().find(|s| !done.contains(&s.key) && s.after.iter().all(|key| done.contains(key)));
            prop_assert!(next.is_some(), "a circle, or a dependency that no spec has");
            done.insert(next.unwrap().key.clone());
        }
        prop_assert!(specs.iter().all(|spec| rules().kinds().contains(&spec.key.kind)));
        let name = json!(owner(1).name());
        let grammar = json!({ "pattern": "^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$", "maxLength": 63 });
        prop_assert!(jsonschema::is_valid(&grammar, &name));
    }
}

#[test]
fn the_schemas_refuse_what_google_would() {
    let Some(document) = vendor_model("gcp-compute-v1.interconnect-routers.openapi.json") else { return };
    let schemas = openapi::Schemas::new(document);
    let good = cloud::attachment("a", 7, "ACTIVE");
    assert_eq!(schemas.violations("InterconnectAttachment", &good), Vec::<String>::new());
    for (field, wrong) in
        [("bandwidth", json!("BPS_9G")), ("name", json!("Upper")), ("vlanTag8021Q", json!(1)), ("mtu", json!("1500"))]
    {
        let mut spoiled = good.clone();
        spoiled[field] = wrong;
        assert_eq!(schemas.violations("InterconnectAttachment", &spoiled).len(), 1, "{spoiled}");
    }
    let peer = json!({ "bgpPeers": [{ "name": "p", "bfd": { "sessionInitializationMode": "ON" } }] });
    assert_eq!(schemas.violations("Router", &peer).len(), 1);
}

#[test]
fn states_mean_what_they_say() {
    let rows = [
        ("ACTIVE", Presence::Usable),
        ("UNPROVISIONED", Presence::Settling),
        ("PENDING_PARTNER", Presence::Settling),
        ("STATE_UNSPECIFIED", Presence::Settling),
        ("DEFUNCT", Presence::Failed),
    ];
    for (state, presence) in rows {
        let mut seen = cloud::attachment("a", 7, state);
        assert_eq!(map::attachment("p", "r", &seen).unwrap().presence, presence, "{state}");
        seen.as_object_mut().unwrap().remove("cloudRouterIpAddress");
        assert_ne!(map::attachment("p", "r", &seen).unwrap().presence, Presence::Usable, "{state}");
    }
    let name = owner(2).name();
    let half = json!({ "name": "cr-1", "interfaces": [{ "name": name }], "bgpPeers": [] });
    let seen = map::router_peers("p", "r", &half, None);
    assert_eq!((seen.len(), seen[0].presence, seen[0].owner), (1, Presence::Failed, Some(owner(2))));
}

#[test]
fn attachments_and_all_interfaces_of_a_router_occupy() {
    let mut seen = cloud::attachment("theirs", 1_030, "ACTIVE");
    seen["interconnect"] = json!("https://compute/projects/p/global/interconnects/cci-1");
    seen["router"] = json!("https://compute/projects/p/regions/r/routers/cr-1");
    seen["cloudRouterIpAddress"] = json!("169.254.7.1/29");
    seen["customerRouterIpAddress"] = json!("169.254.7.2/29");
    let occupied = rules().occupies(&map::attachment("p", "r", &seen).unwrap());
    assert_eq!(occupied.vlan.map(|(port, vlan)| (port, vlan.get())), Some(("cci-1".to_owned(), 1_030)));
    assert_eq!(occupied.subnet, Some(("cr-1".to_owned(), "169.254.7.0/29".parse().unwrap())));
    assert_eq!(rules().short_name("projects/p/global/interconnects/cci-1"), "cci-1");

    let router = json!({
        "name": "cr-1", "interfaces": [{ "name": "vpn", "ipRange": "169.254.9.5/30" }],
        "bgpPeers": [{ "name": "vpn-peer", "interfaceName": "vpn", "peerIpAddress": "169.254.9.6", "peerAsn": 65001 }],
    });
    let occupied = rules().occupies(&map::router_peers("p", "r", &router, None)[0]);
    assert_eq!(occupied.vlan, None);
    assert_eq!(occupied.subnet, Some(("cr-1".to_owned(), "169.254.9.4/30".parse().unwrap())));
}
