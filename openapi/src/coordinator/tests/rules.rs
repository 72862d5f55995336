//! What the types promise beside the specification's shapes.

use proptest::prelude::*;
use serde_json::json;

use super::super::*;

#[test]
fn unknown_values_are_kept_and_never_the_good_ones() {
    let connection: Connection =
        serde_json::from_value(json!({ "verificationState": "VERIFICATION_STATE_HALF", "new": 1, "adminState": "" }))
            .unwrap();
    assert_eq!(connection.verification_state, Some(VerificationState::Other("VERIFICATION_STATE_HALF".to_owned())));
    assert_ne!(connection.verification_state, Some(VerificationState::Verified));
    let back = json!({ "verificationState": "VERIFICATION_STATE_HALF", "adminState": "" });
    assert_eq!(serde_json::to_value(&connection).unwrap(), back);
    assert_eq!(AdminState::KNOWN, ["ADMIN_STATE_ENABLED", "ADMIN_STATE_DISABLED"]);
    assert_eq!(serde_json::to_value(AdminState::Disabled).unwrap(), "ADMIN_STATE_DISABLED");
}

#[test]
fn a_source_is_exactly_one() {
    let read = |value| serde_json::from_value::<SourceData>(value);
    assert!(matches!(read(json!({ "encodedKey": "a" })), Ok(SourceData::Key(_))));
    assert!(matches!(read(json!({ "sourceConnectionName": "a", "new": 1 })), Ok(SourceData::Connection(_))));
    for wrong in [json!({}), json!({ "encodedKey": "a", "sourceConnectionName": "b" }), json!({ "other": "a" })] {
        assert!(read(wrong).unwrap_err().to_string().contains("exactly one"));
    }
}

#[test]
fn providers_are_listed_under_both_names_and_read_under_either() {
    let provider = Provider { name: Some("providers/north".to_owned()), display_name: None };
    let page = serde_json::to_value(ListProvidersResponse::of(vec![provider.clone()], None)).unwrap();
    assert_eq!(page["environments"], page["providers"]);
    for name in ["environments", "providers"] {
        let page: ListProvidersResponse =
            serde_json::from_value(json!({ name: [{ "name": "providers/north" }] })).unwrap();
        assert_eq!(page.into_providers(), std::slice::from_ref(&provider));
    }
}

#[test]
fn no_secret_is_shown() {
    let feature = Feature {
        feature_config: Some(FeatureConfig {
            feature_type: Some(FeatureType::L3Base),
            l3_base_config: Some(L3BaseConfig {
                md5_bgp_password: Some(Sensitive::new("hunter2")),
                ..Default::default()
            }),
        }),
        ..Default::default()
    };
    let key =
        MacSecKey { cak: Some(Sensitive::new("hunter2")), ckn: Some(Sensitive::new("hunter2")), ..Default::default() };
    let connection = Connection {
        activation_key: Some(Sensitive::new("hunter2")),
        source_data: Some(SourceData::Key(EncodedKey { encoded_key: Sensitive::new("hunter2") })),
        ..Default::default()
    };
    assert!(!format!("{feature:?}{key:?}{connection:?}").contains("hunter2"));
    assert!(serde_json::to_string(&feature).unwrap().contains("hunter2"), "but it is sent");
}

proptest! {
    #[test]
    fn names_come_back(ids in prop::collection::vec("[A-Za-z0-9._~-]{1,20}", 5)) {
        let id = |n: usize| ids[n].parse::<ResourceId>();
        if ids.iter().any(|id| id == "." || id == "..") {
            return Ok(());
        }
        let connection = ProviderPath { provider: id(0).unwrap() }
            .environment(id(1).unwrap())
            .interconnect(id(2).unwrap())
            .connection(id(3).unwrap());
        let feature = connection.feature(id(4).unwrap());
        prop_assert_eq!(&connection.to_string().parse::<ConnectionPath>().unwrap(), &connection);
        prop_assert_eq!(&feature.to_string().parse::<FeaturePath>().unwrap(), &feature);
        prop_assert_eq!(OperationId::GetFeature.path(&feature), format!("/{feature}"));
        prop_assert!(feature.to_string().parse::<ConnectionPath>().is_err());
        prop_assert!(connection.to_string().parse::<FeaturePath>().is_err());
    }

    /// Nothing that could leave its place in a path is an id.
    #[test]
    fn an_id_stays_in_its_place(text in "\\PC{0,20}") {
        if let Ok(id) = text.parse::<ResourceId>() {
            let safe = id.as_str().bytes().all(|b| b.is_ascii_graphic() && !b"/?#%{}".contains(&b));
            prop_assert!(safe, "{}", id);
        }
    }

    #[test]
    fn masks_come_back(fields in prop::collection::vec("[a-zA-Z]{1,9}(\\.[a-zA-Z]{1,9})?", 1..4)) {
        let mask = FieldMask::try_from(fields.join(" , ")).unwrap();
        prop_assert_eq!(mask.fields(), &fields);
        prop_assert_eq!(String::from(mask), fields.join(","));
    }
}

