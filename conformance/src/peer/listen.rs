//! The listener of the suite's own half: mutual TLS 1.3, and for one case or another something worse.

use std::{
    convert::Infallible,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, RETRY_AFTER},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _},
    server::{VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    heard::{Heard, operation},
    plot::Said,
    stage::Stage,
};
use crate::wire::chain;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections at a time: a target needs a handful.
const CONNECTIONS: usize = 256;
/// The largest request that is read, in bytes.
const MAX_REQUEST_BYTES: usize = 1024 * 1024;

/// Why the suite's half of the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The certificate or its key.
    #[error("the {0} is not in PEM")]
    Pem(&'static str, #[source] rustls::pki_types::pem::Error),
    /// TLS.
    #[error("the certificate and the key cannot be used: they must belong together")]
    Tls(#[source] rustls::Error),
    /// The authorities of the target's client certificate.
    #[error("the trust anchors cannot be used")]
    Anchors(#[source] VerifierBuilderError),
    /// The certificate of nobody, which a target must refuse.
    #[error("no certificate could be made that the target must refuse")]
    Stranger(#[source] rcgen::Error),
    /// The listener.
    #[error("the listener failed")]
    Listen(#[source] std::io::Error),
}

/// What the suite looks like to whoever calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guise {
    /// The peer that it is.
    Peer,
    /// The same, but with nothing newer than TLS 1.2.
    OldTls,
    /// Somebody with a certificate that no authority issued.
    Stranger,
}

/// Where the suite listens.
#[derive(Debug, Clone)]
pub struct Peer(Arc<Inner>);

struct Inner {
    tcp: Mutex<Option<TcpListener>>,
    acceptors: [TlsAcceptor; 3],
    asks_certificates: bool,
    guise: watch::Sender<Guise>,
    stage: Stage,
    monotonic: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// Connections that were tried in the guise of today, and requests that came over them.
    tried: AtomicUsize,
    requests: AtomicUsize,
    /// Why the last handshake failed.
    trouble: Mutex<Option<String>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").finish_non_exhaustive()
    }
}

/// An answer that is lost: the connection ends without one.
#[derive(Debug, thiserror::Error)]
#[error("the answer is lost")]
struct Lost;

impl Peer {
    /// On this listener, with a certificate chain and its private key in PEM. `anchors` are those of the target's client
    /// certificate: without them none is asked for. `monotonic` is the time since some moment that never changes.
    ///
    /// # Errors
    /// [`PeerError`].
    pub fn new(
        tcp: TcpListener,
        certificate: &[u8],
        key: &[u8],
        anchors: Option<&[u8]>,
        monotonic: Arc<dyn Fn() -> Duration + Send + Sync>,
    ) -> Result<Self, PeerError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
        let chain = chain.map_err(|error| PeerError::Pem("certificate", error))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| PeerError::Pem("key", error))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let clients = anchors.map(|anchors| clients(anchors, &provider)).transpose()?;
        let own = |version| acceptor(&provider, version, &clients, (chain.clone(), key.clone_key()));
        let pair = KeyPair::generate().map_err(PeerError::Stranger)?;
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).map_err(PeerError::Stranger)?;
        let nobodys = params.self_signed(&pair).map_err(PeerError::Stranger)?.der().clone();
        let nobodys = (vec![nobodys], PrivatePkcs8KeyDer::from(pair.serialize_der()).into());
        let acceptors = [own(&TLS13)?, own(&TLS12)?, acceptor(&provider, &TLS13, &clients, nobodys)?];
        Ok(Self(Arc::new(Inner {
            tcp: Mutex::new(Some(tcp)),
            acceptors,
            asks_certificates: clients.is_some(),
            guise: watch::Sender::new(Guise::Peer),
            stage: Stage::default(),
            monotonic,
            tried: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            trouble: Mutex::default(),
        })))
    }

    /// Serves until the future is dropped. It may be called once.
    ///
    /// # Errors
    /// [`PeerError::Listen`].
    pub async fn serve(self) -> Result<Infallible, PeerError> {
        let tcp = self.0.tcp.lock().unwrap_or_else(PoisonError::into_inner).take();
        let tcp = tcp.ok_or_else(|| PeerError::Listen(std::io::Error::other("it is served already")))?;
        let mut guise = self.0.guise.subscribe();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                // Whoever is connected knows the suite as it was.
                _ = guise.changed() => connections.abort_all(),
                Some(_) = connections.join_next() => {}
                accepted = tcp.accept(), if connections.len() < CONNECTIONS => match accepted {
                    Ok((stream, _)) => {
                        let (inner, guise) = (Arc::clone(&self.0), *guise.borrow());
                        connections.spawn(async move { inner.connection(stream, guise).await });
                    }
                    // A failed accept is the caller's misfortune, or a shortage that passes.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
            }
        }
    }

    pub(crate) fn asks_certificates(&self) -> bool {
        self.0.asks_certificates
    }

    pub(crate) fn stage(&self) -> &Stage {
        &self.0.stage
    }

    /// Looks otherwise from now on, to everybody. Connections that are open are closed.
    pub(crate) fn disguise(&self, guise: Guise) {
        self.0.tried.store(0, Ordering::Relaxed);
        self.0.requests.store(0, Ordering::Relaxed);
        self.0.guise.send_replace(guise);
    }

    /// How many connections were tried since the last disguise, and how many requests came.
    pub(crate) fn callers(&self) -> (usize, usize) {
        (self.0.tried.load(Ordering::Relaxed), self.0.requests.load(Ordering::Relaxed))
    }

    /// Why the last handshake failed, if one did.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Inner {
    async fn connection(&self, stream: TcpStream, guise: Guise) {
        self.tried.fetch_add(1, Ordering::Relaxed);
        let acceptor = match guise {
            Guise::Peer => &self.acceptors[0],
            Guise::OldTls => &self.acceptors[1],
            Guise::Stranger => &self.acceptors[2],
        };
        let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return self.troubled(chain(&error)),
            Err(_) => return self.troubled(format!("a TLS handshake took longer than {HANDSHAKE:?}")),
        };
        let certified = is_certified(&stream);
        let service = service_fn(move |request| self.answer(request, certified));
        // It ends when the caller goes, or an answer is lost on purpose.
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    fn troubled(&self, why: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    async fn answer(&self, request: Request<Incoming>, certified: bool) -> Result<Response<Full<Bytes>>, Lost> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let (head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, MAX_REQUEST_BYTES).collect().await else {
            return Ok(written(&Said::no(413, "the body is too large")));
        };
        let body = body.to_bytes();
        // Whatever stands before it is the base path that the target was configured with.
        let path = head.uri.path();
        let path = path.find("/providers").and_then(|at| path.get(at..)).unwrap_or(path);
        let Some((op, ids)) = operation(head.method.as_str(), path) else {
            return Ok(written(&Said::no(404, "there is no such path")));
        };
        let json = head.headers.get(CONTENT_TYPE).is_none_or(|kind| kind.as_bytes().starts_with(b"application/json"));
        let query = form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
        let parsed: Result<Value, _> = if body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&body) };
        let Ok(parsed) = parsed else { return Ok(written(&Said::no(400, "the body is no JSON"))) };
        let heard = Heard {
            at: (self.monotonic)(),
            op,
            path: path.to_owned(),
            ids,
            query: query.into_owned().collect(),
            body: parsed,
            says_json: body.is_empty() || (json && head.headers.contains_key(CONTENT_TYPE)),
            certified,
            answer: None,
        };
        self.stage.hear(heard).await.map(|said| written(&said)).ok_or(Lost)
    }
}

