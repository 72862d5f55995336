//! A network whose links and sessions a test sets by hand, and clients for both simulators that check every answer against
//! the vendor's own model.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use serde_json::{Value, json};
use tieline_lab::clouds::{
    Clock, CloudSettings, Delays, ManualClock, Running, SystemClock, aws, google,
    network::{Network, NetworkError, Session, SessionStatus},
    world::{AwsWorld, GoogleWorld},
};

use super::schema::{AwsModel, GoogleModel};

/// How long any wait may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A network on a bench: a test plugs cables and says what routers say.
#[derive(Default)]
pub(crate) struct Bench {
    pub(crate) lit: Mutex<BTreeSet<String>>,
    pub(crate) says: Mutex<BTreeMap<String, SessionStatus>>,
    pub(crate) told: Mutex<Vec<Session>>,
    pub(crate) broken: Mutex<bool>,
}

impl Bench {
    pub(crate) fn plug(&self, port: &str) {
        self.lit.lock().expect("lit").insert(port.to_owned());
    }

    pub(crate) fn say(&self, session: &str, status: SessionStatus) {
        self.says.lock().expect("says").insert(session.to_owned(), status);
    }

    pub(crate) fn session(&self, id: &str) -> Option<Session> {
        self.told.lock().expect("told").iter().find(|s| s.id == id).cloned()
    }

    fn fault(&self, site: &str) -> Result<(), NetworkError> {
        let source = std::io::Error::other("the router does not answer");
        if *self.broken.lock().expect("broken") {
            return Err(NetworkError::Router { site: site.to_owned(), operation: "answer", source: source.into() });
        }
        Ok(())
    }
}

#[async_trait]
impl Network for Bench {
    async fn configure(&self, site: &str, sessions: Vec<Session>) -> Result<(), NetworkError> {
        self.fault(site)?;
        *self.told.lock().expect("told") = sessions;
        Ok(())
    }

    async fn status(&self, site: &str) -> Result<BTreeMap<String, SessionStatus>, NetworkError> {
        self.fault(site)?;
        Ok(self.says.lock().expect("says").clone())
    }

    async fn link_up(&self, _site: &str, port: &str) -> Result<bool, NetworkError> {
        Ok(self.lit.lock().expect("lit").contains(port))
    }
}

/// Waits until a condition holds.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let search = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}

/// Quick clouds that take calls without a signature.
pub(crate) fn quick() -> CloudSettings {
    CloudSettings { allow_anonymous: true, delays: Delays::NONE, poll_ms: 5, ..CloudSettings::default() }
}

/// A clock that moves only by hand, so that no machine is too slow for a test.
pub(crate) fn standing() -> Arc<ManualClock> {
    Arc::new(ManualClock::at("2026-11-21T12:00:00Z".parse().expect("an instant")))
}

pub(crate) const PORT: &str = "dxlag-fg000001";
pub(crate) const INTERCONNECT: &str = "xcloud-aws-1";

pub(crate) struct AwsBench {
    pub(crate) cloud: Running,
    pub(crate) bench: Arc<Bench>,
    pub(crate) world: AwsWorld,
    http: reqwest::Client,
    model: Option<AwsModel>,
}

impl AwsBench {
    pub(crate) async fn start(settings: CloudSettings) -> Self {
        Self::start_at(settings, Arc::new(SystemClock)).await
    }

    pub(crate) async fn start_at(settings: CloudSettings, clock: Arc<dyn Clock>) -> Self {
        let world = AwsWorld::with_channels(2, vec!["10.0.0.0/16".parse().expect("a prefix")]);
        let bench = Arc::new(Bench::default());
        let cloud = aws::serve(settings, world.clone(), bench.clone(), clock).await.expect("serves");
        Self { cloud, bench, world, http: reqwest::Client::new(), model: AwsModel::load() }
    }

    /// One call; a good answer must have the operation's output shape.
    pub(crate) async fn try_call(&self, operation: &str, body: Value) -> Result<(u16, Value), reqwest::Error> {
        let request = self.http.post(self.cloud.url()).header("x-amz-target", format!("OvertureService.{operation}"));
        let response =
            request.header("content-type", "application/x-amz-json-1.1").body(body.to_string()).send().await?;
        let status = response.status().as_u16();
        assert!(response.headers().contains_key("x-amzn-requestid"), "every answer carries a request id");
        let answer: Value = serde_json::from_str(&response.text().await?).expect("JSON");
        if let (200, Some(model)) = (status, &self.model) {
            model.check_output(operation, &answer);
        }
        Ok((status, answer))
    }

    pub(crate) async fn call(&self, operation: &str, body: Value) -> Value {
        let (status, answer) = self.try_call(operation, body).await.expect("an answer");
        assert_eq!(status, 200, "{operation}: {answer}");
        answer
    }

    pub(crate) async fn refused(&self, operation: &str, body: Value) -> (String, String) {
        let (status, answer) = self.try_call(operation, body.clone()).await.expect("an answer");
        assert_ne!(status, 200, "{operation} took {body}");
        let word = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
        (word("__type"), word("message"))
    }

    pub(crate) fn new_interface(&self, name: &str, vlan: u16) -> Value {
        json!({ "connectionId": PORT, "newPrivateVirtualInterface": {
            "virtualInterfaceName": name, "vlan": vlan, "asn": 65010, "directConnectGatewayId": self.world.gateway_id } })
    }

    pub(crate) async fn interface(&self, id: &str) -> Value {
        let answer = self.call("DescribeVirtualInterfaces", json!({ "virtualInterfaceId": id })).await;
        answer["virtualInterfaces"].get(0).cloned().unwrap_or_default()
    }

