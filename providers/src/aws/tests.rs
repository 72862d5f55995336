//! The adapter against a small Direct Connect at a loopback port, every request and answer held against botocore's model.

use proptest::prelude::*;
use secrecy::SecretString;
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tieline_openapi::v1::{BgpState, End};

use super::{PRIVATE_VIRTUAL_INTERFACE, connect, map, rules};
use crate::{
    api::{CloudApi, ListScope, Secrets},
    call::BGP_PASSWORD,
    error::CallErrorKind,
    feature::{Addressing, FeatureSide},
    resource::{Observed, OwnerTag, Presence, ResourceSpec},
    testing::{Answer, Recorded, Server, account, owner, picked, side, target, vendor_model},
};

mod botocore;

const KEY: &str = "abc123DEF456";
const GATEWAY: &str = "5f294f92-bafb-4011-916d-9b0bexample";
const LAG: &str = "dxlag-fg5678gh";

fn ours(ipv4: Addressing) -> FeatureSide {
    side(End::A, LAG, GATEWAY, 64512, 16_550, ipv4)
}

fn spec(side: &FeatureSide) -> ResourceSpec {
    rules().decompose(side).remove(0)
}

fn fixed() -> ResourceSpec {
    spec(&ours(Addressing::Fixed(picked().flipped())))
}

fn secrets() -> Secrets {
    Secrets::from([(BGP_PASSWORD.to_owned(), SecretString::from(KEY))])
}

fn operation(request: &Recorded) -> String {
    let header = request.headers["x-amz-target"].to_str().unwrap();
    header.strip_prefix("OvertureService.").unwrap().to_owned()
}

fn is_change(request: &Recorded) -> bool {
    !operation(request).starts_with("Describe")
}

/// A little Direct Connect: it keeps interfaces and answers in the API's own shapes.
#[derive(Default)]
struct Cloud {
    interfaces: Vec<Value>,
}

impl Cloud {
    fn answer(&mut self, operation: &str, body: &Value) -> Answer {
        match operation {
            "CreatePrivateVirtualInterface" => {
                let mut seen = body["newPrivateVirtualInterface"].clone();
                let id = format!("dxvif-{:08x}", self.interfaces.len());
                let asn = seen["asnLong"].as_i64().unwrap();
                let short = if asn > 65_535 { 0 } else { asn };
                let peer = json!({
                    "bgpPeerId": "dxpeer-1", "asn": short, "asnLong": asn, "authKey": seen["authKey"],
                    "addressFamily": "ipv4", "amazonAddress": seen["amazonAddress"],
                    "customerAddress": seen["customerAddress"], "bgpPeerState": "available", "bgpStatus": "down",
                });
                let object = seen.as_object_mut().unwrap();
                object.insert("asn".to_owned(), json!(short));
                object.insert("connectionId".to_owned(), body["connectionId"].clone());
                object.insert("virtualInterfaceId".to_owned(), json!(id));
                object.insert("virtualInterfaceType".to_owned(), json!("private"));
                object.insert("virtualInterfaceState".to_owned(), json!("pending"));
                object.insert("ownerAccount".to_owned(), json!("123456789012"));
                object.insert("bgpPeers".to_owned(), json!([peer]));
                object.insert("customerRouterConfig".to_owned(), json!(format!("<auth>{KEY}</auth>")));
                self.interfaces.push(seen.clone());
                Answer::Json(200, seen)
            }
            "UpdateVirtualInterfaceAttributes" => {
                let seen = self.find(&body["virtualInterfaceId"]);
                seen["mtu"] = body["mtu"].clone();
                seen["virtualInterfaceName"] = body["virtualInterfaceName"].clone();
                Answer::Json(200, seen.clone())
            }
            "DeleteVirtualInterface" => {
                let seen = self.find(&body["virtualInterfaceId"]);
                seen["virtualInterfaceState"] = json!("deleted");
                Answer::Json(200, json!({ "virtualInterfaceState": "deleting" }))
            }
            "DescribeVirtualInterfaces" => self.describe(body),
            "DescribeDirectConnectGateways" => Answer::Json(200, json!({ "directConnectGateways": [] })),
            "DescribeLags" => Answer::Json(200, json!({ "lags": [{ "lagId": LAG, "ownerAccount": "123456789012" }] })),
            _ => Answer::Json(400, json!({ "__type": "UnknownOperationException" })),
        }
    }

