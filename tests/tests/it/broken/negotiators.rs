//! Clients that each break one rule.

use std::sync::Arc;

use anyhow::Context as _;
use axum::http::Method;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tieline_conformance::{Brought, Customer, KeyError, KeySource, Outcome, Role, Wanted, Wish, WishError};
use tieline_openapi::coordinator::{ActivationKey, ActivationKeyV1, KeyVersion, Sensitive};
use tokio::net::TcpListener;

use super::{
    all_found,
    channels::CLIENTS,
    is_alone,
    proxy::{Asked, Caller, Fault, Proxy, Tls, Upstream, serve},
};
use crate::conformance::{Customers, Means, North, examine};

use Fault::{Adds, Answers, Brings, Calls, Ignores, Reads};
use Side::{Asks, Shows};

const GET: &Method = &Method::GET;
const POST: &Method = &Method::POST;
const PATCH: &Method = &Method::PATCH;
const DELETE: &Method = &Method::DELETE;

/// Channels of an interconnect of the test's.
const CHANNELS: usize = 4;

/// Where an implementation is wrong.
pub(super) enum Side {
    /// In what it asks its peer, and how it takes the answers.
    Asks(Fault),
    /// In what it shows of its own half.
    Shows(Fault),
}

fn creates(asked: &Asked) -> bool {
    asked.is(POST, "/connections")
}

fn proposes(asked: &Asked) -> bool {
    asked.is(POST, "/features")
}

fn confirms(asked: &Asked) -> bool {
    asked.is(POST, "/ConfirmActivationKey")
}

fn guided(asked: &Asked) -> bool {
    asked.is(POST, "/GenerateFeatureGuidance")
}

/// Reads anything of a connection.
fn looks(asked: &Asked) -> bool {
    asked.method == GET && asked.path.contains("/connections")
}

/// The layer 3 configuration of a proposal.
fn config(asked: &mut Asked, change: fn(&mut Value)) {
    if proposes(asked) {
        asked.change(|body| change(&mut body["featureConfig"]["l3BaseConfig"]));
    }
}

/// A UUID that is another for each n.
pub(super) fn numbered(n: usize) -> String {
    format!("00000000-0000-4000-8000-{n:012}")
}

/// The same request under other names.
pub(super) fn renamed(asked: &Asked, id: &str, n: usize) -> Asked {
    let mut other = asked.clone();
    other.set(id, &numbered(n));
    other.set("requestId", &numbered(n + 1_000));
    other
}

/// Another proposal for the same channel.
fn proposed_anew(asked: &Asked) -> Vec<Asked> {
    let mut other = renamed(asked, "featureId", asked.proposed + 100);
    other.change(|body| body["featureConfig"]["l3BaseConfig"]["vlanId"] = json!(4_000 + asked.proposed));
    vec![other]
}

/// Many copies, at once.
pub(super) fn many(asked: &Asked) -> Vec<Asked> {
    vec![asked.clone(); 6]
}

fn confirms_everything(asked: &Asked, status: &mut u16, answer: &mut Value) {
    if confirms(asked) {
        (*status, *answer) = (200, json!({ "keyValid": true }));
    }
}

/// All that is missing on the suite's side is never made.
fn never_again(asked: &Asked) -> Option<(u16, Value)> {
    (proposes(asked) && asked.proposed >= CHANNELS).then(|| (503, json!({})))
}

fn never_looks_again(asked: &Asked) -> Option<(u16, Value)> {
    (looks(asked) && asked.proposed >= CHANNELS).then(|| (503, json!({})))
}

fn keeps_features_on(asked: &Asked, _: &mut u16, answer: &mut Value) {
    for guidance in answer["featureGuidance"].as_array_mut().filter(|_| guided(asked)).into_iter().flatten() {
        guidance["channelAdminState"] = json!("ADMIN_STATE_ENABLED");
        guidance["l3BaseGuidance"]["vlanRanges"] = json!([]);
    }
}

fn shows_bandwidth(asked: &Asked, answer: &mut Value, mbps: u32) {
    if asked.item(GET, "connections") {
        answer["bandwidthMbps"] = json!(mbps);
    }
}

/// A key that north takes, whatever the customer brought.
fn a_good_key(brought: &Brought) -> String {
    let key = ActivationKeyV1 {
        version: KeyVersion,
        destination_environment_uri: "providers/south/environments/e1".to_owned(),
        shared_connection_uuid: brought.connection.to_string(),
        connection_size_mbps: 1_000,
        destination_account_id: "default".to_owned(),
    };
    ActivationKey::V1(key).encode().expose().to_owned()
}

