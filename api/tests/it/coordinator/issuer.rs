//! An issuer of tokens over TLS: its keys, a token endpoint, and whatever else a test wants to serve.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    extract::State,
    http::HeaderMap,
    routing::{get, post},
};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tieline_openapi::config::{KeysAddress, TokenAlgorithm, TokenKeys, TokenRules, TokenSigner};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::fixture::Authority;

struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((tcp, from)) = self.listener.accept().await else { continue };
            if let Ok(tls) = self.acceptor.accept(tcp).await {
                return (tls, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// Serves over TLS until the test ends; its host with the port.
pub(super) async fn serve(ca: &Authority, name: &str, router: Router) -> String {
    ca.certify(name);
    let pem = |suffix| std::fs::read(ca.path(&format!("{name}.{suffix}"))).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(&pem("pem")).unwrap()];
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(&pem("key")).unwrap())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let tls = Tls { listener, acceptor: TlsAcceptor::from(Arc::new(config)) };
    tokio::spawn(async move { axum::serve(tls, router).await.unwrap() });
    host
}

/// Now, in seconds since 1970.
pub(super) fn now() -> i64 {
    use tieline_api::engine::clock::{Clock as _, SystemClock};
    SystemClock::new().now().as_second()
}

/// Adds or takes away claims, by one table.
pub(super) fn changed(claims: &Value, changes: &Value) -> Value {
    let mut claims = claims.clone();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

/// What the endpoints share.
struct Served {
    keys: Mutex<Value>,
    key: KeyPair,
    asked_for_keys: AtomicUsize,
    granted: AtomicUsize,
    number: AtomicUsize,
}

/// An issuer.
pub(super) struct Issuer {
    served: Arc<Served>,
    pub(super) ca: Authority,
    pub(super) host: String,
}

pub(super) const SECRET: &str = "s3cret of a client/+";
pub(super) const ISSUER: &str = "https://issuer.example";

fn jwk(key: &KeyPair, kid: &str) -> Value {
    let point = key.der_bytes();
    json!({ "kty": "EC", "crv": "P-256", "use": "sig", "kid": kid,
            "x": BASE64URL_NOPAD.encode(&point[1..33]), "y": BASE64URL_NOPAD.encode(&point[33..65]) })
}

impl Issuer {
    pub(super) async fn start() -> Self {
        let (ca, key) = (Authority::new(), KeyPair::generate().unwrap());
        std::fs::write(ca.path("signer.key"), key.serialize_pem()).unwrap();
        let keys = Mutex::new(json!({ "keys": [jwk(&key, "one")] }));
        let served = Arc::new(Served {
            keys,
            key,
            asked_for_keys: AtomicUsize::new(0),
            granted: AtomicUsize::new(0),
            number: AtomicUsize::new(0),
        });
        let router =
            Router::new().route("/keys", get(keys_of)).route("/token", post(grant)).with_state(Arc::clone(&served));
        let host = serve(&ca, "issuer", router).await;
        Self { served, ca, host }
    }

    /// How often the keys were asked for, and tokens granted.
    pub(super) fn asked(&self) -> (usize, usize) {
        (self.served.asked_for_keys.load(Ordering::Relaxed), self.served.granted.load(Ordering::Relaxed))
    }

    /// What a peer's tokens are, for an audience.
    pub(super) fn rules(&self, subject: &str, audience: &str) -> TokenRules {
        let address = KeysAddress { url: format!("https://{}/keys", self.host), ca_file: Some(self.ca.path("ca.pem")) };
        TokenRules {
            issuer: ISSUER.to_owned(),
            audience: audience.to_owned(),
            claims: BTreeMap::from([("sub".to_owned(), subject.to_owned())]),
            keys: TokenKeys::Url(address),
            algorithms: BTreeSet::from([TokenAlgorithm::ES256]),
            leeway_seconds: 5,
            once: true,
        }
    }

    /// Signs as the issuer.
    pub(super) fn signer(&self, audience: &str) -> TokenSigner {
        TokenSigner {
            key_file: self.ca.path("signer.key"),
            key_id: "one".to_owned(),
            issuer: ISSUER.to_owned(),
            audience: audience.to_owned(),
            subject: None,
        }
    }

    /// A token of its own, with some claims otherwise.
    pub(super) fn token(&self, subject: &str, audience: &str, changes: &Value) -> String {
        self.served.token(subject, audience, changes)
    }
}

impl Served {
    fn token(&self, subject: &str, audience: &str, changes: &Value) -> String {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let claims = json!({ "iss": ISSUER, "sub": subject, "aud": audience, "iat": now(), "exp": now() + 60,
                             "jti": format!("t{number}") });
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some("one".to_owned());
        let key = EncodingKey::from_ec_der(self.key.serialized_der());
        jsonwebtoken::encode(&header, &changed(&claims, changes), &key).unwrap()
    }
}

async fn keys_of(State(served): State<Arc<Served>>) -> String {
    served.asked_for_keys.fetch_add(1, Ordering::Relaxed);
    served.keys.lock().unwrap().to_string()
}

/// RFC 6749 section 4.4, for client `south` alone.
async fn grant(State(served): State<Arc<Served>>, headers: HeaderMap, body: String) -> String {
    let encoded: String = form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
    let expected = format!("Basic {}", BASE64.encode(format!("south:{encoded}").as_bytes()));
    let wanted: BTreeMap<String, String> = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let good = headers.get("authorization").is_some_and(|sent| sent.as_bytes() == expected.as_bytes())
        && wanted.get("grant_type").is_some_and(|kind| kind == "client_credentials");
    if !good {
        return json!({ "error": "invalid_client" }).to_string();
    }
    served.granted.fetch_add(1, Ordering::Relaxed);
    let token = served.token("south", &wanted["audience"], &json!({}));
    // It ends at once for whoever asks: each call has a token of its own.
    json!({ "access_token": token, "token_type": "Bearer", "expires_in": 0 }).to_string()
}
