//! Google's interconnects and Cloud Routers over the wire.

use std::{num::NonZeroU32, time::Duration};

use serde_json::{Value, json};
use tieline_lab::clouds::{CloudSettings, Corruption, Delays, Effect, Fault, Lag, network::SessionStatus};
use tieline_openapi::v1::{BfdState, BgpState};

use super::bench::{GoogleBench, INTERCONNECT, quick, standing, until};

const ATTACHMENTS: &str = "interconnectAttachments";

fn names(items: &Value) -> Vec<String> {
    items.as_array().into_iter().flatten().filter_map(|i| i["name"].as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn an_attachment_with_its_peer_lives_and_leaves_nothing_behind() {
    let google = GoogleBench::start(quick()).await;
    google.bench.plug(INTERCONNECT);
    let before = google.cloud.dump();
    let mut asked = google.new_attachment("ours");
    asked["vlanTag8021q"] = json!(1025);
    asked["mtu"] = json!(1500);
    asked["candidateSubnets"] = json!(["169.254.100.0/24"]);
    let operation = google.call("POST", ATTACHMENTS, Some(&asked)).await;
    assert_eq!((&operation["status"], &operation["operationType"]), (&json!("PENDING"), &json!("insert")));
    let attachment = google.wait_active("ours").await;
    assert_eq!((&attachment["vlanTag8021q"], &attachment["operationalStatus"]), (&json!(1025), &json!("OS_ACTIVE")));
    let net =
        |field: &str| attachment[field].as_str().and_then(|a| a.parse::<ipnet::Ipv4Net>().ok()).expect("an address");
    let (cloud, customer) = (net("cloudRouterIpAddress"), net("customerRouterIpAddress"));
    assert_eq!((cloud.prefix_len(), cloud.trunc()), (29, customer.trunc()));
    assert_eq!(cloud.addr().octets()[..3], [169, 254, 100]);

    let grown = google.with_peer("ours").await;
    google.done("PATCH", &google.router(), Some(&grown)).await;
    let session = until("the session", async || google.bench.session("ours")).await;
    assert_eq!((session.port.as_str(), session.vlan, session.mtu), (INTERCONNECT, 1025, 1500));
    assert_eq!((session.local_ip, session.peer_ip, session.prefix_len), (cloud.addr(), customer.addr(), 29));
    assert_eq!((session.local_asn, session.peer_asn, session.md5.as_deref()), (65010, 64512, Some("s3cretKey")));
    assert_eq!(session.bfd.map(|b| (b.min_tx_ms, b.multiplier)), Some((1000, 5)));
    assert_eq!(google.bench.told.lock().expect("told").len(), 1, "strangers have no session");
    let router = google.get(&google.router()).await;
    assert!(!router.to_string().contains("s3cretKey"), "keys are never shown");
    assert_eq!(names(&router["md5AuthenticationKeys"]).len(), 4);

    // A peer cannot lose its attachment.
    let (status, reason) = google.refused("DELETE", &format!("{ATTACHMENTS}/ours"), &Value::Null).await;
    assert_eq!((status, reason.as_str()), (400, "resourceInUseByAnotherResource"));
    let shrunk = google.without_peer("ours").await;
    google.done("PATCH", &google.router(), Some(&shrunk)).await;
    google.done("DELETE", &format!("{ATTACHMENTS}/ours"), None).await;
    assert_eq!(google.refused("GET", &format!("{ATTACHMENTS}/ours"), &Value::Null).await, (404, "notFound".to_owned()));
    until("the end of the session", async || google.bench.session("ours").is_none().then_some(())).await;
    assert_eq!(google.cloud.dump(), before);
}

#[tokio::test]
async fn status_is_what_the_router_says() {
    let google = GoogleBench::start(quick()).await;
    google.done("POST", ATTACHMENTS, Some(&google.new_attachment("ours"))).await;
    google.wait_active("ours").await;
    google.done("PATCH", &google.router(), Some(&google.with_peer("ours").await)).await;
    let path = format!("{}/getRouterStatus", google.router());
    let peer = async || {
        let status = google.get(&path).await;
        let all = status["result"]["bgpPeerStatus"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|peer| peer["name"] == "ours").expect("our peer")
    };
    assert_eq!(peer().await["status"], "DOWN");
    let learned = tieline_lab::clouds::network::LearnedRoute {
        prefix: "10.0.0.0/16".parse().expect("a prefix"),
        as_path: vec![64512],
        next_hop: "169.254.1.2".parse().expect("an address"),
    };
    let up = SessionStatus {
        bgp: BgpState::Established,
        bfd: BfdState::Up,
        routes_in: 1,
        learned: vec![learned],
        advertised: vec!["10.1.0.0/16".parse().expect("a prefix")],
        established_since: Some("2026-11-21T12:00:00Z".parse().expect("an instant")),
        ..SessionStatus::default()
    };
    google.bench.say("ours", up);
    let said = peer().await;
    assert_eq!(
        (&said["status"], &said["state"], &said["numLearnedRoutes"]),
        (&json!("UP"), &json!("Established"), &json!(1))
    );
    assert_eq!(
        (&said["bfdStatus"]["localState"], &said["advertisedRoutes"][0]["destRange"]),
        (&json!("UP"), &json!("10.1.0.0/16"))
    );
    assert_eq!(google.get(&path).await["result"]["bestRoutes"][0]["asPaths"][0]["asLists"], json!([64512]));
    *google.bench.broken.lock().expect("broken") = true;
    assert_eq!(peer().await["status"], "UNKNOWN");
}

#[tokio::test]
async fn a_patch_replaces_whole_arrays() {
    let google = GoogleBench::start(quick()).await;
    let before = google.get(&google.router()).await;
    assert_eq!(names(&before["bgpPeers"]).len(), 3);
    // Only our own parts are sent: everyone else's are gone. That is the trap.
    google.done("POST", ATTACHMENTS, Some(&google.new_attachment("ours"))).await;
    let grown = google.with_peer("ours").await;
    let last = |array: &str| json!([grown[array].as_array().and_then(|all| all.last()).expect("ours")]);
    let alone = json!({ "interfaces": last("interfaces"), "bgpPeers": last("bgpPeers"),
                        "md5AuthenticationKeys": last("md5AuthenticationKeys") });
    google.done("PATCH", &google.router(), Some(&alone)).await;
    let after = google.get(&google.router()).await;
    assert_eq!(names(&after["bgpPeers"]), ["ours"]);
    assert_eq!(after["bgp"], before["bgp"], "objects merge");
    assert_eq!(after["network"], before["network"]);
}

#[tokio::test]
async fn what_was_read_can_be_written_back_unchanged() {
    let google = GoogleBench::start(quick()).await;
    let before = google.cloud.dump();
    let router = google.get(&google.router()).await;
    google.done("PATCH", &google.router(), Some(&router)).await;
    assert_eq!(google.cloud.dump(), before, "keys without values keep them");
    google.done("PUT", &google.router(), Some(&router)).await;
    assert_eq!(google.cloud.dump(), before);
}

#[tokio::test]
async fn routers_refuse_what_does_not_hold_together() {
    let google = GoogleBench::start(quick()).await;
    google.done("POST", ATTACHMENTS, Some(&google.new_attachment("ours"))).await;
    google.wait_active("ours").await;
    let before = google.cloud.dump();
    let sound = google.with_peer("ours").await;
    let cases: [(&str, Value); 17] = [
        ("/bgpPeers/3/interfaceName", json!("nowhere")),
        ("/bgpPeers/3/md5AuthenticationKeyName", json!("nowhere")),
        ("/bgpPeers/3/md5AuthenticationKeyName", json!("key-0")), // a stranger's: now used twice, and ours by nobody
        ("/bgpPeers/3/peerIpAddress", json!("169.254.1.1")),
        ("/bgpPeers/3/peerAsn", json!(65010)), // the router's own
        ("/bgpPeers/3/peerAsn", json!(23456)),
        ("/bgpPeers/3/bfd/minTransmitInterval", json!(300)),
        ("/bgpPeers/3/bfd/multiplier", json!(3)),
        ("/bgpPeers/3/bfd/sessionInitializationMode", json!("EAGER")),
        ("/bgpPeers/3/enable", json!("YES")),
        ("/bgpPeers/3/name", json!("peer-legacy-dc-east")), // a stranger's
        ("/interfaces/3/ipRange", json!("169.254.200.1/29")),
        ("/interfaces/3/linkedInterconnectAttachment", json!("interconnectAttachments/legacy-dc-east")),
        ("/interfaces/3/name", json!("Bad")),
        ("/md5AuthenticationKeys/3/key", json!(null)), // a new key needs a value
        ("/md5AuthenticationKeys/3/key", json!("tab\there")),
        ("/bgpPeers/3/unheardOf", json!(1)),
    ];
    for (pointer, value) in cases {
        let mut wrong = sound.clone();
        let (parent, field) = pointer.rsplit_once('/').expect("a field");
        wrong.pointer_mut(parent).expect("the parent")[field] = value.clone();
        let (status, _) = google.refused("PATCH", &google.router(), &wrong).await;
        assert_eq!(status, 400, "{pointer} = {value}");
    }
    for gone in ["interfaces", "md5AuthenticationKeys", "bgpPeers"] {
        let mut wrong = sound.clone();
        wrong[gone] = json!([]);
        assert_eq!(google.refused("PATCH", &google.router(), &wrong).await.0, 400, "dangling after {gone}");
    }
    assert_eq!(google.refused("PATCH", &google.router(), &json!({ "bgp": { "asn": 64999 } })).await.0, 400);
    assert_eq!(google.refused("PATCH", "routers/nowhere", &sound).await, (404, "notFound".to_owned()));
    assert_eq!(google.cloud.dump(), before);
    google.done("PATCH", &google.router(), Some(&sound)).await;
}

#[tokio::test]
async fn one_operation_at_a_time_on_a_router() {
    let delays = Delays { operation_pending_ms: 2_000, operation_running_ms: 3_000, ..Delays::NONE };
    let clock = standing();
    let google = GoogleBench::start_at(CloudSettings { delays, ..quick() }, clock.clone()).await;
    let router = google.get(&google.router()).await;
    let first = google.call("PATCH", &google.router(), Some(&router)).await;
    let name = first["name"].as_str().expect("a name").to_owned();
    let status = async || google.get(&format!("operations/{name}")).await["status"].clone();
    for (ms, wanted) in [(1_999, "PENDING"), (1, "RUNNING"), (2_999, "RUNNING")] {
        clock.advance(Duration::from_millis(ms));
        assert_eq!(status().await, wanted);
        let (code, reason) = google.refused("PATCH", &google.router(), &router).await;
        assert_eq!((code, reason.as_str()), (400, "resourceNotReady"));
    }
    clock.advance(Duration::from_millis(1));
    let done = google.call("POST", &format!("operations/{name}/wait"), None).await;
    assert_eq!((&done["status"], &done["progress"]), (&json!("DONE"), &json!(100)));
    google.call("PATCH", &google.router(), Some(&router)).await;
}

#[tokio::test]
async fn an_attachment_is_provisioned_in_time() {
    let delays = Delays { operation_running_ms: 1_000, attachment_provision_ms: 2_000, ..Delays::NONE };
    let clock = standing();
    let google = GoogleBench::start_at(CloudSettings { delays, ..quick() }, clock.clone()).await;
    google.call("POST", ATTACHMENTS, Some(&google.new_attachment("slow"))).await;
    for (ms, state, addressed) in
        [(999, "UNPROVISIONED", false), (1, "UNPROVISIONED", true), (1_999, "UNPROVISIONED", true), (1, "ACTIVE", true)]
    {
        clock.advance(Duration::from_millis(ms));
        let attachment = google.get(&format!("{ATTACHMENTS}/slow")).await;
        assert_eq!((&attachment["state"], attachment["cloudRouterIpAddress"].is_string()), (&json!(state), addressed));
    }
}

#[tokio::test]
async fn attachments_refuse_wrong_requests() {
    let google = GoogleBench::start(quick()).await;
    let before = google.cloud.dump();
    let cases = [
        ("name", json!("Upper"), 400),
        ("name", json!("ends-"), 400),
        ("name", json!("x".repeat(64)), 400),
        ("name", json!(null), 400),
        ("name", json!("legacy-dc-east"), 409),
        ("interconnect", json!("nowhere"), 404),
        ("interconnect", json!("routers/core"), 400),
        ("router", json!("nowhere"), 404),
        ("router", json!(null), 400),
        ("vlanTag8021q", json!(1), 400),
        ("vlanTag8021q", json!(4094), 400),
        ("vlanTag8021q", json!(401), 400), // a stranger's
        ("mtu", json!(9000), 400),
        ("bandwidth", json!("BPS_9G"), 400),
        ("candidateSubnets", json!(["10.0.0.0/29"]), 400),
        ("candidateSubnets", json!(["169.254.9.0/30"]), 400),
        ("candidateSubnets", json!(vec!["169.254.9.0/29"; 17]), 400),
        ("candidateCloudRouterIpAddress", json!("169.254.9.1/29"), 400), // alone
        ("subnetLength", json!(28), 400),
        ("type", json!("PARTNER"), 400),
        ("edgeAvailabilityDomain", json!("AVAILABILITY_DOMAIN_1"), 400),
        ("surprise", json!(1), 400),
    ];
    for (field, value, wanted) in cases {
        let mut asked = google.new_attachment("ours");
        asked[field] = value.clone();
        assert_eq!(google.refused("POST", ATTACHMENTS, &asked).await.0, wanted, "{field} = {value}");
    }
    let again = google.refused("POST", &format!("{ATTACHMENTS}?requestId=x"), &google.new_attachment("ours")).await;
    assert_eq!(again.0, 400);
    assert_eq!(google.cloud.dump(), before);
}

#[tokio::test]
async fn the_cloud_picks_and_says_when_it_cannot() {
    let google = GoogleBench::start(quick()).await;
    // A stranger's peer holds 169.254.61.0/29.
    let mut asked = google.new_attachment("full");
    asked["candidateSubnets"] = json!(["169.254.61.0/29"]);
    let operation = google.done("POST", ATTACHMENTS, Some(&asked)).await;
    assert_eq!(operation["error"]["errors"][0]["code"], "IP_SPACE_EXHAUSTED");
    assert_eq!(google.refused("GET", &format!("{ATTACHMENTS}/full"), &Value::Null).await.0, 404);
    asked["candidateSubnets"] = json!(["169.254.61.0/29", "169.254.90.8/29"]);
    google.done("POST", ATTACHMENTS, Some(&asked)).await;
    assert_eq!(google.wait_active("full").await["cloudRouterIpAddress"], "169.254.90.9/29");
    let mut pair = google.new_attachment("pair");
    pair["candidateCloudRouterIpAddress"] = json!("169.254.91.4/30");
    pair["candidateCustomerRouterIpAddress"] = json!("169.254.91.5/30");
    google.done("POST", ATTACHMENTS, Some(&pair)).await;
    let given = google.wait_active("pair").await;
    assert_eq!(given["customerRouterIpAddress"], "169.254.91.5/30");
    assert_eq!((&given["mtu"], &given["bandwidth"]), (&json!(1440), &json!("BPS_10G")));
    assert_eq!(given["vlanTag8021q"], 3, "the lowest free one; \"full\" took 2");
}

#[tokio::test]
async fn the_same_request_id_is_the_same_operation() {
    let google = GoogleBench::start(quick()).await;
    let path = format!("{ATTACHMENTS}?requestId=7b1f1c1e-3d0a-4b52-9c8e-0a6c5f0d1e2f");
    let asked = google.new_attachment("ours");
    let first = google.call("POST", &path, Some(&asked)).await;
    let second = google.call("POST", &path, Some(&asked)).await;
    assert_eq!(first["name"], second["name"]);
    assert_eq!(google.refused("POST", &path, &google.new_attachment("other")).await.0, 400);
    let short = GoogleBench::start(CloudSettings { request_id_lifetime_ms: 0, ..quick() }).await;
    short.call("POST", &path, Some(&asked)).await;
    assert_eq!(short.refused("POST", &path, &asked).await, (409, "alreadyExists".to_owned()));
}

#[tokio::test]
async fn lists_have_pages_filters_and_lag() {
    let google = GoogleBench::start(quick()).await;
    for n in 0..5 {
        google.done("POST", ATTACHMENTS, Some(&google.new_attachment(&format!("ours-{n}")))).await;
    }
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = google.get(&format!("{ATTACHMENTS}?maxResults=3&pageToken={token}")).await;
        seen.extend(names(&page["items"]));
        match page["nextPageToken"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    let mut sorted = seen.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!((seen.len(), &seen), (8, &sorted));
    let one = google.get(&format!("{ATTACHMENTS}?filter=name%20%3D%20%22ours-3%22")).await;
    assert_eq!(names(&one["items"]), ["ours-3"]);
    assert_eq!(google.refused("GET", &format!("{ATTACHMENTS}?pageToken=x"), &Value::Null).await.0, 400);
    assert_eq!(names(&google.get("global/interconnects").await["items"]), ["xcloud-aws-1", "xcloud-aws-2"]);
    google.get(&format!("global/interconnects/{INTERCONNECT}")).await;
    assert_eq!(names(&google.get("routers").await["items"]), ["core"]);
    google.get("operations").await;
    google.done("POST", ATTACHMENTS, Some(&google.new_attachment("late"))).await;
    google.wait_active("late").await;
    let listed = async || names(&google.get(ATTACHMENTS).await["items"]).contains(&"late".to_owned());
    google.cloud.set_lag(Lag { list_ms: 60_000, read_ms: 0 });
    assert!(!listed().await);
    google.cloud.set_lag(Lag { list_ms: 0, read_ms: 0 });
    assert!(listed().await);
}

#[tokio::test]
async fn attachments_change_what_may_change() {
    let google = GoogleBench::start(quick()).await;
    google.done("POST", ATTACHMENTS, Some(&google.new_attachment("ours"))).await;
    let path = format!("{ATTACHMENTS}/ours");
    google.done("PATCH", &path, Some(&json!({ "mtu": 1460, "description": "d", "adminEnabled": false }))).await;
    let changed = google.wait_active("ours").await;
    assert_eq!(
        (&changed["mtu"], &changed["description"], &changed["adminEnabled"]),
        (&json!(1460), &json!("d"), &json!(false))
    );
    google.done("PATCH", &path, Some(&changed)).await;
    for wrong in [json!({ "vlanTag8021q": 99 }), json!({ "router": "other" }), json!({ "bandwidth": "BPS_3G" })] {
        assert_eq!(google.refused("PATCH", &path, &wrong).await.0, 400, "{wrong}");
    }
}

#[tokio::test]
async fn faults_throttling_and_strangers_at_the_door() {
    let google = GoogleBench::start(quick()).await;
    let insert = "interconnectAttachments.insert";
    google.cloud.inject(Fault::once(insert, Effect::HangUp { after_commit: true }));
    google.try_call("POST", ATTACHMENTS, Some(&google.new_attachment("a"))).await.expect_err("no answer");
    google.wait_active("a").await;
    google.cloud.inject(Fault::once(insert, Effect::Unavailable { after_commit: false }));
    assert_eq!(
        google.refused("POST", ATTACHMENTS, &google.new_attachment("b")).await,
        (500, "backendError".to_owned())
    );
    assert_eq!(google.refused("GET", &format!("{ATTACHMENTS}/b"), &Value::Null).await.0, 404);
    let slow = GoogleBench::start(CloudSettings { calls_per_second: NonZeroU32::new(1), ..quick() }).await;
    slow.get("routers").await;
    assert_eq!(slow.refused("GET", "routers", &Value::Null).await, (403, "rateLimitExceeded".to_owned()));
    let closed = GoogleBench::start(CloudSettings { allow_anonymous: false, ..quick() }).await;
    assert_eq!(closed.refused("GET", "routers", &Value::Null).await, (401, "required".to_owned()));
    let elsewhere = format!("{}/compute/v1/projects/other/regions/us-east4/routers", google.cloud.url());
    assert_eq!(reqwest::get(elsewhere).await.expect("an answer").status(), 404);
    let nowhere = format!("{}/compute/v1/projects/tieline-lab/zones/z/instances", google.cloud.url());
    assert_eq!(reqwest::get(nowhere).await.expect("an answer").status(), 404);
}

#[tokio::test]
async fn a_corrupted_router_tells_its_network() {
    let google = GoogleBench::start(quick()).await;
    google.done("POST", ATTACHMENTS, Some(&google.new_attachment("ours"))).await;
    google.wait_active("ours").await;
    google.done("PATCH", &google.router(), Some(&google.with_peer("ours").await)).await;
    until("the session", async || google.bench.session("ours")).await;
    let change = |kind: &str, id: &str, pointer: &str, value| {
        let corruption = Corruption { kind: kind.into(), id: id.into(), pointer: pointer.into(), value };
        google.cloud.corrupt(&corruption).expect("a field");
    };
    change("router", "core", "/md5AuthenticationKeys/ours/key", json!("other"));
    change("router", "core", "/bgpPeers/ours/peerAsn", json!(64999));
    change("router", "core", "/bgpPeers/ours/peerIpAddress", json!("169.254.1.9"));
    change("interconnectAttachment", "ours", "/vlanTag8021q", json!(3999));
    let session = until("all changes", async || google.bench.session("ours").filter(|s| s.vlan == 3999)).await;
    assert_eq!((session.md5.as_deref(), session.peer_asn), (Some("other"), 64999));
    assert_eq!(session.peer_ip.to_string(), "169.254.1.9");
}
