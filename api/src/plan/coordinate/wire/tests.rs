//! What is written is read as it was meant.

use ipnet::Ipv4Net;
use jiff::SignedDuration;
use proptest::prelude::*;
use std::collections::BTreeMap;
use tieline_openapi::{
    coordinator::{
        ActivationKey, BgpEnd, ConfirmActivationKeyRequest, Connection, Feature, FeatureGuidance, Hosts, KeyContents,
        L3Base, ResourceId, Sensitive,
    },
    units::{Asn, BandwidthMbps, Mtu, Vlan},
};
use uuid::Uuid;

use super::{super::*, *};

fn id(text: &str) -> ResourceId {
    text.parse().unwrap()
}

fn book() -> Book {
    Book::new(Terms {
        us: "north".to_owned(),
        them: "south".to_owned(),
        environments: BTreeMap::new(),
        poll: SignedDuration::from_secs(1),
        settled_poll: SignedDuration::from_secs(1),
    })
}

fn ids() -> impl Strategy<Value = ResourceId> {
    "[A-Za-z0-9_~-]{1,20}".prop_map(|text| text.parse().unwrap())
}

fn places() -> impl Strategy<Value = Place> {
    (ids(), ids(), ids()).prop_map(|(environment, interconnect, connection)| Place {
        environment,
        interconnect,
        connection,
    })
}

fn nets() -> impl Strategy<Value = Ipv4Net> {
    (any::<u32>(), 0u8..=32).prop_map(|(address, length)| Ipv4Net::new(address.into(), length).unwrap().trunc())
}

fn configs() -> impl Strategy<Value = L3Base> {
    let numbers = (1_025u64..=4_094, 576u64..=9_216, any::<u32>(), 24u8..=31, any::<bool>());
    (numbers, "[A-Za-z0-9]{1,80}").prop_map(|((vlan, mtu, address, length, sixth), password)| {
        let subnet = Ipv4Net::new(address.into(), length).unwrap().trunc();
        let mut hosts = subnet.hosts();
        let (first, second) = (hosts.next().unwrap(), hosts.next().unwrap());
        let six = Hosts {
            subnet: "fd00:1::/64".parse().unwrap(),
            first: "fd00:1::1".parse().unwrap(),
            second: "fd00:1::2".parse().unwrap(),
        };
        let end = |provider: &str, asn: u64| BgpEnd { provider: provider.to_owned(), asn: Asn::try_from(asn).unwrap() };
        L3Base {
            vlan: Vlan::try_from(vlan).unwrap(),
            mtu: Mtu::try_from(mtu).unwrap(),
            ends: [end("north", 64_512), end("south", 64_513)],
            ipv4: Some(Hosts { subnet, first, second }),
            ipv6: sixth.then_some(six),
            md5_bgp_password: Sensitive::new(password),
        }
    })
}

fn guidances() -> impl Strategy<Value = ChannelGuidance> {
    let ranges = || prop::collection::vec((any::<u16>(), any::<u16>()), 0..3);
    let choices = (nets(), prop::collection::vec(nets(), 0..3), prop::option::of(nets()))
        .prop_map(|(include, exclude, preferred)| SubnetChoice { include, exclude, preferred });
    let subnets = (prop::collection::vec(choices, 0..3), prop::collection::vec(0u8..=32, 0..3));
    let asns = prop::collection::vec((any::<u32>(), any::<u32>()), 0..3);
    (ids(), any::<bool>(), asns, subnets, ranges(), ranges()).prop_map(
        |(channel, enabled, asns, (subnets, lengths), vlans, mtus)| ChannelGuidance {
            channel,
            enabled,
            asns,
            subnets,
            lengths,
            vlans,
            mtus,
        },
    )
}

/// Through JSON, as it goes over the wire.
fn sent<T: serde::Serialize + serde::de::DeserializeOwned>(document: &T) -> T {
    serde_json::from_slice(&serde_json::to_vec(document).unwrap()).unwrap()
}