    /// Pages of two.
    fn describe(&self, body: &Value) -> Answer {
        let matches = |seen: &&Value| {
            (body["connectionId"].is_null() || seen["connectionId"] == body["connectionId"])
                && (body["virtualInterfaceId"].is_null() || seen["virtualInterfaceId"] == body["virtualInterfaceId"])
        };
        let all: Vec<&Value> = self.interfaces.iter().filter(matches).collect();
        let start: usize = body["nextToken"].as_str().map_or(0, |token| token.parse().unwrap());
        let mut answer = json!({ "virtualInterfaces": all.iter().skip(start).take(2).collect::<Vec<_>>() });
        if start + 2 < all.len() {
            answer["nextToken"] = json!((start + 2).to_string());
        }
        Answer::Json(200, answer)
    }

    fn find(&mut self, id: &Value) -> &mut Value {
        self.interfaces.iter_mut().find(|seen| seen["virtualInterfaceId"] == *id).unwrap()
    }
}

async fn start(cloud: Arc<Mutex<Cloud>>) -> (Server, Arc<dyn CloudApi>) {
    serve(move |request| cloud.lock().unwrap().answer(&operation(request), &request.body)).await
}

async fn serve(handler: impl Fn(&Recorded) -> Answer + Send + Sync + 'static) -> (Server, Arc<dyn CloudApi>) {
    let model = vendor_model("aws-directconnect.botocore.json");
    let server = Server::start(handler, move |request, status, answer| match &model {
        Some(model) => botocore::violations(model, &operation(request), &request.body, status, answer),
        None => Vec::new(),
    })
    .await;
    let api = connect(&account("aws", "123456789012", "us-east-1", &server.url)).await.unwrap();
    (server, api)
}

fn foreign(id: &str, vlan: u16, kind: &str, state: &str) -> Value {
    json!({
        "virtualInterfaceId": id, "connectionId": LAG, "vlan": vlan, "virtualInterfaceType": kind, "asn": 65_001,
        "asnLong": 65_001, "virtualInterfaceState": state, "ownerAccount": "123456789012", "mtu": 1500,
        "tags": [{ "key": "team", "value": "sales" }],
    })
}

#[tokio::test]
async fn a_life_takes_one_request_a_change_and_leaves_others_alone() {
    let cloud = Arc::new(Mutex::new(Cloud::default()));
    let strangers = [
        foreign("dxvif-s1", 7, "public", "available"),
        foreign("dxvif-s2", 8, "transit", "available"),
        foreign("dxvif-s3", 1025, "private", "deleted"),
    ];
    cloud.lock().unwrap().interfaces.extend(strangers.clone());
    let (server, api) = start(cloud.clone()).await;
    assert_eq!(api.identity(Duration::from_secs(5)).await.unwrap(), "123456789012");
    let wanted = fixed();
    assert!(wanted.ready);
    // Only a stranger's tombstone is in the slot.
    assert!(api.read(&target(&wanted, 1, None)).await.unwrap().is_none());

    server.take_changes(is_change);
    let accepted = api.create(&target(&wanted, 1, None), &secrets()).await.unwrap();
    assert_eq!(accepted.request_id.as_deref(), Some("request-1"));
    let sent = server.take_changes(|_| true);
    assert_eq!(sent.iter().map(operation).collect::<Vec<_>>(), ["CreatePrivateVirtualInterface"]);
    let new = &sent[0].body["newPrivateVirtualInterface"];
    assert_eq!(sent[0].body["connectionId"], LAG);
    assert_eq!(new["authKey"], KEY);
    assert_eq!(
        (&new["amazonAddress"], &new["customerAddress"]),
        (&json!("169.254.61.90/29"), &json!("169.254.61.89/29"))
    );
    assert_eq!((&new["asn"], &new["asnLong"]), (&Value::Null, &json!(16_550)));

    // By slot, as after a lost answer, and by id.
    for id in [None, Some(accepted.cloud_id.as_str())] {
        let seen = api.read(&target(&wanted, 1, id)).await.unwrap().unwrap();
        assert_eq!((seen.cloud_id.as_str(), seen.owner), (accepted.cloud_id.as_str(), Some(owner(1))));
        assert_eq!((seen.presence, seen.bgp), (Presence::Settling, Some(BgpState::Down)));
        assert_eq!(rules().diff(&wanted, &seen), []);
        assert_eq!(seen.learned.ipv4, Some(picked().flipped()));
        assert!(!serde_json::to_string(&seen).unwrap().contains(KEY));
    }
    let mut larger = wanted.clone();
    larger.fields["mtu"] = json!(8500);
    let seen = api.read(&target(&larger, 1, None)).await.unwrap().unwrap();
    let changes = rules().diff(&larger, &seen);
    assert_eq!(changes.iter().map(|c| (c.pointer.as_str(), c.immutable)).collect::<Vec<_>>(), [("/mtu", false)]);
    server.take_changes(is_change);
    api.update(&target(&larger, 1, None), &secrets()).await.unwrap();
    assert_eq!(server.take_changes(is_change).len(), 1);
    let seen = api.read(&target(&larger, 1, Some(&accepted.cloud_id))).await.unwrap().unwrap();
    assert_eq!(rules().diff(&larger, &seen), []);

    server.take_changes(is_change);
    api.delete(&target(&wanted, 1, None)).await.unwrap();
    assert_eq!(server.take_changes(is_change).len(), 1);
    let seen = api.read(&target(&wanted, 1, Some(&accepted.cloud_id))).await.unwrap().unwrap();
    assert_eq!(seen.presence, Presence::Gone);
    let gone = api.delete(&target(&wanted, 1, None)).await.unwrap_err();
    assert_eq!(gone.kind, CallErrorKind::NotFound);
    assert_eq!(server.take_changes(is_change).len(), 0);
    assert_eq!(cloud.lock().unwrap().interfaces[..3], strangers);
    server.assert_valid();
}