#[test]
fn paths_that_could_climb_are_no_ids() {
    for bad in ["", ".", "..", "a/b", "a b", "%2e", "ä", &"a".repeat(129)] {
        assert!(bad.parse::<ResourceId>().is_err(), "{bad}");
    }
    for bad in ["", "providers", "providers/", "providers/a/", "/providers/a", "environments/a"] {
        assert!(bad.parse::<ProviderPath>().is_err(), "{bad}");
    }
    for bad in [",", "a,,b", "a b", "a..b", ".a"] {
        assert!(FieldMask::try_from(bad.to_owned()).is_err(), "{bad}");
    }
    assert!(FieldMask::try_from(String::new()).unwrap().fields().is_empty());
}

#[test]
fn a_page_has_fifty_items_and_a_thousand_at_most() {
    for (wished, size) in [
        (None, Some(50)),
        (Some(0), Some(50)),
        (Some(1), Some(1)),
        (Some(1_000), Some(1_000)),
        (Some(i32::MAX), Some(1_000)),
        (Some(-1), None),
    ] {
        assert_eq!(page_size(wished), size, "{wished:?}");
    }
}

fn config() -> L3BaseConfig {
    serde_json::from_value(json!({
        "ipv4Subnet": "169.254.10.8", "ipv4SubnetPrefixLength": 29, "mtuBytes": 8500, "vlanId": 1025,
        "providerBgpConfigs": [
            { "provider": "providers/south", "asn": 64513, "hostIpv4": "169.254.10.10" },
            { "provider": "providers/north", "asn": 64512, "hostIpv4": "169.254.10.9" },
        ],
        "md5BgpPassword": "secret",
    }))
    .unwrap()
}

#[test]
fn a_configuration_that_keeps_every_rule_is_read_and_written() {
    let read = config().check(["south", "north"]).unwrap();
    let ends: Vec<_> = read.ends.iter().map(|end| (end.provider.as_str(), end.asn.get())).collect();
    assert_eq!(ends, [("north", 64_512), ("south", 64_513)], "in order of provider, whoever wrote it");
    assert_eq!(read.ipv4.as_ref().unwrap().first.to_string(), "169.254.10.9");
    assert_eq!(read.to_config().check(["north", "south"]).unwrap(), read);
    let mut both = config();
    both.ipv6_subnet = Some("fd20:0:0:1::".to_owned());
    both.ipv6_subnet_prefix_length = Some(64);
    both.provider_bgp_configs[0].host_ipv6 = Some("fd20:0:0:1::2".to_owned());
    both.provider_bgp_configs[1].host_ipv6 = Some("fd20:0:0:1::1".to_owned());
    let read = both.check(["north", "south"]).unwrap();
    assert_eq!(read.to_config().check(["north", "south"]).unwrap(), read);
    let mut pair = config();
    (pair.ipv4_subnet, pair.ipv4_subnet_prefix_length) = (Some("169.254.10.8".to_owned()), Some(31));
    pair.provider_bgp_configs[0].host_ipv4 = Some("169.254.10.8".to_owned());
    pair.check(["north", "south"]).unwrap();
}

#[test]
fn a_broken_rule_is_named() {
    type Break = fn(&mut L3BaseConfig);
    let cases: &[(&str, &str, Break)] = &[
        ("vlanId", "required", |c| c.vlan_id = None),
        ("vlanId", "1025", |c| c.vlan_id = Some(1_024)),
        ("vlanId", "4094", |c| c.vlan_id = Some(4_095)),
        ("vlanId", "negative", |c| c.vlan_id = Some(-1)),
        ("mtuBytes", "576", |c| c.mtu_bytes = Some(100)),
        ("ipv4Subnet", "mask", |c| c.ipv4_subnet = Some("169.254.10.9".to_owned())),
        ("ipv4Subnet", "length", |c| c.ipv4_subnet_prefix_length = None),
        ("ipv4Subnet", "no subnet", |c| c.ipv4_subnet_prefix_length = Some(33)),
        ("ipv4Subnet", "ipv6Subnet", |c| c.ipv4_subnet = None),
        ("providerBgpConfigs", "no host", |c| c.provider_bgp_configs[0].host_ipv4 = Some("169.254.10.8".to_owned())),
        ("providerBgpConfigs", "no host", |c| c.provider_bgp_configs[0].host_ipv4 = Some("169.254.10.16".to_owned())),
        ("providerBgpConfigs", "both", |c| c.provider_bgp_configs[0].host_ipv4 = Some("169.254.10.9".to_owned())),
        ("providerBgpConfigs", "exactly one", |c| drop(c.provider_bgp_configs.pop())),
        ("providerBgpConfigs", "two providers", |c| c.provider_bgp_configs.push(ProviderBgpConfig::default())),
        ("providerBgpConfigs", "reserved", |c| c.provider_bgp_configs[0].asn = Some(23_456)),
        ("md5BgpPassword", "required", |c| c.md5_bgp_password = None),
        ("md5BgpPassword", "80", |c| c.md5_bgp_password = Some(Sensitive::new("x".repeat(81)))),
    ];
    for (field, words, change) in cases {
        let mut broken = config();
        change(&mut broken);
        let error = broken.check(["north", "south"]).unwrap_err();
        assert!(error.field == *field && error.to_string().contains(words), "{field} {words}: {error}");
    }
}