proptest! {
    #[test]
    fn guidance_comes_as_it_went(place in places(), all in prop::collection::vec(guidances(), 0..5)) {
        let on = interconnect_path(&id("south"), &place);
        let out: Vec<FeatureGuidance> = all.iter().map(|one| sent(&guidance_of(&on, one))).collect();
        prop_assert_eq!(read_guidance(&on, &out).unwrap(), all);
    }

    #[test]
    fn a_look_comes_as_it_went(
        place in places(), mbps in 1u32..800_000, verified: bool,
        features in prop::collection::vec((ids(), ids(), configs(), any::<bool>()), 0..5),
    ) {
        let caller = id("south");
        let features: Vec<SeenFeature> = features.into_iter()
            .map(|(id, channel, config, is_final)| SeenFeature { id, channel, config, is_final }).collect();
        let shown: Vec<Feature> = features.iter().map(|seen| sent(&seen_feature(&caller, &place, seen))).collect();
        let connection: Connection = sent(&connection_of(&caller, &place, mbps, Some(Kind::Test), verified));
        let path = connection_path(&caller, &place);
        prop_assert_eq!(connection.name.clone(), Some(path.to_string()));
        prop_assert_eq!(place_of(&path), place);
        let seen = read_seen(&path, ["south", "north"], &connection, &shown).unwrap();
        prop_assert_eq!(seen, Reply::Seen { bandwidth_mbps: mbps, verified, features });
    }

    #[test]
    fn a_creation_comes_as_it_went(
        place in places(), from in places(), mbps in 1u32..800_000, by_key: bool, defer: bool,
        kind in prop::sample::select(vec![Kind::Standard, Kind::Test, Kind::Monitoring]), n: u128, m: u128,
    ) {
        let (uuid, request_id, caller) = (Uuid::from_u128(n), Uuid::from_u128(m), id("south"));
        let contents = KeyContents {
            shared_connection_uuid: uuid, bandwidth: BandwidthMbps::try_from(u64::from(mbps)).unwrap(),
            destination_account_id: "a".to_owned(),
        };
        let key = ActivationKey::V1(contents.to_v1("providers/south/environments/e1"));
        let mut book = book();
        book.keys.insert(uuid, IssuedKey {
            uuid, environment: place.environment.clone(), bandwidth_mbps: mbps, digest: key_digest(&key),
            issued_at: "2026-01-05T00:00:00Z".parse().unwrap(), spent: false,
        });
        let source = if by_key { Source::Key(uuid) } else { Source::Connection(from.clone()) };
        let text = key.encode();
        let body: Connection = sent(&creation_of(&caller, &source, Some(&text), mbps, kind, defer));
        let path = interconnect_path(&caller, &place);
        let read = book.read_create(&path, place.connection.clone(), request_id, &body).unwrap();
        // The UUID of a source that is not there is nobody's.
        let uuid = if by_key { uuid } else { Uuid::nil() };
        let asked = Ask::Create { place, source, uuid, bandwidth_mbps: mbps, kind, defer, request_id };
        prop_assert_eq!(read, asked);
        let question = sent(&ConfirmActivationKeyRequest { encoded_key: Some(text), key: None });
        let Ask::Confirm { key, .. } = book.read_confirm(&environment_path(&caller, &id("e")), &question).unwrap()
        else { panic!("another question") };
        prop_assert_eq!(key, Uuid::from_u128(n));
        prop_assert_eq!(read_update(None, &sent(&resize_of(mbps))).unwrap(), mbps);
    }
}

#[test]
fn what_is_wrong_is_named() {
    let (book, path) = (book(), "providers/south/environments/e1/interconnects/i1".parse().unwrap());
    let create = |json: serde_json::Value| {
        let body = serde_json::from_value(json).unwrap();
        book.read_create(&path, id("c"), Uuid::nil(), &body).unwrap_err().field
    };
    use serde_json::json;
    assert_eq!(create(json!({})), "bandwidthMbps");
    assert_eq!(create(json!({ "bandwidthMbps": -1 })), "bandwidthMbps");
    assert_eq!(create(json!({ "bandwidthMbps": 1 })), "sourceData");
    assert_eq!(create(json!({ "bandwidthMbps": 1, "activationKey": "?" })), "activationKey");
    let other = "providers/north/environments/e1/interconnects/i1/connections/c";
    let source = json!({ "sourceConnectionName": other });
    assert_eq!(create(json!({ "bandwidthMbps": 1, "sourceData": source })), "sourceData");
    let mask = "bandwidthMbps,name".to_owned().try_into().unwrap();
    assert_eq!(read_update(Some(&mask), &resize_of(1)).unwrap_err().field, "updateMask");
    let feature = |json: serde_json::Value| {
        let body = serde_json::from_value(json).unwrap();
        read_feature(&path, ["south", "north"], &body).unwrap_err().field
    };
    assert_eq!(feature(json!({})), "channel");
    assert_eq!(
        feature(json!({ "channel": "providers/south/environments/e1/interconnects/i2/channels/c1" })),
        "channel"
    );
    let channel = "providers/south/environments/e1/interconnects/i1/channels/c1";
    assert_eq!(feature(json!({ "channel": channel })), "featureConfig");
    let odd = json!({ "featureType": "FEATURE_TYPE_L9" });
    assert_eq!(feature(json!({ "channel": channel, "featureConfig": odd })), "featureConfig");
    // No range is no restriction; a range that nothing is in is one.
    let guidance = |range: serde_json::Value| {
        let l3 = json!({ "vlanRanges": range });
        let all = json!([{ "channel": channel, "l3BaseGuidance": l3 }]);
        read_guidance(&path, &serde_json::from_value::<Vec<FeatureGuidance>>(all).unwrap()).unwrap()[0].vlans.clone()
    };
    assert_eq!(guidance(json!([])), []);
    assert_eq!(guidance(json!([{ "start": 100_000 }])), [(u16::MAX, 0)]);
    assert_eq!(guidance(json!([{ "stop": 100_000 }])), [(0, u16::MAX)]);
}