#[tokio::test]
async fn what_is_in_the_slot_without_our_tags_is_somebody_elses() {
    let cloud = Arc::new(Mutex::new(Cloud::default()));
    cloud.lock().unwrap().interfaces = vec![
        foreign("dxvif-s1", 7, "private", "available"),
        foreign("dxvif-s2", 9, "private", "available"),
        foreign("dxvif-s3", 1025, "transit", "available"),
    ];
    let (server, api) = start(cloud).await;
    let seen = api.read(&target(&fixed(), 1, None)).await.unwrap().unwrap();
    assert_eq!((seen.cloud_id.as_str(), seen.owner), ("dxvif-s3", None));
    // Not ours: neither deleted nor changed without a recorded id.
    assert_eq!(api.delete(&target(&fixed(), 1, None)).await.unwrap_err().kind, CallErrorKind::NotFound);
    assert!(server.take_changes(is_change).is_empty());
    // The list has every page and every type.
    let scope = ListScope { kind: PRIVATE_VIRTUAL_INTERFACE, parent: None, timeout: Duration::from_secs(5) };
    let (mut ids, mut page) = (Vec::new(), None::<String>);
    loop {
        let answer = api.list(&scope, page.as_deref()).await.unwrap();
        ids.extend(answer.items.into_iter().map(|seen| seen.cloud_id));
        page = answer.next;
        if page.is_none() {
            break;
        }
    }
    assert_eq!(ids, ["dxvif-s1", "dxvif-s2", "dxvif-s3"]);
    server.assert_valid();
}

#[tokio::test]
async fn errors_are_told_and_never_retried() {
    let rows: [(u16, Value, CallErrorKind); 5] = [
        (
            400,
            json!({ "__type": "DirectConnectClientException", "message": format!("VLAN in use, key {KEY}") }),
            CallErrorKind::SlotTaken,
        ),
        (400, json!({ "__type": "ThrottlingException", "message": "Rate exceeded" }), CallErrorKind::Throttled),
        (500, json!({ "__type": "DirectConnectServerException", "message": "oops" }), CallErrorKind::Unavailable),
        (400, json!({ "__type": "ExpiredTokenException", "message": "expired" }), CallErrorKind::Unauthenticated),
        (200, json!({ "vlan": "not a number" }), CallErrorKind::Malformed),
    ];
    for (status, body, kind) in rows {
        let (server, api) = serve(move |_| Answer::Json(status, body.clone())).await;
        let error = api.create(&target(&fixed(), 1, None), &secrets()).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert_eq!(server.requests().len(), 1);
        assert_eq!(error.detail.request_id.as_deref(), Some("request-1"));
        assert!(!format!("{error} {error:?}").contains(KEY), "{error:?}");
    }
}

#[tokio::test]
async fn no_log_of_any_level_has_the_key() {
    let (server, api) = start(Arc::new(Mutex::new(Cloud::default()))).await;
    let (kept, _guard) = crate::testing::logs();
    tracing::trace!("the log works");
    api.create(&target(&fixed(), 1, None), &secrets()).await.unwrap();
    api.read(&target(&fixed(), 1, None)).await.unwrap().unwrap();
    assert_eq!(server.requests().len(), 2);
    let log = kept.lock().unwrap().clone();
    assert!(log.contains("the log works") && !log.contains(KEY), "{log}");
}

