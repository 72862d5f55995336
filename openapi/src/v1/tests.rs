//! The shapes as JSON: what is read comes back the same, field by field.

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::*;

const CONNECTION: &str = "0192f0c1-2345-7abc-8def-0123456789ab";
const OTHER: &str = "0192f0c1-2345-7abc-8def-0123456789ac";
const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const AT: &str = "2026-11-21T10:00:00Z";

/// Reads, writes and compares.
#[track_caller]
fn comes_back<T: Serialize + DeserializeOwned + Debug>(value: Value) -> T {
    let read: T = serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value:#}"));
    assert_eq!(serde_json::to_value(&read).unwrap(), value, "{read:#?}");
    read
}

fn intent() -> Value {
    json!({
        "name": "prod", "environmentId": "aws-us-east-1.google-us-east4.direct", "bandwidthMbps": 10000,
        "redundancy": "DUAL",
        "a": { "attachPointId": "dxgw", "advertisedPrefixes": ["10.0.0.0/16"], "acceptedPrefixes": null },
        "b": { "attachPointId": "router", "advertisedPrefixes": ["10.1.0.0/16", "fd00:1::/48"],
               "acceptedPrefixes": ["10.0.0.0/16"] },
        "routing": { "mode": "ACTIVE_STANDBY", "maxPrefixes": 50 },
        "families": ["IPV4", "IPV6"],
        "wanted": { "vlanId": 1025, "mtuBytes": 1500, "ipv4Subnet": "169.254.61.88/29", "bfd": true },
        "fallback": { "tunnel": true, "capacityMbps": null },
        "labels": { "team": "net" }, "description": "", "deletionProtection": false
    })
}

fn side(host: &str, peer: &str) -> Value {
    json!({
        "vlanId": 1025, "ipv4Subnet": "169.254.61.88/29", "hostIpv4": host, "peerIpv4": peer, "ipv6Subnet": null,
        "hostIpv6": null, "peerIpv6": null, "asn": 64512, "mtuBytes": 1500, "provisioningState": "FINAL",
        "bfd": { "enabled": true, "minTransmitMs": 1000, "minReceiveMs": 1000, "multiplier": 5 },
        "attachments": [{ "id": OTHER, "type": "google.interconnectAttachment", "cloudId": null,
                          "providerState": "UNPROVISIONED", "origin": "CREATED", "observedAt": AT }]
    })
}

fn connection() -> Value {
    let mut connection = json!({
        "id": CONNECTION, "project": "default", "generation": 3, "observedGeneration": 2, "kind": "DIRECT",
        "state": "ACTION_REQUIRED",
        "stateReason": { "code": "quota", "message": "m", "since": AT, "nextStep": "n", "expectedBy": null },
        "adminState": "ENABLED", "verificationState": "VERIFIED", "sharedConnectionUuid": null,
        "lastOperationId": OTHER,
        "conditions": [{ "type": "BgpEstablished", "status": "TRUE", "reason": "r", "since": AT }],
        "effective": { "mtuBytes": 1440, "privateMtuBytes": 1500, "tunnelMtuBytes": 1440, "mssBytes": 1400,
                       "detectMs": { "aToB": 5000, "bToA": 3000 } },
        "placements": [{ "name": null, "interconnectId": "ic1", "role": "CURRENT", "middle": "NONE", "channels": [{
            "channelId": "ch1", "provisioningState": "FINAL", "bgpState": "OPEN_CONFIRM", "bfdState": "ADMIN_DOWN",
            "bandwidthMbps": 10000, "a": side("169.254.61.89", "169.254.61.90"),
            "b": side("169.254.61.90", "169.254.61.89"),
            "why": [{ "pointer": "/a/vlanId", "rule": "r", "source": "s" }] }] }],
        "paths": [{ "id": "private", "kind": "PRIVATE", "state": "UP", "carries": { "aToB": true, "bToA": false },
                    "measured": { "rttUs": 1, "jitterUs": 2, "lossAToBPpm": 3, "lossBToAPpm": 4, "at": AT } }],
        "createdAt": AT, "updatedAt": AT, "deletionRequestedAt": null
    });
    connection.as_object_mut().unwrap().extend(intent().as_object().unwrap().clone());
    connection
}

fn finding() -> Value {
    json!({ "severity": "ERROR", "code": "vlan-taken", "pointer": "/wanted/vlanId", "message": "m", "rule": "r",
            "source": "s", "resolve": "x" })
}

#[test]
fn an_intent_and_its_connection() {
    let read: ConnectionIntent = comes_back(intent());
    assert_eq!(read.redundancy, Redundancy::Dual);
    let read: Connection = comes_back(connection());
    assert_eq!(read.intent.name, "prod");
    let page: ConnectionList = comes_back(json!({ "connections": [connection()], "nextPageToken": "t" }));
    assert_eq!(page.connections.len(), 1);
    comes_back::<ConnectionList>(json!({ "connections": [] }));
}