/// By the case that must find it.
const BROKEN: &[(&str, Side)] = &[
    ("calling/certificate", Asks(Calls(Caller::Nobody))),
    (
        "calling/own-name",
        Asks(Reads(|asked| asked.path = asked.path.replacen("/providers/north", "/providers/somebody", 1))),
    ),
    (
        "calling/json",
        Asks(Reads(|asked| {
            if asked.content_type.is_some() {
                asked.content_type = Some("text/plain".to_owned());
            }
        })),
    ),
    ("calling/old-tls", Asks(Calls(Caller::Trusting))),
    ("calling/stranger", Asks(Calls(Caller::Trusting))),
    ("confirming/first", Asks(Ignores(|asked| confirms(asked).then(|| (200, json!({ "keyValid": true })))))),
    (
        "confirming/local-first",
        Shows(Answers(|asked, status, answer| {
            if asked.item(GET, "connections") {
                (*status, *answer) = (404, json!({ "title": "there is no such connection" }));
            }
        })),
    ),
    ("confirming/not-valid", Asks(Answers(confirms_everything))),
    ("confirming/nothing-said", Asks(Answers(confirms_everything))),
    ("confirming/refused", Asks(Answers(confirms_everything))),
    ("confirming/other-account", Asks(Brings(a_good_key))),
    ("confirming/unknown-environment", Asks(Brings(a_good_key))),
    ("confirming/unsupported-size", Asks(Brings(a_good_key))),
    (
        "confirming/brought-twice",
        Asks(Adds(|asked, _| if creates(asked) { vec![renamed(asked, "connectionId", 1)] } else { Vec::new() })),
    ),
    (
        "confirming/encrypted",
        Asks(Reads(|asked| {
            if confirms(asked) {
                asked.change(|body| body["encodedKey"] = json!("bm8ga2V5"));
            }
        })),
    ),
    ("confirming/encrypted-to-another", Asks(Brings(a_good_key))),
    (
        "creating/from-the-key",
        Asks(Reads(|asked| {
            if creates(asked) {
                asked.change(|body| body["bandwidthMbps"] = json!(10_000));
            }
        })),
    ),
    (
        "creating/older-field",
        Asks(Reads(|asked| {
            if creates(asked) {
                asked.change(|body| body["activationKey"] = Value::Null);
            }
        })),
    ),
    (
        "creating/most-free",
        Asks(Reads(|asked| {
            let other =
                if asked.path.contains("/interconnects/i1") { "/interconnects/i2" } else { "/interconnects/i1" };
            asked.path = asked.path.replace("/interconnects/i1", other).replace("/interconnects/i2", other);
        })),
    ),
    (
        "creating/next-interconnect",
        Asks(Answers(|asked, status, _| {
            if creates(asked) && *status == 409 {
                *status = 503;
            }
        })),
    ),
    (
        "creating/exists",
        Asks(Answers(|asked, status, _| {
            if looks(asked) {
                *status = 404;
            }
        })),
    ),
    ("creating/no-room", Asks(Adds(|asked, _| if creates(asked) { many(asked) } else { Vec::new() }))),
    (
        "proposing/guidance-first",
        Asks(Ignores(|asked| {
            let interconnect = asked.path.split("/connections/").next().unwrap_or_default().trim_start_matches('/');
            let guidance = |n: usize| {
                json!({
                    "featureType": "FEATURE_TYPE_L3_BASE",
                    "channel": format!("{interconnect}/channels/c{n}"),
                    "l3BaseGuidance": { "asnRanges": [{ "start": 4_200_000_321_u32, "stop": 4_200_000_321_u32 }] },
                })
            };
            let all: Vec<_> = (1..=CHANNELS).map(guidance).collect();
            guided(asked).then(|| (200, json!({ "featureGuidance": all })))
        })),
    ),
    ("proposing/every-channel", Asks(Adds(|asked, _| if proposes(asked) { proposed_anew(asked) } else { Vec::new() }))),
    ("proposing/whole", Asks(Reads(|asked| config(asked, |l3| l3["md5BgpPassword"] = Value::Null)))),
    ("proposing/vlan", Asks(Reads(|asked| config(asked, |l3| l3["vlanId"] = json!(1_000))))),
    (
        "proposing/subnet",
        Asks(Reads(|asked| {
            config(asked, |l3| {
                l3["ipv4Subnet"] = json!("169.254.32.0");
                l3["providerBgpConfigs"][0]["hostIpv4"] = json!("169.254.32.1");
                l3["providerBgpConfigs"][1]["hostIpv4"] = json!("169.254.32.2");
            });
        })),
    ),
    (
        "proposing/preferred-subnet",
        Asks(Answers(|asked, _, answer| {
            for guidance in answer["featureGuidance"].as_array_mut().filter(|_| guided(asked)).into_iter().flatten() {
                guidance["l3BaseGuidance"]["ipv4SubnetGuidance"][0]["preferredSubnet"] = Value::Null;
            }
        })),
    ),
    ("proposing/mtu", Asks(Reads(|asked| config(asked, |l3| l3["mtuBytes"] = json!(1_500))))),
    (
        "proposing/asn",
        Asks(Reads(|asked| {
            config(asked, |l3| {
                for end in l3["providerBgpConfigs"].as_array_mut().into_iter().flatten() {
                    if end["provider"] == json!("providers/south") {
                        end["asn"] = json!(4_200_000_321_u32);
                    }
                }
            });
        })),
    ),
    ("proposing/unrestricted", Asks(Ignores(|asked| proposes(asked).then(|| (503, json!({})))))),
    ("proposing/disabled-channel", Asks(Answers(keeps_features_on))),
    ("proposing/nothing-fits", Asks(Answers(keeps_features_on))),
    (
        "proposing/after-409",
        Asks(Adds(|asked, status| if proposes(asked) && status == 409 { proposed_anew(asked) } else { Vec::new() })),
    ),
    (
        "proposing/after-400",
        Asks(Adds(
            |asked, status| {
                if proposes(asked) && status == 400 { vec![renamed(asked, "featureId", 7)] } else { Vec::new() }
            },
        )),
    ),
    (
        "retrying/connection-bounded",
        Asks(Adds(|asked, status| if creates(asked) && status == 503 { many(asked) } else { Vec::new() })),
    ),
    (
        "retrying/feature-bounded",
        Asks(Adds(|asked, status| if proposes(asked) && status == 503 { many(asked) } else { Vec::new() })),
    ),
    (
        "retrying/backs-off",
        Asks(Adds(|asked, status| if creates(asked) && status == 503 { many(asked) } else { Vec::new() })),
    ),
    (
        "retrying/same-request",
        Asks(Reads(|asked| {
            if creates(asked) {
                asked.set("requestId", &numbered(asked.before));
            }
        })),
    ),
    ("retrying/own-request-id", Asks(Reads(|asked| asked.set("requestId", &numbered(1))))),
    (
        "retrying/request-id",
        Asks(Reads(|asked| {
            if proposes(asked) {
                asked.query.retain(|(name, _)| name != "requestId");
            }
        })),
    ),
    (
        "retrying/throttled",
        Asks(Answers(|_, status, _| {
            if *status == 429 {
                *status = 409;
            }
        })),
    ),
    (
        "settling/connection-lost",
        Asks(Adds(|asked, status| {
            // What it asks for again, it asks for from the one that is there.
            let mut other = renamed(asked, "connectionId", 2);
            let name =
                format!("{}/{}", asked.path.trim_start_matches('/'), asked.asks("connectionId").unwrap_or_default());
            other.change(|body| body["sourceData"] = json!({ "sourceConnectionName": name }));
            if creates(asked) && status == 0 { vec![other] } else { Vec::new() }
        })),
    ),
    (
        "settling/feature-lost",
        Asks(Adds(|asked, status| if proposes(asked) && status == 0 { proposed_anew(asked) } else { Vec::new() })),
    ),
    (
        "settling/feature-lost-published",
        Asks(Adds(|asked, status| if proposes(asked) && status == 0 { proposed_anew(asked) } else { Vec::new() })),
    ),
    (
        "settling/feature-vanished",
        Asks(Adds(|asked, status| if proposes(asked) && status == 0 { proposed_anew(asked) } else { Vec::new() })),
    ),
    ("settling/late-answer", Asks(Adds(|asked, _| if proposes(asked) { proposed_anew(asked) } else { Vec::new() }))),
    (
        "settling/delete-lost",
        Asks(Ignores(|asked| (asked.item(DELETE, "connections") && asked.before > 0).then(|| (404, json!({}))))),
    ),
    ("settling/forgotten-feature", Asks(Ignores(never_again))),
    ("settling/not-recreated", Asks(Answers(keeps_features_on))),
    ("settling/peer-away", Asks(Ignores(|asked| (proposes(asked) && asked.proposed > 1).then(|| (404, json!({})))))),
    ("hearing/hint", Asks(Ignores(never_looks_again))),
    ("hearing/no-hint", Asks(Ignores(never_looks_again))),
    (
        "hearing/not-verified",
        Shows(Answers(|asked, _, answer| {
            if asked.item(GET, "connections") {
                answer["verificationState"] = json!("VERIFICATION_STATE_VERIFIED");
            }
        })),
    ),
    (
        "hearing/maintenance",
        Asks(Ignores(|asked| asked.is(GET, "/maintenanceEvents").then(|| (200, json!({ "events": [] }))))),
    ),
    (
        "reading/pages",
        Asks(Answers(|asked, _, answer| {
            if asked.is(GET, "/features") {
                answer["nextPageToken"] = Value::Null;
            }
        })),
    ),
    (
        "reading/later-revision",
        Asks(Adds(|asked, _| {
            let mut other = asked.clone();
            other.method = DELETE.clone();
            other.path.push_str("/of-a-later-revision");
            if asked.is(GET, "/features") && asked.proposed >= CHANNELS { vec![other] } else { Vec::new() }
        })),
    ),
    (
        "reading/published-revision",
        Asks(Reads(|asked| {
            if creates(asked) {
                asked.change(|body| body["activationKey"] = Value::Null);
            }
        })),
    ),
    ("changing/asks-first", Shows(Answers(|asked, _, answer| shows_bandwidth(asked, answer, 5_000)))),
    ("changing/mask", Asks(Reads(|asked| asked.query.retain(|(name, _)| name != "updateMask")))),
    ("changing/refused", Shows(Answers(|asked, _, answer| shows_bandwidth(asked, answer, 5_000)))),
    ("changing/lost", Shows(Answers(|asked, _, answer| shows_bandwidth(asked, answer, 1_000)))),
    (
        "changing/one-at-a-time",
        Shows(Answers(|asked, status, answer| {
            if asked.method == PATCH {
                (*status, *answer) = (200, asked.json());
            }
        })),
    ),
    (
        "moving/source",
        Asks(Reads(|asked| {
            if creates(asked) {
                let text = String::from_utf8_lossy(&asked.body).into_owned();
                asked.body = text.replace("/interconnects/", "/interconnects/not-").into_bytes();
            }
        })),
    ),
    (
        "moving/make-before-break",
        Asks(Adds(|asked, _| {
            let body = asked.json();
            let Some(old) = body["sourceData"]["sourceConnectionName"].as_str() else { return Vec::new() };
            let (path, query) = (format!("/{old}"), Vec::new());
            vec![Asked { method: DELETE.clone(), path, query, body: Vec::new(), content_type: None, ..asked.clone() }]
        })),
    ),
    (
        "deferring/asks",
        Asks(Reads(|asked| {
            if creates(asked) {
                asked.change(|body| body["deferProvisioning"] = Value::Null);
            }
        })),
    ),
    (
        "deferring/refused",
        Asks(Answers(|asked, status, _| {
            if creates(asked) && *status == 400 {
                *status = 503;
            }
        })),
    ),
    (
        "deferring/accepts-features",
        Shows(Ignores(|asked| proposes(asked).then(|| (409, json!({ "title": "not here" }))))),
    ),
    ("deferring/provisions", Asks(Ignores(|asked| proposes(asked).then(|| (503, json!({})))))),
    ("leaving/wish", Asks(Ignores(|asked| asked.item(DELETE, "connections").then(|| (200, json!({})))))),
    ("leaving/by-peer", Shows(Ignores(|asked| asked.item(DELETE, "connections").then(|| (200, json!({})))))),
    (
        "leaving/already-gone",
        Asks(Answers(|asked, status, _| {
            if asked.item(DELETE, "connections") && *status == 404 {
                *status = 503;
            }
        })),
    ),
    ("leaving/while-creating", Asks(Ignores(|asked| asked.item(DELETE, "connections").then(|| (200, json!({})))))),
    (
        "leaving/key-stays-used",
        Asks(Adds(|asked, _| {
            if !asked.item(DELETE, "connections") {
                return Vec::new();
            }
            let path = asked.path.rsplit_once('/').map_or("", |(collection, _)| collection).to_owned();
            let body = json!({ "bandwidthMbps": 1_000, "activationKey": asked.key }).to_string().into_bytes();
            let query = vec![("connectionId".to_owned(), numbered(3))];
            let content_type = Some("application/json".to_owned());
            vec![Asked { method: POST.clone(), path, query, body, content_type, ..asked.clone() }]
        })),
    ),
    ("leaving/feature-by-peer", Asks(Ignores(never_again))),
];