#[tokio::test]
async fn silence_is_unknown_and_a_closed_port_is_not_sent() {
    let (server, api) = serve(|_| Answer::Never).await;
    let mut hurried = target(&fixed(), 1, None);
    hurried.timeout = Duration::from_millis(300);
    assert_eq!(api.create(&hurried, &secrets()).await.unwrap_err().kind, CallErrorKind::Unknown);
    assert_eq!(server.requests().len(), 1);

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let api = connect(&account("aws", "1", "us-east-1", &url)).await.unwrap();
    let error = api.create(&target(&fixed(), 1, None), &secrets()).await.unwrap_err();
    assert_eq!(error.kind, CallErrorKind::NotSent, "{error:?}");
}

#[tokio::test]
async fn nothing_is_sent_without_the_password_or_with_addresses_to_come() {
    let (server, api) = serve(|_| Answer::Never).await;
    let error = api.create(&target(&fixed(), 1, None), &Secrets::new()).await.unwrap_err();
    assert_eq!((error.kind, error.detail.code.as_str()), (CallErrorKind::Invalid, "secretMissing"));
    let awaited = spec(&ours(Addressing::Awaited(vec![picked().subnet])));
    assert!(!awaited.ready);
    let error = api.create(&target(&awaited, 1, None), &secrets()).await.unwrap_err();
    assert_eq!(error.kind, CallErrorKind::Invalid);
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_key_pair_from_the_environment_signs_and_no_key_does_not() {
    let path = std::env::temp_dir().join(format!("tieline-aws-{}", std::process::id()));
    std::fs::write(&path, "AKIDEXAMPLE:c2VjcmV0:token\n").unwrap();
    let cloud = Arc::new(Mutex::new(Cloud::default()));
    let (server, api) = start(cloud).await;
    api.identity(Duration::from_secs(5)).await.unwrap();
    assert!(server.requests().iter().all(|request| !request.headers.contains_key("authorization")));
    server.take_changes(is_change);
    let mut signed = account("aws", "1", "us-east-1", &server.url);
    signed.credential_ref = format!("file:{}", path.display());
    connect(&signed).await.unwrap().identity(Duration::from_secs(5)).await.unwrap();
    for request in server.requests() {
        let header = request.headers["authorization"].to_str().unwrap();
        assert!(header.contains("AKIDEXAMPLE/") && header.contains("/us-east-1/directconnect/"), "{header}");
        assert_eq!(request.headers["x-amz-security-token"], "token");
    }
    for wrong in ["only-an-id", "a:b:c:d", ":b", "a:"] {
        std::fs::write(&path, wrong).unwrap();
        let error = connect(&signed).await.err().unwrap().to_string();
        assert!(error.contains("ACCESS_KEY_ID:SECRET_ACCESS_KEY") && !error.contains(wrong), "{error}");
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_four_byte_as_number_is_no_drift() {
    let wide = side(End::A, LAG, GATEWAY, 64512, 4_200_000_001, Addressing::Fixed(picked().flipped()));
    let mut cloud = Cloud::default();
    let seen = created(&mut cloud, &wide, 1);
    assert_eq!(cloud.interfaces[0]["asn"], 0);
    assert_eq!(rules().diff(&spec(&wide), &seen), []);
}

/// What the mapping makes of what the little cloud keeps after a create.
fn created(cloud: &mut Cloud, side: &FeatureSide, n: u128) -> Observed {
    let mut new = spec(side).fields;
    let object = new.as_object_mut().unwrap();
    let connection = object.remove("connectionId").unwrap();
    let tags: Vec<Value> =
        map::owner_tags(&owner(n)).into_iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
    object.insert("tags".to_owned(), json!(tags));
    object.insert("authKey".to_owned(), json!(KEY));
    let body = json!({ "connectionId": connection, "newPrivateVirtualInterface": new });
    let Answer::Json(200, seen) = cloud.answer("CreatePrivateVirtualInterface", &body) else { panic!("refused") };
    map::virtual_interface(&botocore::virtual_interface(&seen)).unwrap()
}

proptest! {
    #[test]
    fn what_is_made_as_wanted_shows_no_drift(vlan in 1u64..=4094, asn in 1u64..4_294_967_295, mtu in 0usize..2, third in 6u8..=160) {
        prop_assume!(asn != 23_456 && asn != 65_535);
        let pair = crate::feature::Ipv4Pair {
            subnet: format!("169.254.{third}.8/29").parse().unwrap(),
            host: format!("169.254.{third}.10").parse().unwrap(),
            peer: format!("169.254.{third}.9").parse().unwrap(),
        };
        let mut wanted = side(End::A, LAG, GATEWAY, 64512, asn, Addressing::Fixed(pair));
        wanted.vlan = vlan.try_into().unwrap();
        wanted.mtu = [1500u64, 8500][mtu].try_into().unwrap();
        let seen = created(&mut Cloud::default(), &wanted, u128::from(vlan));
        prop_assert_eq!(seen.owner, Some(owner(u128::from(vlan))));
        prop_assert_eq!(seen.learned.ipv4, Some(pair));
        prop_assert_eq!(rules().diff(&spec(&wanted), &seen), vec![]);
        prop_assert_eq!(spec(&wanted), spec(&wanted));
    }

    #[test]
    fn tags_and_names_tell_the_owner_again(installation: u32, instance: u128) {
        let tag = OwnerTag { installation, instance: uuid::Uuid::from_u128(instance).into() };
        prop_assert_eq!(OwnerTag::parse(&tag.name()), Some(tag));
        prop_assert_eq!(tag.name().len(), 38);
        let tags: Vec<_> = map::owner_tags(&tag)
            .into_iter()
            .map(|(key, value)| aws_sdk_directconnect::types::Tag::builder().key(key).value(value).build().unwrap())
            .collect();
        prop_assert_eq!(map::owner(&tags), Some(tag));
        prop_assert_eq!(map::owner(&tags[..1]), None);
    }
}

#[test]
fn the_model_refuses_what_botocore_would() {
    let Some(model) = vendor_model("aws-directconnect.botocore.json") else { return };
    let good = json!({ "connectionId": LAG, "newPrivateVirtualInterface": { "virtualInterfaceName": "n", "vlan": 1 } });
    let create = "CreatePrivateVirtualInterface";
    assert!(botocore::violations(&model, create, &good, 400, &Value::Null).is_empty());
    let wrong: [fn(&mut Value); 5] = [
        |body| body["newPrivateVirtualInterface"]["vlan"] = json!("1"),
        |body| body["newPrivateVirtualInterface"]["addressFamily"] = json!("IPv4"),
        |body| body["newPrivateVirtualInterface"]["tags"] = json!([{ "key": "semi;colon" }]),
        |body| body["newPrivateVirtualInterface"]["vlanId"] = json!(1),
        |body| drop(body.as_object_mut().unwrap().remove("connectionId")),
    ];
    for spoil in wrong {
        let mut body = good.clone();
        spoil(&mut body);
        assert_eq!(botocore::violations(&model, create, &body, 400, &Value::Null).len(), 1, "{body}");
    }
}

#[test]
fn states_mean_what_they_say() {
    let rows = [
        ("confirming", Presence::Settling),
        ("verifying", Presence::Settling),
        ("pending", Presence::Settling),
        ("available", Presence::Usable),
        ("down", Presence::Usable),
        ("testing", Presence::Usable),
        ("deleting", Presence::Leaving),
        ("deleted", Presence::Gone),
        ("rejected", Presence::Failed),
        ("unknown", Presence::Settling),
    ];
    for (state, presence) in rows {
        let seen = botocore::virtual_interface(&foreign("dxvif-1", 1, "private", state));
        let seen = map::virtual_interface(&seen).unwrap();
        assert_eq!((seen.presence, seen.provider_state.as_str()), (presence, state));
    }
}

#[test]
fn interfaces_of_every_type_occupy_their_vlan() {
    for kind in ["private", "public", "transit"] {
        let mut seen = foreign("dxvif-1", 1_030, kind, "available");
        seen["connectionId"] = json!("dxlag-1");
        seen["directConnectGatewayId"] = json!("gateway-1");
        seen["amazonAddress"] = json!("169.254.7.1/30");
        seen["customerAddress"] = json!("169.254.7.2/30");
        let seen = map::virtual_interface(&botocore::virtual_interface(&seen)).unwrap();
        let occupied = rules().occupies(&seen);
        assert_eq!(occupied.vlan.map(|(port, vlan)| (port, vlan.get())), Some(("dxlag-1".to_owned(), 1_030)), "{kind}");
        assert_eq!(occupied.subnet, Some(("gateway-1".to_owned(), "169.254.7.0/30".parse().unwrap())), "{kind}");
    }
}