#[test]
fn an_intent_has_defaults() {
    let end = |point: &str| json!({ "attachPointId": point, "advertisedPrefixes": [] });
    let short = json!({ "name": "n", "environmentId": "e", "bandwidthMbps": "1Gbps", "a": end("x"), "b": end("y") });
    let read: ConnectionIntent = serde_json::from_value(short).unwrap();
    assert_eq!(read.bandwidth_mbps.get(), 1_000);
    assert_eq!((read.redundancy, read.families.as_slice()), (Redundancy::Dual, [AddressFamily::Ipv4].as_slice()));
    assert!(read.fallback.tunnel && read.wanted == Wanted::default() && !read.deletion_protection);
    assert_eq!(Redundancy::Quad.channels(), 4);
}

#[test]
fn unknown_fields_of_an_intent_are_refused_at_every_depth() {
    for pointer in ["", "/a", "/routing", "/wanted", "/fallback"] {
        let mut odd = intent();
        odd.pointer_mut(pointer).unwrap().as_object_mut().unwrap().insert("odd".to_owned(), json!(1));
        let error = serde_json::from_value::<ConnectionIntent>(odd).unwrap_err().to_string();
        assert!(error.contains("unknown field `odd`"), "{pointer}: {error}");
    }
    for (pointer, bad) in [
        ("/wanted/vlanId", json!(4095)),
        ("/wanted/mtuBytes", json!(100)),
        ("/bandwidthMbps", json!(0)),
        ("/a/attachPointId", json!("A b")),
        ("/a/advertisedPrefixes/0", json!("10.0.0.0/33")),
        ("/redundancy", json!("TRIPLE")),
    ] {
        let mut odd = intent();
        *odd.pointer_mut(pointer).unwrap() = bad;
        assert!(serde_json::from_value::<ConnectionIntent>(odd).is_err(), "{pointer}");
    }
}

#[test]
fn plans() {
    let plan = json!({
        "id": null, "hash": "h", "expiresAt": AT, "action": "UPDATE", "connectionId": CONNECTION, "baseGeneration": 3,
        "basis": [{ "name": "allocations", "revision": "7" }], "after": connection(), "applicable": true,
        "disruption": "BRIEF",
        "costs": [{ "what": "port", "end": "a", "provider": "aws", "unit": "hour", "count": 1, "priceUsd": 2.25,
                    "asOf": "2026-09-20", "source": "s" }],
        "steps": [{ "n": 1, "after": [], "end": "b", "provider": "google", "channelId": "ch1", "verb": "CREATE",
                    "resourceType": "google.interconnectAttachment", "disruption": "NONE",
                    "fields": [{ "pointer": "/candidateSubnets", "before": null,
                                 "after": { "oneOf": ["169.254.61.88/29"] }, "rule": "r", "sensitive": false }] }],
        "findings": [finding()]
    });
    comes_back::<Plan>(plan);
    comes_back::<PlanRequest>(
        json!({ "intent": intent(), "connectionId": null, "patch": null, "migrate": null, "delete": false }),
    );
    let short: PlanRequest = serde_json::from_value(json!({ "connectionId": CONNECTION, "delete": true })).unwrap();
    assert!(short.delete && short.intent.is_none());
    assert!(serde_json::from_value::<PlanRequest>(json!({ "odd": 1 })).is_err());
}

#[test]
fn operations_events_and_issues() {
    let stage = json!({ "name": "ch1/b", "state": "RUNNING", "startedAt": AT, "finishedAt": null, "detail": "d",
                        "provider": { "name": "google", "code": "c", "message": "m", "requestId": "r" } });
    let operation = json!({ "id": OTHER, "kind": "CREATE", "target": CONNECTION, "generation": 1,
                            "state": "ACTION_REQUIRED", "stages": [stage], "problem": null, "createdAt": AT,
                            "finishedAt": null });
    let read: Operation = comes_back(operation.clone());
    assert!(!read.state.is_final());
    comes_back::<OperationList>(json!({ "operations": [operation] }));
    let event = json!({ "cursor": "12", "time": AT, "type": "connection.created", "subject": "/v1/connections/x",
                        "generation": null, "cause": "engine", "data": {} });
    comes_back::<EventList>(json!({ "events": [event], "nextCursor": "12" }));
    let issue = json!({ "id": OTHER, "severity": "WARNING", "code": "c", "about": [], "title": "t", "cost": null,
                        "remediation": "r", "state": "OPEN", "createdAt": AT, "resolvedAt": null });
    comes_back::<IssueList>(json!({ "issues": [issue] }));
}

