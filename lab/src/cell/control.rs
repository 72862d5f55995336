//! The lab's control socket: HTTP with JSON over a unix socket in the lab's directory, for its owner alone.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /status` | [`Status`] |
//! | `POST /wires/{name}` with a [`WireChange`] | [`WireStatus`] |
//! | `PUT /sites/{site}/links/{parent}/{vlan}` with a [`LinkWanted`] | nothing; the tagged interface is there |
//! | `DELETE /sites/{site}/links/{parent}/{vlan}` | nothing; it is gone |
//! | `PUT /sites/{site}/macsec/{trunk}` with a [`MacSecWanted`] | [`MacSecHeld`] |
//! | `POST /shutdown` | nothing; the lab ends |

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use crate::clouds::network::{Network, SessionStatus};
use crate::net::macsec::{MacSecHeld, MacSecStatus, MacSecWanted};
use crate::net::wire::{WireChange, WireStatus};
use crate::net::{LinkName, LinkWanted, NetError, VlanWay};

use super::inside::Inside;
use super::{CellError, chain};

/// Name of the socket in the lab's directory.
const SOCKET: &str = "control.sock";
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// A lab as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Names of the network namespaces.
    pub namespaces: Vec<String>,
    /// The wires, by name.
    pub wires: BTreeMap<String, WireStatus>,
    /// What each site's router says about its sessions, by site and session id.
    pub sites: BTreeMap<String, BTreeMap<String, SessionStatus>>,
    /// Names of the tagged interfaces of each site's router.
    pub tagged: BTreeMap<String, Vec<String>>,
    /// What each site's router tells of MACsec, by site and trunk; no trunk on which it is not run.
    pub macsec: BTreeMap<String, BTreeMap<String, MacSecStatus>>,
    /// How tagged interfaces are made; `None` before the first session.
    pub vlan: Option<VlanWay>,
    /// What the lab said when it was up.
    pub ready: serde_json::Value,
}

/// Serves the socket until the lab shuts down.
pub(super) fn serve(inside: Inside) -> Result<JoinHandle<()>, CellError> {
    let path = inside.dir.join(SOCKET);
    let fail = |operation| {
        let path = path.clone();
        move |source| CellError::File { operation, path, source }
    };
    let (_open, short) = reachable(&inside.dir)?;
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(fail("replace")(e)),
        _ => {}
    }
    let listener = UnixListener::bind(&short).map_err(fail("listen on"))?;
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).map_err(fail("protect"))?;
    let shutdown = inside.shutdown.clone();
    let router = Router::new()
        .route("/status", get(status))
        .route("/wires/{name}", post(change_wire))
        .route("/sites/{site}/links/{parent}/{vlan}", put(put_link).delete(delete_link))
        .route("/sites/{site}/macsec/{trunk}", put(put_macsec))
        .route("/shutdown", post(end))
        .with_state(Arc::new(inside));
    Ok(tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(async move { shutdown.cancelled().await });
        if let Err(error) = served.await {
            tracing::warn!(%error, "the control socket ends");
        }
    }))
}

/// A path to the socket that fits into `sockaddr_un` (108 bytes) however long the directory's own path is, for as long
/// as the descriptor is open.
fn reachable(dir: &Path) -> Result<(OwnedFd, PathBuf), CellError> {
    let opened = std::fs::File::open(dir);
    let opened: OwnedFd =
        opened.map_err(|source| CellError::File { operation: "open", path: dir.to_owned(), source })?.into();
    let path = format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd());
    Ok((opened, path.into()))
}

type Refusal = (StatusCode, String);

async fn status(State(inside): State<Arc<Inside>>) -> Result<Json<Status>, Refusal> {
    let network = &inside.network;
    let mut sites = BTreeMap::new();
    for site in [&network.spec().a.name, &network.spec().b.name] {
        let sessions = network.status(site).await;
        let sessions = sessions.map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, chain(&e)))?;
        sites.insert(site.clone(), sessions);
    }
    Ok(Json(Status {
        namespaces: network.namespaces().keys().cloned().collect(),
        wires: network.wires(),
        sites,
        tagged: network.tagged().await,
        macsec: network.macsec().await,
        vlan: network.vlan_way().await,
        ready: inside.said(),
    }))
}

async fn change_wire(
    State(inside): State<Arc<Inside>>,
    UrlPath(name): UrlPath<String>,
    Json(change): Json<WireChange>,
) -> Result<Json<WireStatus>, Refusal> {
    inside.network.change_wire(&name, &change).map(Json).map_err(|error| {
        let unknown = matches!(error, NetError::UnknownWire { .. });
        (if unknown { StatusCode::NOT_FOUND } else { StatusCode::BAD_REQUEST }, chain(&error))
    })
}

type LinkPath = UrlPath<(String, String, u16)>;

