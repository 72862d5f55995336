//! Botocore's model of Direct Connect as a validator: required members, unknown members, types, enums, ranges, patterns.

use aws_sdk_directconnect::types::{AddressFamily, BgpPeer, BgpStatus, Tag, VirtualInterface, VirtualInterfaceState};
use serde_json::Value;

/// Where a request and its answer break the model.
pub(super) fn violations(model: &Value, operation: &str, request: &Value, status: u16, answer: &Value) -> Vec<String> {
    let operation = &model["operations"][operation];
    let mut found = Vec::new();
    check(model, operation["input"]["shape"].as_str().unwrap_or("no such operation"), request, "request", &mut found);
    if status == 200 {
        check(model, operation["output"]["shape"].as_str().unwrap_or("nothing"), answer, "answer", &mut found);
    }
    found
}

fn check(model: &Value, shape: &str, value: &Value, at: &str, found: &mut Vec<String>) {
    let definition = &model["shapes"][shape];
    let mut wrong = |what: String| found.push(format!("{at} ({shape}): {what}"));
    match definition["type"].as_str() {
        Some("structure") => {
            let Some(object) = value.as_object() else { return wrong(format!("no structure: {value}")) };
            for required in definition["required"].as_array().into_iter().flatten() {
                if !object.contains_key(required.as_str().unwrap()) {
                    wrong(format!("{required} is missing"));
                }
            }
            for (name, value) in object {
                match definition["members"][name]["shape"].as_str() {
                    Some(shape) => check(model, shape, value, &format!("{at}.{name}"), found),
                    None => found.push(format!("{at} ({shape}): no member is called {name}")),
                }
            }
        }
        Some("list") => {
            let Some(items) = value.as_array() else { return wrong(format!("no list: {value}")) };
            bounds(definition, items.len() as f64, &mut wrong);
            let member = definition["member"]["shape"].as_str().unwrap();
            for (n, item) in items.iter().enumerate() {
                check(model, member, item, &format!("{at}[{n}]"), found);
            }
        }
        Some("string") => {
            let Some(text) = value.as_str() else { return wrong(format!("no string: {value}")) };
            bounds(definition, text.chars().count() as f64, &mut wrong);
            if let Some(values) = definition["enum"].as_array()
                && !values.contains(value)
            {
                wrong(format!("{value} is none of {values:?}"));
            }
            if let Some(pattern) = definition["pattern"].as_str() {
                let schema = serde_json::json!({ "pattern": pattern });
                if !jsonschema::is_valid(&schema, value) {
                    wrong(format!("{value} does not match {pattern}"));
                }
            }
        }
        Some("integer" | "long") => match value.as_i64() {
            Some(number) => bounds(definition, number as f64, &mut wrong),
            None => wrong(format!("no integer: {value}")),
        },
        Some("boolean") if !value.is_boolean() => wrong(format!("no boolean: {value}")),
        Some("boolean" | "timestamp") => {}
        other => wrong(format!("the model has no such type: {other:?}")),
    }
}

fn bounds(definition: &Value, size: f64, wrong: &mut impl FnMut(String)) {
    if definition["min"].as_f64().is_some_and(|min| size < min)
        || definition["max"].as_f64().is_some_and(|max| size > max)
    {
        wrong(format!("{size} is outside {} to {}", definition["min"], definition["max"]));
    }
}

/// The SDK's type from the wire's JSON, for tests of the mapping alone.
pub(super) fn virtual_interface(seen: &Value) -> VirtualInterface {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let number = |value: &Value| value.as_i64().and_then(|n| i32::try_from(n).ok());
    let tags = seen["tags"].as_array().into_iter().flatten();
    let tags = tags.map(|t| Tag::builder().set_key(text(&t["key"])).set_value(text(&t["value"])).build().unwrap());
    let peers = seen["bgpPeers"].as_array().into_iter().flatten();
    let peers = peers.map(|peer| {
        BgpPeer::builder()
            .set_address_family(text(&peer["addressFamily"]).map(|f| AddressFamily::from(f.as_str())))
            .set_bgp_status(text(&peer["bgpStatus"]).map(|s| BgpStatus::from(s.as_str())))
            .build()
    });
    VirtualInterface::builder()
        .set_virtual_interface_id(text(&seen["virtualInterfaceId"]))
        .set_connection_id(text(&seen["connectionId"]))
        .set_virtual_interface_type(text(&seen["virtualInterfaceType"]))
        .set_virtual_interface_state(
            text(&seen["virtualInterfaceState"]).map(|s| VirtualInterfaceState::from(s.as_str())),
        )
        .set_vlan(number(&seen["vlan"]))
        .set_asn(number(&seen["asn"]))
        .set_asn_long(seen["asnLong"].as_i64())
        .set_mtu(number(&seen["mtu"]))
        .set_amazon_address(text(&seen["amazonAddress"]))
        .set_customer_address(text(&seen["customerAddress"]))
        .set_address_family(text(&seen["addressFamily"]).map(|f| AddressFamily::from(f.as_str())))
        .set_direct_connect_gateway_id(text(&seen["directConnectGatewayId"]))
        .set_tags(Some(tags.collect()))
        .set_bgp_peers(Some(peers.collect()))
        .build()
}
