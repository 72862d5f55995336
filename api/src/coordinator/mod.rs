//! Both roles of the open specification, over the store: a peer's book is read, the protocol says what follows, and that is
//! written in one transaction before anything is sent and before any answer is given.
//!
//! `keeper` reads and writes books, `answers` serves the peer, `drive` steps connections that are due and calls the peer
//! through `call`, `channels` does the same for channels, whose keys `devices` hold, `routers` brings what is agreed to our
//! routers and tells what they say, `keys` holds the key pairs that activation keys are encrypted to, `wishes` is what
//! customers ask for, and `reflect` tells them what becomes of it. `identity` tells peers by their tokens, and `proof` wants
//! to see for which account a connection is changed.

mod answers;
mod call;
mod channels;
pub mod check;
mod devices;
mod drive;
mod foresight;
mod identity;
mod keeper;
mod keys;
pub mod proof;
mod reflect;
mod routers;
mod shown;
mod terms;
mod told;
mod wishes;

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc, time::Duration};

use tieline_openapi::{
    client::coordinator::{Coordinator, CoordinatorError, PeerAddress},
    config::{ChannelRouterConfig, CoordinatorConfig, PeerConfig},
    coordinator::ResourceId,
};
use tieline_providers::network::DeviceError;
use tokio::sync::Mutex;

use self::identity::Security;
use crate::{
    app::Vault,
    engine::clock::{ChaChaRandom, Clock, Random, SystemClock},
    events::Hints,
    plan::coordinate::{Place, RotationError, Terms, WindowError, WishError, wire::WireError},
    secrets::{ActivationKeyError, SecretError},
    store::{Books, Store, StoreError},
};

pub use answers::{Answered, Call, features_of};
pub use channels::SharedChannel;
pub use devices::{KeyDevice, RouterKeys};
pub use foresight::Foreseen;
pub use identity::{CredentialError, EndpointError, IdentityError, KeysError, SignError, TokenError};
pub use routers::Router;
pub use shown::{Catalogue, cut};
pub use wishes::{Asked, Decoded, Order, Writes};