    pub(crate) async fn wait_state(&self, id: &str, state: &str) -> Value {
        until(&format!("{id} {state}"), async || {
            let vif = self.interface(id).await;
            (vif["virtualInterfaceState"] == state).then_some(vif)
        })
        .await
    }
}

pub(crate) struct GoogleBench {
    pub(crate) cloud: Running,
    pub(crate) bench: Arc<Bench>,
    pub(crate) world: GoogleWorld,
    http: reqwest::Client,
    model: Option<GoogleModel>,
}

impl GoogleBench {
    pub(crate) async fn start(settings: CloudSettings) -> Self {
        Self::start_at(settings, Arc::new(SystemClock)).await
    }

    pub(crate) async fn start_at(settings: CloudSettings, clock: Arc<dyn Clock>) -> Self {
        let world = GoogleWorld::with_channels(2, vec!["10.1.0.0/16".parse().expect("a prefix")]);
        let bench = Arc::new(Bench::default());
        let cloud = google::serve(settings, world.clone(), bench.clone(), clock).await.expect("serves");
        Self { cloud, bench, world, http: reqwest::Client::new(), model: GoogleModel::load() }
    }

    pub(crate) fn path(&self, rest: &str) -> String {
        match rest.strip_prefix("global/") {
            Some(_) => format!("/compute/v1/projects/{}/{rest}", self.world.project),
            None => format!("/compute/v1/projects/{}/regions/{}/{rest}", self.world.project, self.world.region),
        }
    }

    /// One call; a good answer must have the operation's response schema.
    pub(crate) async fn try_call(
        &self,
        method: &str,
        rest: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), reqwest::Error> {
        let path = self.path(rest);
        let method: reqwest::Method = method.parse().expect("a method");
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.cloud.url()));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let answer: Value = response.json().await?;
        if let (200, Some(model)) = (status, &self.model) {
            model.check(method.as_str(), path.split('?').next().unwrap_or_default(), &answer);
        }
        if status != 200 {
            assert_eq!(answer["error"]["code"], status, "{answer}");
            assert!(answer["error"]["errors"][0]["reason"].is_string(), "{answer}");
        }
        Ok((status, answer))
    }

    pub(crate) async fn call(&self, method: &str, rest: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.try_call(method, rest, body).await.expect("an answer");
        assert_eq!(status, 200, "{method} {rest}: {answer}");
        answer
    }

    pub(crate) async fn get(&self, rest: &str) -> Value {
        self.call("GET", rest, None).await
    }

    /// The HTTP status and the reason of a refusal.
    pub(crate) async fn refused(&self, method: &str, rest: &str, body: &Value) -> (u16, String) {
        let (status, answer) = self.try_call(method, rest, Some(body)).await.expect("an answer");
        assert_ne!(status, 200, "{method} {rest} took {body}");
        (status, answer["error"]["errors"][0]["reason"].as_str().unwrap_or_default().to_owned())
    }

    /// A mutation, and its operation once it is done.
    pub(crate) async fn done(&self, method: &str, rest: &str, body: Option<&Value>) -> Value {
        let operation = self.call(method, rest, body).await;
        let name = operation["name"].as_str().expect("a name").to_owned();
        self.call("POST", &format!("operations/{name}/wait"), None).await
    }

    pub(crate) fn new_attachment(&self, name: &str) -> Value {
        json!({ "name": name, "interconnect": format!("projects/p/global/interconnects/{INTERCONNECT}"),
                "router": format!("https://www.googleapis.com/compute/v1/projects/x/regions/y/routers/{}", self.world.router),
                "type": "DEDICATED" })
    }

    pub(crate) fn router(&self) -> String {
        format!("routers/{}", self.world.router)
    }

    /// The arrays of the router with an interface, a peer and a key for an attachment added.
    pub(crate) async fn with_peer(&self, name: &str) -> Value {
        let attachment = self.get(&format!("interconnectAttachments/{name}")).await;
        let router = self.get(&self.router()).await;
        let peer_ip =
            attachment["customerRouterIpAddress"].as_str().and_then(|a| a.split('/').next()).expect("an address");
        let grown = |array: &str, item: Value| {
            let mut all = router[array].as_array().cloned().unwrap_or_default();
            all.push(item);
            Value::Array(all)
        };
        json!({
            "interfaces": grown("interfaces", json!({ "name": name, "ipRange": attachment["cloudRouterIpAddress"],
                "linkedInterconnectAttachment": attachment["selfLink"] })),
            "bgpPeers": grown("bgpPeers", json!({ "name": name, "interfaceName": name, "peerIpAddress": peer_ip,
                "peerAsn": 64512, "md5AuthenticationKeyName": name,
                "bfd": { "sessionInitializationMode": "ACTIVE", "minTransmitInterval": 1000, "minReceiveInterval": 1000, "multiplier": 5 } })),
            "md5AuthenticationKeys": grown("md5AuthenticationKeys", json!({ "name": name, "key": "s3cretKey" })),
        })
    }

    pub(crate) async fn without_peer(&self, name: &str) -> Value {
        let router = self.get(&self.router()).await;
        let rest = |array: &str| -> Vec<Value> {
            router[array].as_array().into_iter().flatten().filter(|item| item["name"] != name).cloned().collect()
        };
        json!({ "interfaces": rest("interfaces"), "bgpPeers": rest("bgpPeers"), "md5AuthenticationKeys": rest("md5AuthenticationKeys") })
    }

    pub(crate) async fn wait_active(&self, name: &str) -> Value {
        until(&format!("{name} ACTIVE"), async || {
            let attachment = self.get(&format!("interconnectAttachments/{name}")).await;
            (attachment["state"] == "ACTIVE").then_some(attachment)
        })
        .await
    }
}
