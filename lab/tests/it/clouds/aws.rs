//! AWS Direct Connect over the wire.

use std::{num::NonZeroU32, time::Duration};

use serde_json::json;
use tieline_lab::clouds::{
    ADMIN_HEADER, CloudSettings, Corruption, Delays, Effect, Fault, Lag,
    network::{LearnedRoute, SessionStatus},
};
use tieline_openapi::v1::BgpState;

use super::bench::{AwsBench, PORT, quick, standing, until};

const CLIENT: &str = "DirectConnectClientException";

fn established() -> SessionStatus {
    SessionStatus {
        bgp: BgpState::Established,
        learned: vec![LearnedRoute {
            prefix: "10.1.0.0/16".parse().expect("a prefix"),
            as_path: vec![65010],
            next_hop: "169.254.100.2".parse().expect("an address"),
        }],
        advertised: vec!["10.0.0.0/16".parse().expect("a prefix")],
        established_since: Some("2026-11-21T12:00:00Z".parse().expect("an instant")),
        ..SessionStatus::default()
    }
}

#[tokio::test]
async fn a_virtual_interface_lives_and_leaves_nothing_behind() {
    let aws = AwsBench::start(quick()).await;
    let before = aws.cloud.dump();
    let mut asked = aws.new_interface("first", 1025);
    let new = &mut asked["newPrivateVirtualInterface"];
    new["authKey"] = json!("s3cretKey");
    new["amazonAddress"] = json!("169.254.100.1/29");
    new["customerAddress"] = json!("169.254.100.2/29");
    new["tags"] = json!([{ "key": "tieline:instance", "value": "x" }]);
    let vif = aws.call("CreatePrivateVirtualInterface", asked).await;
    let id = vif["virtualInterfaceId"].as_str().expect("an id").to_owned();
    assert_eq!(vif["virtualInterfaceState"], "pending");
    assert_eq!((&vif["asn"], &vif["asnLong"], &vif["mtu"]), (&json!(65010), &json!(65010), &json!(1500)));

    // No light: it stays pending, and the router is told nothing.
    aws.wait_state(&id, "pending").await;
    assert!(aws.bench.session(&id).is_none());
    aws.bench.plug(PORT);
    aws.wait_state(&id, "down").await;
    let session = until("the session", async || aws.bench.session(&id)).await;
    assert_eq!((session.port.as_str(), session.vlan, session.local_asn, session.peer_asn), (PORT, 1025, 64512, 65010));
    assert_eq!((session.prefix_len, session.md5.as_deref()), (29, Some("s3cretKey")));
    assert_eq!(session.bfd.map(|b| (b.min_tx_ms, b.multiplier)), Some((300, 3)));
    assert_eq!((session.advertised.len(), session.import_limit), (1, Some(100)));
    assert_eq!(aws.bench.told.lock().expect("told").len(), 1, "strangers have no session");

    aws.bench.say(&id, established());
    let vif = aws.wait_state(&id, "available").await;
    assert_eq!(
        (&vif["bgpPeers"][0]["bgpStatus"], &vif["bgpPeers"][0]["bgpPeerState"]),
        (&json!("up"), &json!("available"))
    );
    let routes = aws.call("ListVirtualInterfaceRoutes", json!({ "virtualInterfaceId": id })).await;
    assert_eq!(routes["routes"].as_array().map(Vec::len), Some(2));
    assert_eq!(routes["routes"][0]["asPath"][0]["path"], json!([65010]));
    let filters = json!({ "virtualInterfaceId": id, "filters": { "routeDirection": "advertised" } });
    assert_eq!(aws.call("ListVirtualInterfaceRoutes", filters).await["routes"][0]["cidr"], "10.0.0.0/16");

    let answer = aws.call("DeleteVirtualInterface", json!({ "virtualInterfaceId": id })).await;
    assert_eq!(answer["virtualInterfaceState"], "deleting");
    aws.wait_state(&id, "deleted").await;
    until("the end of the session", async || aws.bench.session(&id).is_none().then_some(())).await;
    assert_eq!(aws.cloud.dump(), before);
}

