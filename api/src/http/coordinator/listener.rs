//! The listener for peers: TLS 1.3 only, and nobody without a certificate that is a peer's gets as far as HTTP, unless there is
//! a peer that is told by a token alone: then everybody else gets there, and has to show one.

use std::{io, pin::Pin, sync::Arc, task, time::Duration};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::{danger::HandshakeSignatureValid, verify_server_name},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use sha2::{Digest as _, Sha256};
use tieline_openapi::{
    config::{CoordinatorConfig, PeerConfig, PeerIdentity},
    coordinator::ResourceId,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::{
    coordinator::{CoordinationError, read},
    engine::clock::Clock,
};

/// Connections at a time, those in their handshake too. A peer needs a handful.
const CONNECTIONS: usize = 512;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    /// Whom its certificate names.
    Certified(ResourceId),
    /// Nobody that is known yet.
    Unnamed,
}

impl Caller {
    /// Whom the certificate names, where there was one.
    pub(super) const fn certified(&self) -> Option<&ResourceId> {
        match self {
            Self::Certified(id) => Some(id),
            Self::Unnamed => None,
        }
    }
}

/// Certificates of one peer: its issuers, and what tells them from others of the same issuers.
#[derive(Debug)]
struct OfPeer {
    id: ResourceId,
    issued: Arc<dyn ClientCertVerifier>,
    identity: PeerIdentity,
}

/// Takes a certificate that is exactly one peer's.
#[derive(Debug)]
struct PeerVerifier {
    peers: Vec<OfPeer>,
    /// Whether there is a peer that shows no certificate.
    unnamed: bool,
    provider: Arc<CryptoProvider>,
}

impl OfPeer {
    fn of(
        peer: &PeerConfig,
        identity: &PeerIdentity,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, CoordinationError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&peer.ca_file)? {
            roots.add(certificate).map_err(tls)?;
        }
        let issued = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        Ok(Self { id: peer.provider.clone(), issued: issued.build().map_err(tls)?, identity: identity.clone() })
    }

    /// Whether a certificate is this peer's, and the rule that it breaks if not.
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        self.issued.verify_client_cert(certificate, intermediates, now)?;
        let parsed = ParsedCertificate::try_from(certificate)?;
        let unknown = CertificateError::ApplicationVerificationFailure;
        match &self.identity {
            PeerIdentity::DnsName(name) => {
                let name = ServerName::try_from(name.as_str()).map_err(|_| unknown)?;
                verify_server_name(&parsed, &name)
            }
            PeerIdentity::SpkiSha256(pins) => {
                let digest = Sha256::digest(parsed.subject_public_key_info());
                let digest = data_encoding::HEXLOWER.encode(&digest);
                let pinned = pins.iter().any(|pin| pin.eq_ignore_ascii_case(&digest));
                if pinned { Ok(()) } else { Err(unknown.into()) }
            }
        }
    }
}

