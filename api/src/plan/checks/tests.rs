//! Checks of prefixes and limits.

mod enforcement;
mod links;

use std::collections::BTreeMap;

use proptest::prelude::*;
use tieline_openapi::v1::{ConnectionEnd, Fallback, Redundancy, Routing, Wanted};

use super::*;

fn id<T: TryFrom<String, Error: std::fmt::Debug>>(text: &str) -> T {
    T::try_from(text.to_owned()).unwrap()
}

fn nets(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|net| net.parse().unwrap()).collect()
}

fn intent(a: &[&str], b: &[&str]) -> ConnectionIntent {
    let end = |point: &str, list: &[&str]| ConnectionEnd {
        attach_point_id: Some(id(point)),
        remote_account_id: None,
        advertised_prefixes: nets(list),
        accepted_prefixes: None,
    };
    ConnectionIntent {
        name: "link".to_owned(),
        environment_id: id("env"),
        bandwidth_mbps: 50u64.try_into().unwrap(),
        redundancy: Redundancy::Dual,
        a: end("gw", a),
        b: end("cr", b),
        routing: Routing::default(),
        families: vec![AddressFamily::Ipv4],
        wanted: Wanted::default(),
        fallback: Fallback::default(),
        labels: BTreeMap::new(),
        description: String::new(),
        deletion_protection: false,
    }
}

fn point(name: &str, prefixes: &[&str]) -> AttachPoint {
    AttachPoint {
        id: id(name),
        account_id: id("acc"),
        site: "east".to_owned(),
        kind: tieline_openapi::v1::AttachPointType::Router,
        cloud_id: name.to_owned(),
        asn: 64_512u64.try_into().unwrap(),
        prefixes: nets(prefixes),
    }
}

fn found(intent: &ConnectionIntent, behind: &[&str]) -> Vec<String> {
    let (gw, cr) = (point("gw", behind), point("cr", &[]));
    let mut findings = Findings::default();
    prefixes(intent, &Ends { a: Some(&gw), b: Some(&cr) }, &mut findings);
    findings.into_vec().into_iter().map(|f| format!("{} {}", f.code, f.pointer)).collect()
}

fn alone(a: &[&str], b: &[&str]) -> Vec<String> {
    found(&intent(a, b), &[])
}

#[test]
fn a_good_intent_has_no_findings() {
    assert_eq!(alone(&["10.0.0.0/16", "10.2.0.0/24"], &["10.1.0.0/16"]), Vec::<String>::new());
}

#[test]
fn each_bad_prefix_is_named_by_its_pointer() {
    assert_eq!(alone(&["10.0.0.0/16", "10.2.0.1/24"], &["10.1.0.0/16"]), ["host-bits /a/advertisedPrefixes/1"]);
    assert_eq!(alone(&["10.0.0.0/16"; 2], &["10.1.0.0/16"]), ["prefix-twice /a/advertisedPrefixes/1"]);
    assert_eq!(alone(&["fd00::/48"], &["10.1.0.0/16"]), ["prefix-family /a/advertisedPrefixes/0"]);
    assert_eq!(alone(&["10.0.0.0/16"], &["169.254.8.0/24"]), ["prefix-reserved /b/advertisedPrefixes/0"]);
    assert_eq!(alone(&["10.0.0.0/16"], &["10.1.0.0/16", "10.0.3.0/24"]), ["prefix-overlap /b/advertisedPrefixes/1"]);
    assert_eq!(alone(&[], &["10.1.0.0/16"]), ["nothing-announced /a/advertisedPrefixes"]);
}

#[test]
fn a_default_route_overlaps_only_another_default_route() {
    assert_eq!(alone(&["0.0.0.0/0"], &["10.1.0.0/16"]), Vec::<String>::new());
    assert_eq!(alone(&["0.0.0.0/0"], &["0.0.0.0/0"]), ["prefix-overlap /b/advertisedPrefixes/0"]);
}

#[test]
fn filters_and_sites_give_warnings() {
    let mut wanted = intent(&["10.0.0.0/16"], &["10.1.0.0/16"]);
    wanted.a.accepted_prefixes = Some(nets(&["10.1.0.0/24"]));
    assert_eq!(
        found(&wanted, &["10.8.0.0/16"]),
        ["prefix-filtered /a/acceptedPrefixes", "prefix-not-behind-attach-point /a/advertisedPrefixes/0"]
    );
}

#[test]
fn long_lists_and_odd_families_are_refused() {
    let many: Vec<String> = (0..=MAX_PREFIXES).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(alone(&many, &["172.16.0.0/16"]), ["too-many-prefixes /a/advertisedPrefixes"]);
    let mut wanted = intent(&["10.0.0.0/16"], &["10.1.0.0/16"]);
    wanted.families = vec![AddressFamily::Ipv4; 2];
    assert_eq!(found(&wanted, &[]), ["families /families"]);
    wanted.families = vec![];
    assert!(found(&wanted, &[]).contains(&"families /families".to_owned()));
}

proptest! {
    /// Whatever is written, two ends that pass have no address in common, and nothing panics.
    #[test]
    fn ends_that_pass_are_disjoint(
        a in proptest::collection::vec((any::<u32>(), 1u8..=32), 0..5),
        b in proptest::collection::vec((any::<u32>(), 1u8..=32), 0..5),
    ) {
        let net = |(bits, length): &(u32, u8)| IpNet::V4(ipnet::Ipv4Net::new((*bits).into(), *length).unwrap());
        let mut wanted = intent(&[], &[]);
        wanted.a.advertised_prefixes = a.iter().map(net).collect();
        wanted.b.advertised_prefixes = b.iter().map(net).collect();
        let mut findings = Findings::default();
        prefixes(&wanted, &Ends { a: None, b: None }, &mut findings);
        if !findings.any_error() {
            for x in &wanted.a.advertised_prefixes {
                for y in &wanted.b.advertised_prefixes {
                    prop_assert!(!x.contains(&y.addr()) && !y.contains(&x.addr()));
                }
            }
        }
    }
}