#[tokio::test]
async fn states_last_as_long_as_they_should() {
    let delays = Delays { virtual_interface_pending_ms: 5_000, deleting_ms: 7_000, ..Delays::NONE };
    let clock = standing();
    let aws = AwsBench::start_at(CloudSettings { delays, tombstone_ms: 9_000, ..quick() }, clock.clone()).await;
    aws.bench.plug(PORT);
    let vif = aws.call("CreatePrivateVirtualInterface", aws.new_interface("slow", 1025)).await;
    let id = vif["virtualInterfaceId"].as_str().expect("an id").to_owned();
    let state = async || aws.interface(&id).await["virtualInterfaceState"].clone();
    let later = |ms| clock.advance(Duration::from_millis(ms));
    later(4_999);
    assert_eq!(state().await, "pending");
    later(1);
    assert_eq!(state().await, "down");
    aws.call("DeleteVirtualInterface", json!({ "virtualInterfaceId": id })).await;
    later(6_999);
    assert_eq!(state().await, "deleting");
    // Until it is gone the VLAN is held.
    let (_, message) = aws.refused("CreatePrivateVirtualInterface", aws.new_interface("next", 1025)).await;
    assert!(message.contains("already in use"), "{message}");
    later(1);
    assert_eq!(state().await, "deleted");
    aws.call("CreatePrivateVirtualInterface", aws.new_interface("next", 1025)).await;
    later(8_999);
    assert_eq!(state().await, "deleted");
    later(1);
    assert_eq!(state().await, json!(null), "the tombstone is gone");
}

#[tokio::test]
async fn what_the_caller_omits_is_filled_in() {
    let aws = AwsBench::start(quick()).await;
    let mut asked = aws.new_interface("auto", 1025);
    asked["newPrivateVirtualInterface"]["asnLong"] = json!(4_200_000_001_u32);
    let vif = aws.call("CreatePrivateVirtualInterface", asked).await;
    assert_eq!((&vif["asn"], &vif["asnLong"]), (&json!(0), &json!(4_200_000_001_u32)));
    assert!(vif["authKey"].as_str().is_some_and(|key| key.len() >= 6), "MD5 is always on");
    let net = |field: &str| vif[field].as_str().and_then(|a| a.parse::<ipnet::Ipv4Net>().ok()).expect("an address");
    let (amazon, customer) = (net("amazonAddress"), net("customerAddress"));
    assert_eq!((amazon.prefix_len(), amazon.trunc()), (30, customer.trunc()));
    assert_ne!(amazon.addr(), customer.addr());
    assert!(amazon.addr().octets().starts_with(&[169, 254]));
}

#[tokio::test]
async fn wrong_requests_are_refused_and_change_nothing() {
    let aws = AwsBench::start(quick()).await;
    let before = aws.cloud.dump();
    let cases = [
        ("vlan", json!(0)),
        ("vlan", json!(4095)),
        ("vlan", json!(301)), // a stranger's
        ("asn", json!(0)),
        ("asn", json!(2_147_483_647_i64)),
        ("asn", json!(64512)), // the gateway's own
        ("asnLong", json!(4_294_967_295_i64)),
        ("mtu", json!(9001)),
        ("authKey", json!("short")),
        ("authKey", json!("x".repeat(81))),
        ("virtualInterfaceName", json!("Under_Score")),
        ("virtualInterfaceName", json!("x".repeat(101))),
        ("amazonAddress", json!("169.254.100.1/30")), // alone
        ("directConnectGatewayId", json!("00000000-0000-0000-0000-000000000000")),
        ("virtualGatewayId", json!("vgw-1")),
        ("rateLimit", json!("11Gbps")),
        ("rateLimit", json!("20Gbps")), // more than the port
        ("prefixPoolAllocatedCountIpv4", json!(6_000)),
        ("tags", json!([{ "key": "aws:x" }])),
        ("vlan", json!(null)),
        ("virtualInterfaceName", json!(null)),
    ];
    for (field, value) in cases {
        let mut asked = aws.new_interface("wrong", 1025);
        asked["newPrivateVirtualInterface"][field] = value.clone();
        let (code, message) = aws.refused("CreatePrivateVirtualInterface", asked).await;
        assert_eq!(code, CLIENT, "{field} = {value}: {message}");
    }
    for (amazon, customer) in [
        ("169.254.100.1/30", "169.254.100.6/30"),
        ("169.254.100.0/30", "169.254.100.1/30"),
        ("169.254.100.1/30", "169.254.100.1/30"),
        ("169.254.100.1/30", "169.254.100.2/29"),
        ("169.254.100.1", "169.254.100.2"),
    ] {
        let mut asked = aws.new_interface("wrong", 1025);
        asked["newPrivateVirtualInterface"]["amazonAddress"] = json!(amazon);
        asked["newPrivateVirtualInterface"]["customerAddress"] = json!(customer);
        assert_eq!(aws.refused("CreatePrivateVirtualInterface", asked).await.0, CLIENT, "{amazon} {customer}");
    }
    let mut asked = aws.new_interface("wrong", 1025);
    asked["newPrivateVirtualInterface"]["tags"] = json!([{ "key": "a" }, { "key": "a" }]);
    assert_eq!(aws.refused("CreatePrivateVirtualInterface", asked).await.0, "DuplicateTagKeysException");
    for port in ["dxlag-nowhere0", "dxcon-fg0000010"] {
        let mut asked = aws.new_interface("wrong", 1025);
        asked["connectionId"] = json!(port);
        assert_eq!(aws.refused("CreatePrivateVirtualInterface", asked).await.0, CLIENT, "{port}");
    }
    assert_eq!(aws.refused("CreatePrivateVirtualInterface", json!({})).await.0, CLIENT);
    assert_eq!(aws.refused("DeleteVirtualInterface", json!({ "virtualInterfaceId": "dxvif-0" })).await.0, CLIENT);
    assert_eq!(
        aws.refused("DescribeVirtualInterfaces", json!({ "maxResults": "x" })).await.0,
        "SerializationException"
    );
    assert_eq!(aws.refused("LaunchRocket", json!({})).await.0, "UnknownOperationException");
    assert_eq!(aws.cloud.dump(), before);
}

