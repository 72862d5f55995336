//! The proxy between the suite and Tieline, in either direction, and what it does wrong.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::to_bytes,
    extract::{Request, State},
    http::{Method, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
    serve::Listener,
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::Value;
use tieline_conformance::Brought;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// A request on its way.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub method: Method,
    /// Under the base path.
    pub path: String,
    pub query: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub content_type: Option<String>,
    /// How many of the same method and path came before.
    pub before: usize,
    /// How many proposals of its connection came before.
    pub proposed: usize,
    /// The text of the key that the connection is made from.
    pub key: Option<String>,
}

impl Asked {
    pub(super) fn is(&self, method: &Method, last: &str) -> bool {
        self.method == method && self.path.ends_with(last)
    }

    /// Whether a resource of such a collection itself is asked for.
    pub(super) fn item(&self, method: &Method, collection: &str) -> bool {
        let mut parts = self.path.rsplit('/');
        let _id = parts.next();
        self.method == method && parts.next() == Some(collection)
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub(super) fn change(&mut self, change: impl FnOnce(&mut Value)) {
        let mut body = self.json();
        change(&mut body);
        self.body = body.to_string().into_bytes();
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.query.retain(|(other, _)| other != name);
        self.query.push((name.to_owned(), value.to_owned()));
    }

    pub(super) fn asks(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// With which client what comes is sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// As it should be.
    Good,
    /// One that trusts everybody and speaks TLS 1.2.
    Trusting,
    /// One without a certificate.
    Nobody,
}

/// What is wrong with an implementation.
pub(super) enum Fault {
    /// It answers otherwise.
    Answers(fn(&Asked, &mut u16, &mut Value)),
    /// It understands, or asks, otherwise.
    Reads(fn(&mut Asked)),
    /// It answers and does nothing.
    Ignores(fn(&Asked) -> Option<(u16, Value)>),
    /// It asks other things after one that got this status; 0 is none.
    Adds(fn(&Asked, u16) -> Vec<Asked>),
    /// It calls with another client.
    Calls(Caller),
    /// It makes a good key of whatever the customer brings.
    Brings(fn(&Brought) -> String),
    /// It hands out another key than it was asked for; it is told the first one.
    Issues(fn(&String) -> String),
}

/// Where requests go, by how they are called.
pub(super) struct Upstream {
    pub base: String,
    pub clients: Vec<(Caller, reqwest::Client)>,
}

/// What the proxy knows of one connection.
#[derive(Clone)]
struct Spoiled {
    fault: &'static Fault,
    /// The key as it was brought, and as the suite has issued it.
    key: Option<(String, String)>,
    proposed: usize,
}

/// A proxy.
pub(super) struct Proxy {
    upstream: Upstream,
    /// What is wrong with everything.
    always: Mutex<Option<&'static Fault>>,
    /// And with some connections, by their ids.
    some: Mutex<BTreeMap<String, Spoiled>>,
    seen: Mutex<BTreeMap<String, usize>>,
}

impl Proxy {
    pub(super) fn new(upstream: Upstream, always: Option<&'static Fault>) -> Arc<Self> {
        Arc::new(Self { upstream, always: Mutex::new(always), some: Mutex::default(), seen: Mutex::default() })
    }

    /// What goes wrong with everything that is no single connection's.
    pub(super) fn always(&self, fault: Option<&'static Fault>) {
        *self.always.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// What goes wrong with a connection.
    pub(super) fn spoil(&self, connection: &str, fault: &'static Fault, brought: String, issued: String) {
        let spoiled = Spoiled { fault, key: Some((brought, issued)), proposed: 0 };
        self.some.lock().unwrap_or_else(PoisonError::into_inner).insert(connection.to_owned(), spoiled);
    }

    /// What is wrong with what a request is about; a new place of a connection is as wrong as the first.
    fn fault(&self, asked: &mut Asked) -> Option<&'static Fault> {
        let mut some = self.some.lock().unwrap_or_else(PoisonError::into_inner);
        let of_path = asked.path.split("/connections/").nth(1).and_then(|rest| rest.split('/').next());
        let id = of_path.or(asked.asks("connectionId")).map(str::to_owned);
        let body = asked.json();
        let source = body["sourceData"]["sourceConnectionName"].as_str();
        let source = source.and_then(|name| name.rsplit('/').next()).and_then(|id| some.get(id)).cloned();
        if let (Some(id), Some(source)) = (&id, source) {
            some.entry(id.clone()).or_insert(source);
        }
        let text = [&body["encodedKey"], &body["activationKey"]].into_iter().find_map(Value::as_str);
        let by_text = |spoiled: &Spoiled| text.is_some() && spoiled.key.as_ref().map(|(b, _)| b.as_str()) == text;
        let known = id.filter(|id| some.contains_key(id));
        let known = known.or_else(|| some.iter().find(|(_, spoiled)| by_text(spoiled)).map(|(id, _)| id.clone()));
        let Some(spoiled) = known.and_then(|id| some.get_mut(&id)) else {
            return *self.always.lock().unwrap_or_else(PoisonError::into_inner);
        };
        if let Some((brought, issued)) = spoiled.key.as_ref().filter(|(brought, issued)| brought != issued) {
            asked.body = String::from_utf8_lossy(&asked.body).replace(brought, issued).into_bytes();
        }
        asked.key = spoiled.key.as_ref().map(|(_, issued)| issued.clone());
        asked.proposed = spoiled.proposed;
        if asked.is(&Method::POST, "/features") {
            spoiled.proposed += 1;
        }
        Some(spoiled.fault)
    }

    async fn send(&self, asked: &Asked, caller: Caller) -> anyhow::Result<(u16, Value)> {
        let mut url = reqwest::Url::parse(&format!("{}{}", self.upstream.base, asked.path))?;
        if !asked.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&asked.query);
        }
        let clients = &self.upstream.clients;
        let (_, http) = clients.iter().find(|(of, _)| *of == caller).unwrap_or(&clients[0]);
        let mut request = http.request(asked.method.clone(), url);
        if let Some(kind) = &asked.content_type {
            request = request.header(CONTENT_TYPE, kind).body(asked.body.clone());
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok((status, serde_json::from_slice(&response.bytes().await?).unwrap_or_default()))
    }

    async fn pass(&self, request: Request) -> anyhow::Result<Response> {
        let (parts, body) = request.into_parts();
        let uri = reqwest::Url::parse(&format!("http://proxy{}", parts.uri))?;
        let path = uri.path();
        let path = path.find("/providers").and_then(|at| path.get(at..)).unwrap_or(path);
        let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let mut asked = Asked {
            method: parts.method,
            path: path.to_owned(),
            query: uri.query_pairs().into_owned().collect(),
            body: to_bytes(body, 16 * 1024 * 1024).await?.to_vec(),
            content_type: kind.map(str::to_owned),
            before: 0,
            proposed: 0,
            key: None,
        };
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let count = seen.entry(format!("{} {}", asked.method, asked.path)).or_default();
            asked.before = std::mem::replace(count, *count + 1);
        }
        let fault = self.fault(&mut asked);
        let mut caller = Caller::Good;
        match fault {
            Some(Fault::Reads(read)) => read(&mut asked),
            Some(Fault::Ignores(ignore)) => {
                if let Some((status, answer)) = ignore(&asked) {
                    return said(status, &answer);
                }
            }
            Some(Fault::Calls(other)) => caller = *other,
            Some(Fault::Answers(_) | Fault::Adds(_) | Fault::Brings(_) | Fault::Issues(_)) | None => {}
        }
        // Who is behind does not answer: nobody does.
        let (mut status, mut answer) = self.send(&asked, caller).await.unwrap_or((0, Value::Null));
        match fault {
            Some(Fault::Answers(spoil)) => spoil(&asked, &mut status, &mut answer),
            Some(Fault::Brings(_)) if asked.is(&Method::POST, "/ConfirmActivationKey") => {
                (status, answer) = (200, serde_json::json!({ "keyValid": true }));
            }
            Some(Fault::Adds(add)) => {
                for more in add(&asked, status) {
                    let _ = self.send(&more, caller).await;
                }
            }
            Some(Fault::Reads(_) | Fault::Ignores(_) | Fault::Calls(_) | Fault::Brings(_) | Fault::Issues(_))
            | None => {}
        }
        said(if status == 0 { 503 } else { status }, &answer)
    }
}

