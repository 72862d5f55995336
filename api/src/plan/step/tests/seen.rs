//! Rows of looks.

use serde_json::json;
use tieline_openapi::problem::ProviderDetail;
use tieline_providers::Observed;

use super::{super::Seen, at};

fn resource(cloud_id: &str) -> Observed {
    serde_json::from_value(json!({
        "kind": "fake.attachment", "cloudId": cloud_id, "owner": null, "providerState": "ACTIVE", "presence": "usable",
        "bgp": null, "bfd": null, "learned": { "ipv4": null, "vlan": null, "mtu": null }, "fields": {}, "createdAt": null,
    }))
    .unwrap()
}

fn since(seen: &Seen) -> i64 {
    match seen {
        Seen::Present { since, .. } | Seen::Absent { since, .. } => since.as_millisecond(),
        Seen::Never | Seen::Unknown { .. } => panic!("{seen:?}"),
    }
}

#[test]
fn a_row_of_looks_is_dated_by_its_first() {
    let first = Seen::Never.and_found(resource("one"), at(10));
    assert_eq!(since(&first.and_found(resource("one"), at(20))), at(10).as_millisecond());
    assert_eq!(since(&first.and_not_found(at(20)).and_not_found(at(30))), at(20).as_millisecond());
}

#[test]
fn another_resource_or_a_clock_that_was_stepped_back_starts_a_row_anew() {
    let first = Seen::Never.and_found(resource("one"), at(3_600_000));
    assert_eq!(since(&first.and_found(resource("two"), at(3_600_010))), at(3_600_010).as_millisecond());
    assert_eq!(since(&first.and_found(resource("one"), at(10))), at(10).as_millisecond());
    let absent = Seen::Never.and_not_found(at(3_600_000));
    assert_eq!(since(&absent.and_not_found(at(10))), at(10).as_millisecond());
}

#[test]
fn what_is_written_is_read() {
    let why = ProviderDetail { code: "throttled".to_owned(), ..ProviderDetail::default() };
    let present = Seen::Never.and_found(resource("a"), at(1));
    for seen in [Seen::Never, present.clone(), Seen::Never.and_not_found(at(2)), Seen::Unknown { at: at(3), why }] {
        let text = serde_json::to_string(&seen).unwrap();
        assert_eq!(serde_json::from_str::<Seen>(&text).unwrap(), seen, "{text}");
    }
    // An older version did not write since when.
    let mut old = serde_json::to_value(&present).unwrap();
    old.as_object_mut().unwrap().remove("since");
    assert_eq!(since(&serde_json::from_value(old).unwrap()), 0);
    for broken in [json!({ "is": "present", "at": at(1) }), json!({ "is": "absent" }), json!({ "is": "elsewhere" })] {
        assert!(serde_json::from_value::<Seen>(broken.clone()).is_err(), "{broken}");
    }
}