fn all() -> impl Iterator<Item = (&'static str, &'static Side)> {
    BROKEN.iter().chain(CLIENTS).map(|(case, side)| (*case, side))
}

/// The cases that have a client that breaks their rule.
pub(super) fn cases() -> impl Iterator<Item = &'static str> {
    all().map(|(case, _)| case)
}

/// A customer of north's whose connections go wrong.
struct Spoiling {
    real: Customers,
    door: Arc<Proxy>,
    fault: &'static Fault,
}

impl KeySource for Spoiling {
    fn issue(&self, wanted: Wanted) -> BoxFuture<'_, Result<Sensitive, KeyError>> {
        Box::pin(async move {
            let key = self.real.issue(wanted).await?;
            // A connection that the suite asks for goes wrong as well.
            if let Ok(ActivationKey::V1(read)) = tieline_openapi::coordinator::decode_key(&key) {
                let text = key.expose().to_owned();
                self.door.spoil(&read.shared_connection_uuid, self.fault, text.clone(), text);
            }
            Ok(key)
        })
    }
}

impl Customer for Spoiling {
    fn wish(&self, wish: Wish) -> BoxFuture<'_, Result<(), WishError>> {
        Box::pin(async move {
            let Wish::Bring(mut brought) = wish else { return self.real.wish(wish).await };
            let issued = brought.key.expose().to_owned();
            if let Brings(other) = self.fault {
                brought.key = Sensitive::new(other(&brought));
            }
            let text = brought.key.expose().to_owned();
            self.door.spoil(&brought.connection.to_string(), self.fault, text, issued);
            self.real.wish(Wish::Bring(brought)).await
        })
    }
}