#[tokio::test]
async fn a_lag_takes_fifty_one_virtual_interfaces() {
    let aws = AwsBench::start(quick()).await;
    for n in 0..48 {
        aws.call("CreatePrivateVirtualInterface", aws.new_interface(&format!("n{n}"), 1025 + n)).await;
    }
    let (code, message) = aws.refused("CreatePrivateVirtualInterface", aws.new_interface("one-more", 2000)).await;
    assert!(code == CLIENT && message.contains("maximum number"), "{message}");
    // Pages: every interface once, in order.
    let (mut seen, mut token) = (Vec::new(), json!(null));
    loop {
        let page = aws.call("DescribeVirtualInterfaces", json!({ "maxResults": 20, "nextToken": token })).await;
        let all = page["virtualInterfaces"].as_array().cloned().unwrap_or_default();
        assert!(all.len() <= 20);
        seen.extend(all.iter().map(|vif| vif["virtualInterfaceId"].as_str().unwrap_or_default().to_owned()));
        token = page["nextToken"].clone();
        if token.is_null() {
            break;
        }
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!((count, seen.len()), (51, 51));
    let lags = aws.call("DescribeLags", json!({ "maxResults": 1 })).await;
    assert_eq!(lags["lags"][0]["prefixPoolUnallocatedCountIpv4"], 0);
    let foreign = json!({ "nextToken": lags["nextToken"] });
    assert_eq!(aws.refused("DescribeVirtualInterfaces", foreign).await.0, CLIENT);
}

#[tokio::test]
async fn peers_come_and_go_but_the_last_one_stays() {
    let aws = AwsBench::start(quick()).await;
    aws.bench.plug(PORT);
    let vif = aws.call("CreatePrivateVirtualInterface", aws.new_interface("peers", 1025)).await;
    let id = vif["virtualInterfaceId"].clone();
    let second = json!({ "virtualInterfaceId": id, "newBGPPeer": { "asn": 65011, "addressFamily": "ipv4" } });
    assert_eq!(aws.refused("CreateBGPPeer", second).await.0, CLIENT);
    let v6 = json!({ "virtualInterfaceId": id, "newBGPPeer": { "asn": 65010, "addressFamily": "ipv6" } });
    let grown = aws.call("CreateBGPPeer", v6).await["virtualInterface"].take();
    let peers = grown["bgpPeers"].as_array().cloned().unwrap_or_default();
    assert_eq!(peers.len(), 2);
    assert!(peers[1]["customerAddress"].as_str().is_some_and(|a| a.ends_with("/125")));
    let by_address = json!({ "virtualInterfaceId": id, "asn": 65010, "customerAddress": peers[1]["customerAddress"] });
    aws.call("DeleteBGPPeer", by_address).await;
    let id = id.as_str().expect("an id");
    until("one peer", async || (aws.interface(id).await["bgpPeers"].as_array()?.len() == 1).then_some(())).await;
    let last = json!({ "virtualInterfaceId": id, "bgpPeerId": peers[0]["bgpPeerId"] });
    assert!(aws.refused("DeleteBGPPeer", last).await.1.contains("last BGP peer"));
}

#[tokio::test]
async fn everything_that_exists_before_is_described() {
    let aws = AwsBench::start(quick()).await;
    aws.bench.plug(PORT);
    let gateway = json!({ "directConnectGatewayId": aws.world.gateway_id });
    let lags = aws.call("DescribeLags", json!({})).await;
    let states: Vec<_> = lags["lags"].as_array().into_iter().flatten().map(|lag| lag["lagState"].clone()).collect();
    assert_eq!(states, [json!("available"), json!("down")], "light is read from the network");
    assert_ne!(lags["lags"][0]["awsDeviceV2"], lags["lags"][1]["awsDeviceV2"]);
    let connections = aws.call("DescribeConnections", json!({ "connectionId": "dxcon-fg0000010" })).await;
    assert_eq!(connections["connections"][0]["lagId"], PORT);
    assert_eq!(aws.refused("DescribeConnections", json!({ "connectionId": "dxcon-0" })).await.0, CLIENT);
    let gateways = aws.call("DescribeDirectConnectGateways", gateway.clone()).await;
    assert_eq!(gateways["directConnectGateways"][0]["amazonSideAsn"], 64512);
    let associations = aws.call("DescribeDirectConnectGatewayAssociations", gateway.clone()).await;
    let allowed = &associations["directConnectGatewayAssociations"][0]["allowedPrefixesToDirectConnectGateway"];
    assert_eq!(allowed[0]["cidr"], "10.0.0.0/16");
    let attached = aws.call("DescribeDirectConnectGatewayAttachments", gateway).await;
    assert_eq!(attached["directConnectGatewayAttachments"].as_array().map(Vec::len), Some(1), "a stranger's");
    assert_eq!(aws.refused("DescribeDirectConnectGatewayAttachments", json!({})).await.0, CLIENT);
    let unknown = aws.call("DescribeVirtualInterfaces", json!({ "virtualInterfaceId": "dxvif-none" })).await;
    assert_eq!(unknown["virtualInterfaces"], json!([]));
}

#[tokio::test]
async fn tags_and_attributes_change() {
    let aws = AwsBench::start(quick()).await;
    let vif = aws.call("CreatePrivateVirtualInterface", aws.new_interface("tagged", 1025)).await;
    let id = vif["virtualInterfaceId"].as_str().expect("an id");
    let arn = format!("arn:aws:directconnect:us-east-1:123456789012:dxvif/{id}");
    aws.call("TagResource", json!({ "resourceArn": arn, "tags": [{ "key": "a", "value": "1" }, { "key": "b" }] }))
        .await;
    aws.call("UntagResource", json!({ "resourceArn": arn, "tagKeys": ["b"] })).await;
    let tags = aws.call("DescribeTags", json!({ "resourceArns": [arn] })).await;
    assert_eq!(tags["resourceTags"][0]["tags"], json!([{ "key": "a", "value": "1" }]));
    assert_eq!(aws.interface(id).await["tags"][0]["key"], "a");
    let many: Vec<_> = (0..50).map(|n| json!({ "key": format!("k{n}") })).collect();
    assert_eq!(aws.refused("TagResource", json!({ "resourceArn": arn, "tags": many })).await.0, "TooManyTagsException");
    let other = json!({ "resourceArn": "arn:aws:directconnect:us-east-1:1:dxvif/x", "tags": [] });
    assert_eq!(aws.refused("TagResource", other).await.0, CLIENT);
    let changed = aws
        .call(
            "UpdateVirtualInterfaceAttributes",
            json!({ "virtualInterfaceId": id, "mtu": 8500, "virtualInterfaceName": "new" }),
        )
        .await;
    assert_eq!((&changed["mtu"], &changed["virtualInterfaceName"]), (&json!(8500), &json!("new")));
    let wrong = json!({ "virtualInterfaceId": id, "mtu": 1400 });
    assert_eq!(aws.refused("UpdateVirtualInterfaceAttributes", wrong).await.0, CLIENT);
}

#[tokio::test]
async fn faults_strike_before_and_after_the_commit() {
    let aws = AwsBench::start(quick()).await;
    let create = "CreatePrivateVirtualInterface";
    let count = async || {
        let all = aws.call("DescribeVirtualInterfaces", json!({})).await;
        all["virtualInterfaces"].as_array().map_or(0, Vec::len)
    };
    let start = count().await;
    aws.cloud.inject(Fault::once(create, Effect::Unavailable { after_commit: false }));
    assert_eq!(aws.refused(create, aws.new_interface("a", 1025)).await.0, "DirectConnectServerException");
    assert_eq!(count().await, start);
    aws.cloud.inject(Fault::once(create, Effect::Unavailable { after_commit: true }));
    aws.refused(create, aws.new_interface("a", 1025)).await;
    assert_eq!(count().await, start + 1);
    aws.cloud.inject(Fault::once(create, Effect::HangUp { after_commit: true }));
    aws.try_call(create, aws.new_interface("b", 1026)).await.expect_err("the connection is closed");
    assert_eq!(count().await, start + 2);
    aws.cloud.inject(Fault::once(create, Effect::Timeout { after_commit: false, hold_ms: 20 }));
    aws.try_call(create, aws.new_interface("c", 1027)).await.expect_err("the connection is closed");
    assert_eq!(count().await, start + 2);
    let refuse = Effect::Refuse { status: 400, code: "LimitExceededException".into(), message: "no".into() };
    aws.cloud.inject(Fault { operation: Some(create.into()), ..Fault::always(refuse) });
    for _ in 0..3 {
        assert_eq!(aws.refused(create, aws.new_interface("c", 1027)).await.0, "LimitExceededException");
    }
    aws.cloud.clear_faults(None);
    aws.call(create, aws.new_interface("c", 1027)).await;
    let creates: Vec<_> = aws.cloud.journal().into_iter().filter(|entry| entry.operation == create).collect();
    assert_eq!((creates.len(), creates[2].status, creates[7].status), (8, None, Some(200)));
    assert!(creates.iter().all(|entry| entry.mutating));
}

#[tokio::test]
async fn a_doubled_request_arrives_a_second_time_when_it_is_told_to() {
    let aws = AwsBench::start(quick()).await;
    let create = "CreatePrivateVirtualInterface";
    let late = async || {
        let asked = reqwest::Client::new().post(format!("{}/_lab/late", aws.cloud.url()));
        let asked = asked.header(ADMIN_HEADER, CloudSettings::default().admin_token).send().await.expect("it answers");
        asked.json::<Vec<u16>>().await.expect("statuses")
    };
    aws.cloud.inject(Fault::once(create, Effect::Double));
    aws.call(create, aws.new_interface("a", 1025)).await;
    assert_eq!(late().await, [400], "its VLAN is taken by the first one");
    aws.cloud.inject(Fault::once(create, Effect::Double));
    let made = aws.call(create, aws.new_interface("b", 1026)).await;
    aws.call("DeleteVirtualInterface", json!({ "virtualInterfaceId": made["virtualInterfaceId"] })).await;
    assert_eq!(late().await, [200], "the first one is gone");
    assert!(late().await.is_empty(), "each arrives once");
}

#[tokio::test]
async fn lists_lag_and_throttling_throttles() {
    let clock = standing();
    let aws = AwsBench::start_at(quick(), clock.clone()).await;
    clock.advance(Duration::from_secs(1));
    aws.cloud.set_lag(Lag { list_ms: 250, read_ms: 0 });
    let vif = aws.call("CreatePrivateVirtualInterface", aws.new_interface("late", 1025)).await;
    let id = vif["virtualInterfaceId"].as_str().expect("an id").to_owned();
    let listed = async || {
        let all = aws.call("DescribeVirtualInterfaces", json!({ "connectionId": PORT })).await;
        all["virtualInterfaces"].as_array().into_iter().flatten().any(|v| v["virtualInterfaceId"] == id.as_str())
    };
    assert!(!listed().await, "a list lags behind the create");
    assert_eq!(aws.interface(&id).await["virtualInterfaceName"], "late");
    clock.advance(Duration::from_millis(249));
    assert!(!listed().await);
    clock.advance(Duration::from_millis(1));
    assert!(listed().await);

    let slow = AwsBench::start(CloudSettings { calls_per_second: NonZeroU32::new(2), ..quick() }).await;
    slow.call("DescribeLags", json!({})).await;
    slow.call("DescribeLags", json!({})).await;
    assert_eq!(slow.refused("DescribeLags", json!({})).await.0, "ThrottlingException");
}

#[tokio::test]
async fn the_lab_corrupts_only_with_its_token() {
    let aws = AwsBench::start(quick()).await;
    aws.bench.plug(PORT);
    let vif = aws.call("CreatePrivateVirtualInterface", aws.new_interface("sound", 1025)).await;
    let id = vif["virtualInterfaceId"].as_str().expect("an id").to_owned();
    let sound = until("the session", async || aws.bench.session(&id)).await;
    let url = format!("{}/_lab/corrupt", aws.cloud.url());
    let http = reqwest::Client::new();
    let change = |pointer: &str, value| {
        json!(Corruption { kind: "virtualInterface".into(), id: id.clone(), pointer: pointer.into(), value })
    };
    let body = change("/vlan", json!(1999));
    let stranger = http.post(&url).json(&body).send().await.expect("an answer");
    assert_eq!(stranger.status(), 401);
    let admin = |body| http.post(&url).header(ADMIN_HEADER, "tieline-lab-admin").json(&body).send();
    for (pointer, value) in [
        ("/vlan", json!(1999)),
        ("/bgpPeers/0/authKey", json!("changed-key")),
        ("/bgpPeers/0/asn", json!(65099)),
        ("/bgpPeers/0/customerAddress", json!("169.254.200.2/30")),
    ] {
        assert_eq!(admin(change(pointer, value)).await.expect("an answer").status(), 204, "{pointer}");
    }
    let wrong = until("all four changes", async || {
        aws.bench.session(&id).filter(|s| s.vlan == 1999 && s.peer_asn == 65099 && s.peer_ip.octets()[2] == 200)
    })
    .await;
    assert_ne!(wrong.md5, sound.md5);
    assert_eq!(admin(change("/vlan", json!("no number"))).await.expect("an answer").status(), 400);
    assert_eq!(admin(change("/no/such", json!(1))).await.expect("an answer").status(), 400);
}

#[tokio::test]
async fn callers_without_a_good_signature_are_refused() {
    let aws = AwsBench::start(CloudSettings { allow_anonymous: false, ..quick() }).await;
    assert_eq!(aws.refused("DescribeLags", json!({})).await.0, "MissingAuthenticationTokenException");
    let with = async |credential: &str| {
        let header = format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host;x-amz-date, Signature=00");
        let request = reqwest::Client::new().post(aws.cloud.url()).header("authorization", header);
        let request =
            request.header("x-amz-target", "OvertureService.DescribeLags").header("x-amz-date", "20261121T120000Z");
        let answer: serde_json::Value =
            serde_json::from_str(&request.body("{}").send().await.expect("an answer").text().await.expect("text"))
                .expect("JSON");
        answer["__type"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(with("NOBODY/20261121/us-east-1/directconnect/aws4_request").await, "UnrecognizedClientException");
    assert_eq!(with("TIELINELABACCESSKEY0/20261121/us-east-1/ec2/aws4_request").await, "InvalidSignatureException");
    assert_eq!(
        with("TIELINELABACCESSKEY0/20261121/eu-west-1/directconnect/aws4_request").await,
        "InvalidSignatureException"
    );
    assert_eq!(
        with("TIELINELABACCESSKEY0/20261121/us-east-1/directconnect/aws4_request").await,
        "InvalidSignatureException"
    );
    assert_eq!(with("nonsense").await, "IncompleteSignatureException");
}

#[tokio::test]
async fn a_router_that_cannot_be_asked_is_unknown_not_down() {
    let aws = AwsBench::start(quick()).await;
    aws.bench.plug(PORT);
    let vif = aws.call("CreatePrivateVirtualInterface", aws.new_interface("asked", 1025)).await;
    let id = vif["virtualInterfaceId"].as_str().expect("an id").to_owned();
    aws.wait_state(&id, "down").await;
    *aws.bench.broken.lock().expect("broken") = true;
    let vif = aws.wait_state(&id, "unknown").await;
    assert_eq!(vif["bgpPeers"][0]["bgpStatus"], "unknown");
}