/// Why something about a peer could not be done.
#[derive(Debug, thiserror::Error)]
pub enum CoordinationError {
    /// A file of `[coordinator]` cannot be read.
    #[error("cannot read {path}: check that it exists and who may read it")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of `[coordinator]` does not hold what it should.
    #[error("{path} holds no {what}")]
    Pem {
        /// The file.
        path: String,
        /// What it should hold.
        what: &'static str,
        /// Why.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The listener's TLS cannot be set up.
    #[error("cannot set up TLS for peers: check the certificates of [coordinator]")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A client of a peer cannot be made, or a call to it failed.
    #[error(transparent)]
    Peer(#[from] CoordinatorError),
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A secret could not be sealed or opened.
    #[error("a secret of a peer's book cannot be sealed or opened")]
    Secret(#[from] SecretError),
    /// What is stored beside a sealed secret cannot be read.
    #[error("the passwords of a peer's connection cannot be read")]
    Passwords(#[from] serde_json::Error),
    /// An activation key could not be made or opened.
    #[error(transparent)]
    Key(#[from] ActivationKeyError),
    /// What comes is not what the specification says.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The wish cannot be met.
    #[error(transparent)]
    Wish(#[from] WishError),
    /// No such channel.
    #[error("there is no channel `{0}` with this peer: see [coordinator] of tieline.toml")]
    NoChannel(String),
    /// A MACsec key is not changed.
    #[error(transparent)]
    Rotation(#[from] RotationError),
    /// There is no such work.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// The text is no activation key.
    #[error(transparent)]
    KeyText(#[from] tieline_openapi::coordinator::KeyTextError),
    /// What the key says cannot be.
    #[error("the activation key cannot be used")]
    KeyContents(#[from] tieline_openapi::coordinator::KeyContentsError),
    /// The key is for another environment or another provider.
    #[error("the activation key is not for an environment of this provider: bring it where it is meant for")]
    KeyElsewhere,
    /// The key is for another account.
    #[error("the activation key was made for another account: ask for one for this project")]
    KeyOfAnother,
    /// An answer could not be written as JSON.
    #[error("an answer cannot be written as JSON")]
    Answer(#[source] serde_json::Error),
    /// Nobody is paired under this id.
    #[error("there is no peer `{0}`: see [coordinator] of tieline.toml")]
    NoPeer(String),
    /// The account that a call is made for is not proved.
    #[error(transparent)]
    Proof(#[from] proof::ProofError),
    /// Others were faster too often.
    #[error("the peer's book kept changing: try again")]
    Contended,
    /// One of our routers did not do what it was asked.
    #[error(transparent)]
    Router(#[from] DeviceError),
    /// A thread of the machine's was lost.
    #[error("a computation did not end")]
    Lost(#[source] tokio::task::JoinError),
}

/// A peer, as it is configured.
pub struct Peer {
    /// Its provider id.
    pub id: ResourceId,
    /// Its section of `tieline.toml`.
    pub config: PeerConfig,
    terms: Terms,
    client: Coordinator,
    security: Security,
    /// Held while a change of the book is made, so that changes of one process do not refuse each other.
    lock: Mutex<()>,
    /// The book as it was last read or written.
    remembered: keeper::Remembered,
}

impl Peer {
    /// What is agreed with it.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Where one of our channels is on our routers.
    fn router(&self, place: &Place, channel: &ResourceId) -> Option<&ChannelRouterConfig> {
        let environment = self.config.environments.iter().find(|e| e.id == place.environment)?;
        let interconnect = environment.interconnects.iter().find(|i| i.id == place.interconnect)?;
        interconnect.channels.iter().find(|c| c.id == *channel)?.router.as_ref()
    }

    /// The client that calls it.
    #[must_use]
    pub const fn client(&self) -> &Coordinator {
        &self.client
    }
}

/// What the coordinator is made of.
pub struct CoordinationParts {
    /// Books.
    pub books: Arc<dyn Books>,
    /// Leases.
    pub store: Arc<dyn Store>,
    /// Secrets at rest.
    pub vault: Vault,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Our own routers.
    pub routers: Vec<Router>,
    /// What commits wake the driver with.
    pub hints: Hints,
    /// What holds the MACsec keys of channels.
    pub macsec: Arc<dyn KeyDevice>,
    /// This replica's name in leases.
    pub owner: String,
}

/// Every pairing of this installation.
pub struct Coordination {
    config: CoordinatorConfig,
    peers: BTreeMap<ResourceId, Arc<Peer>>,
    parts: CoordinationParts,
    /// Channels whose device does not say how their keys are.
    silent: channels::Silent,
}

impl fmt::Debug for Coordination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordination").field("provider", &self.config.provider).finish_non_exhaustive()
    }
}

impl Coordination {
    /// Reads the certificates of a checked configuration and makes a client of each peer. Nothing is called yet.
    ///
    /// # Errors
    /// [`CoordinationError::File`], [`CoordinationError::Pem`] and [`CoordinationError::Peer`].
    pub fn new(config: CoordinatorConfig, parts: CoordinationParts) -> Result<Arc<Self>, CoordinationError> {
        let peers = config
            .peers
            .iter()
            .map(|peer| {
                let made = Peer {
                    id: peer.provider.clone(),
                    terms: terms::of(&config, peer),
                    client: client_by(&config, peer, &parts.clock, &parts.random)?,
                    security: Security::of(peer)?,
                    config: peer.clone(),
                    lock: Mutex::new(()),
                    remembered: keeper::Remembered::default(),
                };
                Ok((peer.provider.clone(), Arc::new(made)))
            })
            .collect::<Result<_, CoordinationError>>()?;
        Ok(Arc::new(Self { config, peers, parts, silent: channels::Silent::default() }))
    }

    /// Our section of `tieline.toml`.
    #[must_use]
    pub const fn config(&self) -> &CoordinatorConfig {
        &self.config
    }

    /// Our provider id.
    #[must_use]
    pub const fn us(&self) -> &ResourceId {
        &self.config.provider
    }

    /// Everybody that we are paired with.
    pub fn peers(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.peers.values()
    }

    /// One peer.
    #[must_use]
    pub fn peer(&self, id: &ResourceId) -> Option<&Arc<Peer>> {
        self.peers.get(id)
    }

    /// Time.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.parts.clock
    }

    /// Randomness.
    #[must_use]
    pub fn random(&self) -> &Arc<dyn Random> {
        &self.parts.random
    }

    /// Secrets at rest, which page tokens are sealed by too.
    #[must_use]
    pub const fn vault(&self) -> &Vault {
        &self.parts.vault
    }

    /// The store of issues and of the audit log.
    #[must_use]
    pub fn books(&self) -> &dyn Books {
        &*self.parts.books
    }

    fn provider(&self, id: &str) -> Result<&Arc<Peer>, CoordinationError> {
        let none = || CoordinationError::NoPeer(id.chars().take(80).collect());
        id.parse().ok().and_then(|id| self.peers.get(&id)).ok_or_else(none)
    }
}

/// Reads a file of `[coordinator]`.
///
/// # Errors
/// [`CoordinationError::File`].
pub fn read(path: &str) -> Result<Vec<u8>, CoordinationError> {
    std::fs::read(Path::new(path)).map_err(|source| CoordinationError::File { path: path.to_owned(), source })
}

/// The client of a peer: our certificate and the peer's credential say who calls, and only the peer's own authorities are
/// trusted. It goes by the machine's clock.
///
/// # Errors
/// [`CoordinationError::File`], [`CoordinationError::Pem`] and [`CoordinationError::Peer`].
pub fn client(config: &CoordinatorConfig, peer: &PeerConfig) -> Result<Coordinator, CoordinationError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let random: Arc<dyn Random> = Arc::new(ChaChaRandom::from_system());
    client_by(config, peer, &clock, &random)
}

fn client_by(
    config: &CoordinatorConfig,
    peer: &PeerConfig,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
) -> Result<Coordinator, CoordinationError> {
    let broken = |path: &str, what| {
        let path = path.to_owned();
        move |source: reqwest::Error| CoordinationError::Pem { path, what, source: Some(Box::new(source)) }
    };
    let mut identity = read(&config.certificate_file)?;
    identity.push(b'\n');
    identity.extend(read(&config.key_file)?);
    let identity = reqwest::Identity::from_pem(&identity)
        .map_err(broken(&config.certificate_file, "certificate chain, or its key file no key of it"))?;
    let trusted =
        reqwest::Certificate::from_pem_bundle(&read(&peer.ca_file)?).map_err(broken(&peer.ca_file, "certificate"))?;
    if trusted.is_empty() {
        return Err(CoordinationError::Pem { path: peer.ca_file.clone(), what: "certificate", source: None });
    }
    let address = PeerAddress {
        base_url: peer.endpoint.clone(),
        cleartext: false,
        timeout: Duration::from_millis(config.call_timeout_ms),
    };
    let builder = reqwest::Client::builder().identity(identity).tls_certs_only(trusted);
    Ok(Coordinator::new(&address, builder, identity::authorizer(peer, clock, random)?)?)
}