/// How long a case waits for what must happen, in seconds: a client that is whole has done it by then, also after a lost answer,
/// where it is alone and where it is beside all the others.
const PATIENCE: (u64, u64) = (10, 20);

/// North, whose way to the suite leads through a door.
struct Behind {
    north: North,
    door: Arc<Proxy>,
}

impl Behind {
    async fn start() -> anyhow::Result<Self> {
        let tcp = TcpListener::bind("127.0.0.1:0").await?;
        let north = North::start_behind(Some(tcp.local_addr()?)).await?;
        let identity = [north.file("north.pem")?, north.file("north.key")?].concat();
        let anchors = reqwest::Certificate::from_pem_bundle(&north.file("ca.pem")?)?;
        let plain = || reqwest::Client::builder().no_proxy().tls_certs_only(anchors.clone());
        let north_is = || Ok::<_, anyhow::Error>(reqwest::Identity::from_pem(&identity)?);
        let clients = vec![
            (Caller::Good, plain().identity(north_is()?).build()?),
            (Caller::Trusting, plain().identity(north_is()?).tls_danger_accept_invalid_certs(true).build()?),
            (Caller::Nobody, plain().build()?),
        ];
        let door = Proxy::new(Upstream { base: format!("https://{}", north.south_at), clients }, None);
        // It is as good as the suite's own listener to whoever comes.
        drop(serve(Arc::clone(&door), Tls::new(tcp, &north.file("south.pem")?, &north.file("south.key")?)?));
        Ok(Self { north, door })
    }

