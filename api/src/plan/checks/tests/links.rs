//! Which prefixes the links of one attach point may share.

use tieline_openapi::{ids::ConnectionId, v1::Severity};

use super::{
    super::{super::negotiate::Allocated, links::AttachPoints, other_links},
    *,
};

fn link(name: &str, a: (&str, &[&str]), b: (&str, &[&str])) -> ConnectionIntent {
    let mut link = intent(a.1, b.1);
    (link.a.attach_point_id, link.b.attach_point_id) = (Some(id(a.0)), Some(id(b.0)));
    link.name = name.to_owned();
    link
}

fn world(behind: &[(&str, &[&str])]) -> AttachPoints {
    let known = behind.iter().map(|(name, prefixes)| point(name, prefixes));
    known.map(|point| (point.id.clone(), point)).collect()
}

fn judged(wanted: &ConnectionIntent, held: &[&ConnectionIntent], points: &AttachPoints) -> Vec<(Severity, String)> {
    let mut allocated = Allocated::default();
    for (n, link) in held.iter().enumerate() {
        allocated.carry(ConnectionId(uuid::Uuid::from_u128(n as u128)), link);
    }
    let mut findings = Findings::default();
    other_links(wanted, points, &allocated, &mut findings);
    findings.into_vec().into_iter().map(|f| (f.severity, format!("{} {}", f.code, f.pointer))).collect()
}

fn error(pointer: &str) -> (Severity, String) {
    (Severity::Error, format!("prefix-overlap-other-link {pointer}"))
}

#[test]
fn parallel_links_may_carry_the_same_and_are_named() {
    let old = link("old", ("gw", &["10.0.0.0/16"]), ("cr", &["10.1.0.0/16"]));
    let parallel = (Severity::Warning, "parallel-links ".to_owned());
    let new = link("new", ("gw", &["10.0.0.0/16"]), ("cr", &["10.1.4.0/24"]));
    assert_eq!(judged(&new, &[&old], &world(&[])), std::slice::from_ref(&parallel));
    // The other way round it is the same pair of attach points.
    let turned = link("new", ("cr", &["10.1.0.0/16"]), ("gw", &["10.0.0.0/16"]));
    assert_eq!(judged(&turned, &[&old], &world(&[])), [parallel]);
    let disjoint = link("new", ("gw", &["10.8.0.0/16"]), ("cr", &["10.9.0.0/16"]));
    assert_eq!(judged(&disjoint, &[&old], &world(&[])), []);
}

#[test]
fn one_prefix_from_two_places_is_refused_unless_it_is_said_to_be_in_both() {
    let old = link("old", ("gw", &["10.0.0.0/16"]), ("cr", &["10.1.0.0/16"]));
    let new = link("new", ("gw", &["10.0.0.0/16"]), ("other", &["10.2.0.0/16", "10.1.4.0/24"]));
    // The old link leaves its filter open: what its other end announces is what it carries.
    assert_eq!(judged(&new, &[&old], &world(&[])), [error("/b/advertisedPrefixes/1")]);
    let both = world(&[("cr", &["10.1.0.0/16"]), ("other", &["10.0.0.0/8"])]);
    let second_way = (Severity::Warning, "prefix-from-two-attach-points /b/advertisedPrefixes/1".to_owned());
    assert_eq!(judged(&new, &[&old], &both), [second_way]);
    let one = world(&[("cr", &["10.1.0.0/16"]), ("other", &["10.2.0.0/16"])]);
    assert_eq!(judged(&new, &[&old], &one), [error("/b/advertisedPrefixes/1")]);
    // What is not accepted does not come.
    let mut filtered = new.clone();
    filtered.a.accepted_prefixes = Some(nets(&["10.2.0.0/16"]));
    assert_eq!(judged(&filtered, &[&old], &world(&[])), []);
    let mut filtered = old;
    filtered.a.accepted_prefixes = Some(nets(&["10.1.128.0/17"]));
    assert_eq!(judged(&new, &[&filtered], &world(&[])), []);
}

#[test]
fn what_an_attach_point_announces_it_does_not_learn() {
    let old = link("old", ("gw", &["10.0.0.0/16"]), ("cr", &["10.1.0.0/16"]));
    let brings = link("new", ("gw", &["10.5.0.0/16"]), ("other", &["10.0.3.0/24"]));
    assert_eq!(judged(&brings, &[&old], &world(&[])), [error("/b/advertisedPrefixes/0")]);
    let hands_on = link("new", ("gw", &["10.1.0.0/16"]), ("other", &["10.6.0.0/16"]));
    assert_eq!(judged(&hands_on, &[&old], &world(&[])), [error("/a/advertisedPrefixes/0")]);
    // The same site over another attach point's links is another matter: nothing meets there.
    let elsewhere = link("new", ("third", &["10.0.0.0/16"]), ("other", &["10.1.0.0/16"]));
    assert_eq!(judged(&elsewhere, &[&old], &world(&[])), []);
}

