//! Just enough of the API for a gateway, on a bare TCP socket: this crate knows no HTTP server.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tieline_openapi::v1::{
    Gateway, GatewayConfiguration, GatewayState, JoinAnswer, JoinRequest, KernelLanes, Observations,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::world::gateway_id;

pub(crate) const TOKEN: &str = "join-once";
pub(crate) const CREDENTIAL: &str = "credential-of-a";

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) joins: Vec<JoinRequest>,
    pub(crate) last_event_ids: Vec<Option<String>>,
    pub(crate) observations: Vec<Observations>,
    pub(crate) kernel_lanes: Vec<KernelLanes>,
}

pub(crate) struct FakeApi {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Seen>>,
    pub(crate) configuration: watch::Sender<Option<GatewayConfiguration>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeApi {
    pub(crate) async fn start(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let (configuration, configured) = watch::channel(None);
        let seeing = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut conversations = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                conversations.spawn(converse(stream, Arc::clone(&seeing), configured.clone()));
            }
        });
        Self { address, seen, configuration, task }
    }
}

async fn converse(
    mut stream: TcpStream,
    seen: Arc<Mutex<Seen>>,
    mut configured: watch::Receiver<Option<GatewayConfiguration>>,
) {
    let mut bytes = Vec::new();
    let (head, mut body) = loop {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break (String::from_utf8(bytes[..end].to_vec()).unwrap(), bytes[end + 4..].to_vec());
        }
    };
    let header = |name: &str| {
        head.lines().find_map(|line| {
            line.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        })
    };
    let length: usize = header("content-length").map_or(0, |length| length.parse().unwrap());
    while body.len() < length {
        assert_ne!(stream.read_buf(&mut body).await.unwrap(), 0);
    }
    let bearer = header("authorization").unwrap_or_default();
    let request = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    let id = gateway_id(0);
    let (status, answer) = if request == "POST /v1/gateways:join" && bearer == format!("Bearer {TOKEN}") {
        let join: JoinRequest = serde_json::from_slice(&body).unwrap();
        seen.lock().unwrap().joins.push(join.clone());
        (
            "200 OK",
            serde_json::to_string(&JoinAnswer { gateway: gateway(join), credential: CREDENTIAL.to_owned() }).unwrap(),
        )
    } else if bearer != format!("Bearer {CREDENTIAL}") {
        ("401 Unauthorized", r#"{"title":"Unauthorized","detail":"the token is unknown or was used"}"#.to_owned())
    } else if request == format!("POST /v1/gateways/{id}/observations") {
        seen.lock().unwrap().observations.push(serde_json::from_slice(&body).unwrap());
        ("200 OK", "{}".to_owned())
    } else if request == format!("PUT /v1/gateways/{id}/kernelLanes") {
        seen.lock().unwrap().kernel_lanes.push(serde_json::from_slice(&body).unwrap());
        ("200 OK", "{}".to_owned())
    } else if request == format!("GET /v1/gateways/{id}/configuration:watch") {
        let known = header("last-event-id");
        seen.lock().unwrap().last_event_ids.push(known.clone());
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n: hello\n\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        loop {
            let current = configured.borrow_and_update().clone();
            if let Some(configuration) = current.filter(|c| Some(c.version.to_string()) != known) {
                let event = format!(
                    "id: {}\nevent: configuration\ndata: {}\n\n",
                    configuration.version,
                    serde_json::to_string(&configuration).unwrap()
                );
                if stream.write_all(event.as_bytes()).await.is_err() {
                    return;
                }
            }
            if configured.changed().await.is_err() {
                return;
            }
        }
    } else {
        ("404 Not Found", "{}".to_owned())
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
        answer.len()
    );
    let _ = stream.write_all(answer.as_bytes()).await;
}

fn gateway(join: JoinRequest) -> Gateway {
    Gateway {
        id: gateway_id(0),
        group: "a".parse().unwrap(),
        attach_point_id: "a".parse().unwrap(),
        name: join.name,
        private_address: join.private_address,
        lanes: join.lanes,
        steering: join.steering,
        state: GatewayState::Joined,
        configuration_version: None,
        last_heard_at: None,
        created_at: "2026-01-01T00:00:00Z".parse().unwrap(),
    }
}