#[test]
fn what_exists_before_any_connection() {
    comes_back::<AccountList>(json!({ "accounts": [
        { "id": "aws-main", "provider": "aws", "externalId": "123456789012", "credentialRef": "default" }] }));
    comes_back::<AttachPointList>(json!({ "attachPoints": [
        { "id": "dxgw", "accountId": "aws-main", "site": "us-east-1", "type": "DIRECT_CONNECT_GATEWAY", "cloudId": "c",
          "asn": 4_200_000_000u32, "prefixes": ["10.0.0.0/16"] }] }));
    let site = |provider: &str| json!({ "provider": provider, "site": "s", "displayName": "S" });
    comes_back::<EnvironmentList>(json!({ "environments": [
        { "id": "e", "kind": "MANAGED", "sites": [site("aws"), site("google")], "bandwidthsMbps": [50], "middle": "L2",
          "configured": true }] }));
    let port = json!({ "accountId": "aws-main", "portId": "dxlag-1", "device": "d" });
    comes_back::<InterconnectList>(json!({ "interconnects": [
        { "id": "i", "environmentId": "e", "state": "CLOSED", "maxBandwidthMbps": 10000,
          "channels": [{ "id": "c", "adminState": "DISABLED", "a": port, "b": port }] }], "nextPageToken": "n" }));
}

#[test]
fn tokens() {
    let token = json!({ "id": OTHER, "name": "ci", "project": "default", "scope": "OPERATE", "expiresAt": null,
                        "lastUsedAt": AT, "createdAt": AT });
    comes_back::<TokenList>(json!({ "tokens": [token] }));
    comes_back::<IssuedToken>(json!({ "token": token, "secret": "s" }));
    comes_back::<TokenRequest>(json!({ "name": "ci", "scope": "READ", "expiresInSeconds": null }));
    let join = json!({ "id": OTHER, "group": "east", "attachPointId": "dxgw", "expiresAt": AT, "usedAt": null });
    comes_back::<IssuedJoinToken>(json!({ "joinToken": join, "secret": "s" }));
    comes_back::<JoinTokenRequest>(json!({ "attachPointId": "dxgw", "expiresInSeconds": 60 }));
    assert!(Scope::Read < Scope::Operate && Scope::Operate < Scope::Admin);
}

#[test]
fn gateways() {
    let lane = json!({ "n": 0, "publicKey": KEY, "endpoint": "198.51.100.1:51820", "backend": "BORINGTUN" });
    let gateway = json!({ "id": OTHER, "group": "east", "attachPointId": "dxgw", "name": "gw1",
                          "privateAddress": "10.0.0.5", "lanes": [lane], "steering": "ROUTE_TABLE", "state": "LIVE",
                          "configurationVersion": 4, "lastHeardAt": AT, "createdAt": AT });
    comes_back::<GatewayList>(json!({ "gateways": [gateway] }));
    comes_back::<JoinRequest>(
        json!({ "name": "gw1", "privateAddress": "10.0.0.5", "lanes": [lane], "steering": "INLINE" }),
    );
    comes_back::<JoinAnswer>(json!({ "gateway": gateway, "credential": "c" }));
    comes_back::<GatewayConfiguration>(json!({
        "version": 4, "gatewayId": OTHER,
        "probe": { "intervalMs": 20, "bundlePorts": 16, "deadAfterIntervals": 3, "deadPorts": 2, "holdDownMs": 3000,
                   "reportMs": 1000 },
        "connections": [{
            "connectionId": CONNECTION, "name": "prod", "end": "a", "innerAddress": "100.64.0.1",
            "localPrefixes": ["10.0.0.0/16"], "remotePrefixes": ["10.1.0.0/16"],
            "peers": [{ "gatewayId": OTHER, "lanes": [lane], "privateAddress": "10.1.0.5",
                        "innerAddress": "100.64.0.2" }],
            "mtuBytes": 1440, "mssBytes": 1400, "privateReady": true, "tunnel": true, "fallbackCapacityMbps": null }]
    }));
    comes_back::<Observations>(json!({
        "sequence": 9, "configurationVersion": 4,
        "samples": [{ "connectionId": CONNECTION, "peerId": OTHER, "path": "TUNNEL", "state": "DEGRADED",
                      "carries": true, "at": AT, "sent": 50, "received": 49, "rttUs": 900, "rttP99Us": null,
                      "jitterUs": 5, "lossOutPpm": 0, "lossInPpm": 20000, "deadPorts": 0, "bytesOut": 1,
                      "bytesIn": 2 }],
        "changes": [{ "connectionId": CONNECTION, "at": AT, "from": null, "to": "PRIVATE", "reason": "first" }]
    }));
}

#[test]
fn problems_say_what_their_code_says() {
    use crate::problem::{Problem, ProblemCode};
    let problem: Problem = comes_back(json!({
        "type": "/problems/unsatisfiable", "title": "t", "status": 400, "code": "unsatisfiable", "detail": "d",
        "requestId": "r", "errors": [{ "pointer": "/wanted/vlanId", "message": "m", "rule": "r", "source": "s" }],
        "retryable": false, "remediation": "x", "holder": OTHER,
        "provider": { "name": "aws", "code": "c", "message": "m" }
    }));
    assert_eq!(problem.code, ProblemCode::Unsatisfiable);
    for code in [
        ProblemCode::InvalidRequest,
        ProblemCode::Gone,
        ProblemCode::IdempotencyKeyReused,
        ProblemCode::PreconditionRequired,
        ProblemCode::TooManyRequests,
    ] {
        assert_eq!(serde_json::to_value(code).unwrap(), json!(code.as_str()));
        assert!((400..600).contains(&code.status()));
    }
}