#[test]
fn default_routes_meet_default_routes_only() {
    let old = link("old", ("gw", &["10.0.0.0/16"]), ("cr", &["0.0.0.0/0"]));
    let specific = link("new", ("gw", &["10.0.0.0/16"]), ("other", &["10.1.0.0/16"]));
    assert_eq!(judged(&specific, &[&old], &world(&[])), []);
    let second = link("new", ("gw", &["10.0.0.0/16"]), ("other", &["0.0.0.0/0"]));
    assert_eq!(judged(&second, &[&old], &world(&[])), [error("/b/advertisedPrefixes/0")]);
}

/// Where an address leads, seen from an attach point; the second is whether `tieline.toml` says so.
fn places(
    at: &str,
    address: std::net::IpAddr,
    links: &[&ConnectionIntent],
    points: &AttachPoints,
) -> BTreeMap<String, bool> {
    let mut places = BTreeMap::new();
    for link in links {
        for end in End::BOTH.into_iter().filter(|end| link.place(*end) == at) {
            for (from, of) in [(end, at), (end.other(), link.place(end.other()))] {
                if carried::announced(link, from).iter().any(|net| net.contains(&address)) {
                    let said = points[&id::<tieline_openapi::ids::AttachPointId>(of)]
                        .prefixes
                        .iter()
                        .any(|net| net.contains(&address));
                    places.insert(of.to_owned(), said && of != at);
                }
            }
        }
    }
    places
}

fn some_nets() -> impl Strategy<Value = Vec<IpNet>> {
    // A few networks and halves of them: overlaps are the rule.
    let net = (0u8..3, 0u8..3).prop_map(|(n, half)| match half {
        0 => format!("10.{n}.0.0/16"),
        1 => format!("10.{n}.0.0/17"),
        _ => format!("10.{n}.128.0/17"),
    });
    prop::collection::btree_set(net, 0..3).prop_map(|nets| nets.iter().map(|net| net.parse().unwrap()).collect())
}

fn some_link() -> impl Strategy<Value = ConnectionIntent> {
    let accepted = || prop::option::weighted(0.4, some_nets());
    let points = prop::sample::subsequence(vec!["p", "q", "r"], 2).prop_shuffle();
    (points, some_nets(), some_nets(), accepted(), accepted()).prop_map(|(points, a, b, for_a, for_b)| {
        let mut link = link("x", (points[0], &[]), (points[1], &[]));
        (link.a.advertised_prefixes, link.a.accepted_prefixes) = (a, for_a);
        (link.b.advertised_prefixes, link.b.accepted_prefixes) = (b, for_b);
        link
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    /// The verdict is the one that follows from where addresses lead, and does not depend on which link came first.
    #[test]
    fn an_address_leads_to_one_place(one in some_link(), two in some_link(), p in some_nets(), q in some_nets(), r in some_nets()) {
        let alone = |link: &ConnectionIntent| {
            let mut findings = Findings::default();
            prefixes(link, &Ends { a: None, b: None }, &mut findings);
            !findings.any_error()
        };
        prop_assume!(alone(&one) && alone(&two));
        let mut points = world(&[("p", &[]), ("q", &[]), ("r", &[])]);
        for (point, nets) in points.values_mut().zip([p, q, r]) {
            point.prefixes = nets;
        }
        let refused = |new, old| judged(new, &[old], &points).iter().any(|(severity, _)| *severity == Severity::Error);
        // Every network of the pool is a union of these.
        let addresses = (0..3u8).flat_map(|n| [[10, n, 0, 1], [10, n, 128, 1]]).map(std::net::IpAddr::from);
        let astray = addresses.clone().any(|address| ["p", "q", "r"].iter().any(|at| {
            let places = places(at, address, &[&one, &two], &points);
            places.len() > 1 && places.values().any(|said| !said)
        }));
        if astray {
            prop_assert!(refused(&one, &two));
        }
        prop_assert_eq!(refused(&one, &two), refused(&two, &one));
        // Halves of a network may be declared one by one; then the whole is not, and the verdict is the careful one.
        if refused(&one, &two) && !astray {
            let listed = points.values().flat_map(|point| &point.prefixes);
            prop_assert!(listed.clone().any(|net| net.prefix_len() == 17));
        }
    }
}