    /// What the case finds.
    async fn found(&self, case: &'static str, side: &'static Side) -> anyhow::Result<Outcome> {
        static NOTHING: Fault = Ignores(|_| None);
        let (asks, shows) = match side {
            Asks(fault) => (fault, &NOTHING),
            Shows(fault) => (&NOTHING, fault),
        };
        let customer =
            Arc::new(Spoiling { real: Customers::of(&self.north), door: Arc::clone(&self.door), fault: asks });
        let clients = vec![(Caller::Good, self.north.client(true)?.build()?)];
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let upstream = Upstream { base: self.north.peers.clone(), clients };
        let serving = serve(Proxy::new(upstream, Some(shows)), listener);
        let patience = if is_alone(case) { PATIENCE.0 } else { PATIENCE.1 };
        let means = Means { url: &url, customer, patience, window: 3, jobs: 1 };
        let examined = examine(&self.north, means, Role::Negotiator, &[case.to_owned()]).await;
        serving.abort();
        examined?.pop().context("one case was asked for")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_broken_client_is_found_by_the_case_that_names_its_rule() -> anyhow::Result<()> {
    let behind = Behind::start().await?;
    all_found(all().collect(), async |case, side: &'static Side| {
        if !is_alone(case) {
            return behind.found(case, side).await;
        }
        // What is no single connection's is wrong as well. It stays wrong, so nobody finds it afterwards.
        let behind = Behind::start().await?;
        if let Asks(fault) = side {
            behind.door.always(Some(fault));
        }
        behind.found(case, side).await
    })
    .await
}