fn said(status: u16, answer: &Value) -> anyhow::Result<Response> {
    let status = StatusCode::from_u16(status)?;
    Ok((status, [(CONTENT_TYPE, "application/json")], answer.to_string()).into_response())
}

async fn pass(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    // What the proxy itself cannot do is no fault of anybody's: it must not look like one.
    proxy.pass(request).await.unwrap_or_else(|error| panic!("the proxy failed: {error:#}"))
}

/// Serves a proxy until the task is aborted.
pub(super) fn serve<L>(proxy: Arc<Proxy>, listener: L) -> tokio::task::JoinHandle<std::io::Result<()>>
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(pass).with_state(proxy)).await })
}

/// A listener over TLS 1.3.
pub(super) struct Tls {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl Tls {
    pub(super) fn new(tcp: TcpListener, certificate: &[u8], key: &[u8]) -> anyhow::Result<Self> {
        Self::of(tcp, certificate, key, &[&rustls::version::TLS13])
    }

    /// One that takes older versions as well.
    pub(super) fn lax(tcp: TcpListener, certificate: &[u8], key: &[u8]) -> anyhow::Result<Self> {
        Self::of(tcp, certificate, key, rustls::ALL_VERSIONS)
    }

    fn of(
        tcp: TcpListener,
        certificate: &[u8],
        key: &[u8],
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> anyhow::Result<Self> {
        let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>()?;
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_slice(key)?)?;
        Ok(Self { tcp, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            if let Ok((stream, from)) = self.tcp.accept().await
                && let Ok(Ok(stream)) =
                    tokio::time::timeout(Duration::from_secs(10), self.acceptor.accept(stream)).await
            {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}