impl PeerVerifier {
    /// Whose certificate it is: the first peer's that it fits. No two peers have the same identity.
    fn whose(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<&ResourceId, rustls::Error> {
        let mut refused = CertificateError::UnknownIssuer.into();
        for peer in &self.peers {
            match peer.check(certificate, intermediates, now) {
                Ok(()) => return Ok(&peer.id),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn offer_client_auth(&self) -> bool {
        !self.peers.is_empty()
    }

    fn client_auth_mandatory(&self) -> bool {
        !self.unnamed
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Whom we are paired with is told to nobody.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match self.whose(end_entity, intermediates, now) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            // Where a token is enough, a certificate that is nobody's is as good as none.
            Err(_) if self.unnamed => Ok(ClientCertVerified::assertion()),
            Err(error) => Err(error),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn tls(error: impl std::error::Error + Send + Sync + 'static) -> CoordinationError {
    CoordinationError::Tls(Box::new(error))
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, CoordinationError> {
    let what = "certificate";
    let wrong = |source| CoordinationError::Pem { path: path.to_owned(), what, source };
    let text = read(path)?;
    let all: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(Some(Box::new(error))))?;
    if all.is_empty() { Err(wrong(None)) } else { Ok(all) }
}

fn private_key(path: &str) -> Result<PrivateKeyDer<'static>, CoordinationError> {
    let wrong = |error: rustls::pki_types::pem::Error| CoordinationError::Pem {
        path: path.to_owned(),
        what: "private key",
        source: Some(Box::new(error)),
    };
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(wrong)
}

/// An accepted connection, with its place among those that may be open.
pub(super) struct Stream {
    tls: TlsStream<TcpStream>,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> task::Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>, bytes: &[u8]) -> task::Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

/// Accepts connections of peers. Handshakes run beside each other, so a slow one holds up nobody.
pub(super) struct PeerListener {
    ready: mpsc::Receiver<(Stream, Caller)>,
    us: Caller,
}

impl PeerListener {
    /// Reads the certificates and begins to accept, until `stop` is cancelled. The task holds the socket until it ends.
    pub(super) fn start(
        config: &CoordinatorConfig,
        listener: TcpListener,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<(Self, JoinHandle<()>), CoordinationError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let certified = config.peers.iter().filter_map(|peer| Some((peer, peer.identity.as_ref()?)));
        let peers =
            certified.map(|(peer, identity)| OfPeer::of(peer, identity, &provider)).collect::<Result<_, _>>()?;
        let unnamed = config.peers.iter().any(|peer| peer.identity.is_none());
        let verifier = Arc::new(PeerVerifier { peers, unnamed, provider: Arc::clone(&provider) });
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(tls)?
            .with_client_cert_verifier(Arc::clone(&verifier) as Arc<dyn ClientCertVerifier>)
            .with_single_cert(certificates(&config.certificate_file)?, private_key(&config.key_file)?)
            .map_err(tls)?;
        let (sender, ready) = mpsc::channel(1);
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let accepting = tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = accept(listener, acceptor, verifier, clock, sender) => {}
            }
        });
        Ok((Self { ready, us: Caller::Certified(config.provider.clone()) }, accepting))
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    verifier: Arc<PeerVerifier>,
    clock: Arc<dyn Clock>,
    sender: mpsc::Sender<(Stream, Caller)>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (tcp, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            // One that is gone before it was accepted is nobody's loss; where descriptors are out, a moment helps.
            Err(error) => {
                tracing::warn!(%error, "a peer's connection could not be accepted");
                clock.sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, verifier, clock, sender) =
            (acceptor.clone(), Arc::clone(&verifier), Arc::clone(&clock), sender.clone());
        tokio::spawn(async move {
            let handshake = tokio::select! {
                done = acceptor.accept(tcp) => done,
                () = clock.sleep(HANDSHAKE) => return,
            };
            let tls = match handshake {
                Ok(tls) => tls,
                Err(error) => {
                    tracing::info!(%error, "a connection to the coordinator was refused");
                    return;
                }
            };
            let now = u64::try_from(clock.now().as_second()).unwrap_or(0);
            let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
            let chain = tls.get_ref().1.peer_certificates().and_then(<[_]>::split_first);
            let caller = match chain {
                Some((certificate, intermediates)) => match verifier.whose(certificate, intermediates, now) {
                    Ok(id) => Caller::Certified(id.clone()),
                    Err(_) if verifier.unnamed => Caller::Unnamed,
                    // The handshake took it a moment ago: it has just ended.
                    Err(_) => return,
                },
                None if verifier.unnamed => Caller::Unnamed,
                None => return,
            };
            // Nobody takes it any more where the surface has ended.
            let _ended = sender.send((Stream { tls, _place: place }, caller)).await;
        });
    }
}

impl Listener for PeerListener {
    type Io = Stream;
    type Addr = Caller;

    async fn accept(&mut self) -> (Stream, Caller) {
        match self.ready.recv().await {
            Some(ready) => ready,
            // Nothing is accepted any more; whoever waits is told to stop.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Caller> {
        Ok(self.us.clone())
    }
}

impl Connected<IncomingStream<'_, PeerListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, PeerListener>) -> Self {
        stream.remote_addr().clone()
    }
}