async fn put_link(
    State(inside): State<Arc<Inside>>,
    UrlPath((site, parent, vlan)): LinkPath,
    Json(wanted): Json<LinkWanted>,
) -> Result<StatusCode, Refusal> {
    linked(inside.network.put_link(&site, &LinkName { parent, vlan }, &wanted).await)
}

async fn delete_link(
    State(inside): State<Arc<Inside>>,
    UrlPath((site, parent, vlan)): LinkPath,
) -> Result<StatusCode, Refusal> {
    linked(inside.network.delete_link(&site, &LinkName { parent, vlan }).await)
}

fn linked(done: Result<(), NetError>) -> Result<StatusCode, Refusal> {
    done.map(|()| StatusCode::NO_CONTENT).map_err(|error| {
        let unknown = matches!(error, NetError::UnknownLink { .. });
        (if unknown { StatusCode::NOT_FOUND } else { StatusCode::INTERNAL_SERVER_ERROR }, chain(&error))
    })
}

async fn put_macsec(
    State(inside): State<Arc<Inside>>,
    UrlPath((site, trunk)): UrlPath<(String, String)>,
    Json(wanted): Json<MacSecWanted>,
) -> Result<Json<MacSecHeld>, Refusal> {
    inside.network.put_macsec(&site, &trunk, &wanted).await.map(Json).map_err(|error| {
        let status = if matches!(error, NetError::UnknownTrunk { .. }) {
            StatusCode::NOT_FOUND
        } else if matches!(error, NetError::MacSec { .. }) {
            StatusCode::BAD_REQUEST
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        (status, chain(&error))
    })
}

async fn end(State(inside): State<Arc<Inside>>) -> StatusCode {
    inside.shutdown.cancel();
    StatusCode::NO_CONTENT
}

/// Talks to a lab through its control socket.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    /// Keeps the socket's path valid.
    _open: OwnedFd,
}

impl Client {
    /// A client of the lab in a directory.
    ///
    /// # Errors
    /// [`CellError::File`] where there is no such directory.
    pub fn open(dir: &Path) -> Result<Self, CellError> {
        let (open, path) = reachable(dir)?;
        // Nothing goes over TLS here, so no authority is looked for: a small machine may have none.
        let http = reqwest::Client::builder().unix_socket(path).tls_certs_only([]).timeout(ANSWER).no_proxy().build();
        Ok(Self { http: http.map_err(CellError::Control)?, _open: open })
    }

    /// The lab as it is now.
    ///
    /// # Errors
    /// [`CellError::Control`] where it does not answer.
    pub async fn status(&self) -> Result<Status, CellError> {
        let answer = self.send(self.http.get("http://lab/status")).await?;
        answer.json().await.map_err(CellError::Control)
    }

    /// Changes a wire: `ch0`, `ch1`, … or `internet`.
    ///
    /// # Errors
    /// [`CellError::Refused`] where there is no such wire or it cannot do that.
    pub async fn change_wire(&self, name: &str, change: &WireChange) -> Result<WireStatus, CellError> {
        let answer = self.send(self.http.post(format!("http://lab/wires/{name}")).json(change)).await?;
        answer.json().await.map_err(CellError::Control)
    }

    /// Makes a tagged interface on a site's router that the operator configures, or makes it what is wanted.
    ///
    /// # Errors
    /// [`CellError::Refused`] where there is no such site or trunk, or the kernel refuses.
    pub async fn put_link(&self, site: &str, link: &LinkName, wanted: &LinkWanted) -> Result<(), CellError> {
        self.send(self.http.put(link_url(site, link)).json(wanted)).await.map(drop)
    }

    /// Takes such an interface away, if it is there.
    ///
    /// # Errors
    /// As for [`Client::put_link`].
    pub async fn delete_link(&self, site: &str, link: &LinkName) -> Result<(), CellError> {
        self.send(self.http.delete(link_url(site, link))).await.map(drop)
    }

    /// Makes the MACsec keys of a trunk on a site's router that the operator configures what is wanted; how it is then.
    ///
    /// # Errors
    /// [`CellError::Refused`] where there is no such site or trunk, or the keys are malformed.
    pub async fn put_macsec(&self, site: &str, trunk: &str, wanted: &MacSecWanted) -> Result<MacSecHeld, CellError> {
        let request = self.http.put(format!("http://lab/sites/{site}/macsec/{trunk}")).json(wanted);
        self.send(request).await?.json().await.map_err(CellError::Control)
    }

    /// Asks the lab to end; it does so after the answer.
    ///
    /// # Errors
    /// [`CellError::Control`] where it does not answer.
    pub async fn shutdown(&self) -> Result<(), CellError> {
        self.send(self.http.post("http://lab/shutdown")).await.map(drop)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, CellError> {
        let answer = request.send().await.map_err(CellError::Control)?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(CellError::Refused(answer.text().await.map_err(CellError::Control)?))
    }
}

fn link_url(site: &str, link: &LinkName) -> String {
    format!("http://lab/sites/{site}/links/{}/{}", link.parent, link.vlan)
}