fn written(said: &Said) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(said.body.to_string())));
    if let Ok(status) = said.status.try_into() {
        *response.status_mut() = status;
    }
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    if said.status == 429 {
        response.headers_mut().insert(RETRY_AFTER, hyper::header::HeaderValue::from_static("1"));
    }
    response
}

fn is_certified(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty())
}

/// Takes a client certificate of these authorities, and whoever presents none.
fn clients(anchors: &[u8], provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, PeerError> {
    let mut roots = RootCertStore::empty();
    for anchor in CertificateDer::pem_slice_iter(anchors) {
        let anchor = anchor.map_err(|error| PeerError::Pem("file of trust anchors", error))?;
        roots.add(anchor).map_err(PeerError::Tls)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    builder.allow_unauthenticated().build().map_err(PeerError::Anchors)
}

fn acceptor(
    provider: &Arc<CryptoProvider>,
    version: &'static SupportedProtocolVersion,
    clients: &Option<Arc<dyn ClientCertVerifier>>,
    (chain, key): (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
) -> Result<TlsAcceptor, PeerError> {
    let config = ServerConfig::builder_with_provider(Arc::clone(provider)).with_protocol_versions(&[version]);
    let config = config.map_err(PeerError::Tls)?;
    let config = match clients {
        Some(clients) => config.with_client_cert_verifier(Arc::clone(clients)),
        None => config.with_no_client_auth(),
    };
    Ok(TlsAcceptor::from(Arc::new(config.with_single_cert(chain, key).map_err(PeerError::Tls)?)))
}
