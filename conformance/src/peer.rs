//! What the suite serves while it tests a Responder: the target may ask its peer which activation keys it takes before it
//! hands one out, tell it what changed, and look at what the peer has made, which is nothing.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, post},
    serve::Listener,
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::json;
use tieline_openapi::coordinator::{Empty, GetActivationKeyParametersResponse, OperationId as Op};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// How long a handshake may take. One comes after the other: a target opens few connections.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why the suite's half of the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The certificate or its key.
    #[error("the {0} is not in PEM")]
    Pem(&'static str, #[source] rustls::pki_types::pem::Error),
    /// TLS.
    #[error("the certificate and the key cannot be used: they must belong together")]
    Tls(#[source] rustls::Error),
    /// The listener.
    #[error("the listener failed")]
    Listen(#[source] std::io::Error),
}

/// The suite's half of the API, over TLS 1.3. Whoever calls is answered: nothing of it is anybody's.
pub struct Peer {
    tcp: TcpListener,
    tls: TlsAcceptor,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("at", &self.tcp.local_addr()).finish_non_exhaustive()
    }
}

impl Peer {
    /// On this listener, with a certificate chain and its private key in PEM.
    ///
    /// # Errors
    /// [`PeerError::Pem`] and [`PeerError::Tls`].
    pub fn new(tcp: TcpListener, certificate: &[u8], key: &[u8]) -> Result<Self, PeerError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
        let chain = chain.map_err(|error| PeerError::Pem("certificate", error))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| PeerError::Pem("key", error))?;
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(PeerError::Tls)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(PeerError::Tls)?;
        Ok(Self { tcp, tls: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Serves until the future is dropped. Keys of version 1 are taken only: the suite has no key pair by which it could
    /// read others.
    ///
    /// # Errors
    /// [`PeerError::Listen`].
    pub async fn serve(self) -> Result<(), PeerError> {
        let parameters =
            || async { Json(GetActivationKeyParametersResponse { supported_versions: vec![1], encryption: None }) };
        let heard = || async { Json(Empty {}) };
        let base = tieline_openapi::coordinator::BASE_PATH;
        let at = |operation: Op| format!("{base}{}", operation.template());
        let router = Router::new()
            .route(&at(Op::GetActivationKeyParameters), get(parameters))
            .route(&at(Op::NotifyConnectionStatus), post(heard))
            .route(&at(Op::NotifyMaintenance), post(heard))
            .fallback(|| async { nothing() });
        axum::serve(self, router).await.map_err(PeerError::Listen)
    }
}

impl Listener for Peer {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // A failed accept is the caller's misfortune, or a shortage that passes (`axum::serve` waits likewise).
            let Ok((stream, from)) = self.tcp.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, self.tls.accept(stream)).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

fn nothing() -> Response {
    (StatusCode::NOT_FOUND, Json(json!({ "title": "Not found", "status": 404 }))).into_response()
}
