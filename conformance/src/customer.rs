//! The customer, whom the suite cannot play by itself: each provider has its own console.

use futures::future::BoxFuture;
use tieline_openapi::coordinator::Sensitive;
use uuid::Uuid;

/// The connection that a customer orders at the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// In which environment: `providers/{provider}/environments/{environment}`, the suite's provider.
    pub environment: String,
    /// In Mbit/s.
    pub bandwidth_mbps: i32,
}

/// Why no activation key was to be had.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(pub String);

/// Orders a connection at the target's customer side and gives back the activation key, as the customer gets it.
pub trait KeySource: Send + Sync {
    /// A new key.
    fn issue(&self, wanted: Wanted) -> BoxFuture<'_, Result<Sensitive, KeyError>>;
}

/// A channel of the target's, whose operator is to work on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkPlace {
    /// The environment's id.
    pub environment: String,
    /// The interconnect's id.
    pub interconnect: String,
    /// The channel's id.
    pub channel: String,
}

/// What a customer wants of the target, or its operator.
#[derive(Debug, Clone)]
pub enum Wish {
    /// Brings an activation key that the suite issued.
    Bring(Brought),
    /// Another bandwidth for a connection.
    Update {
        /// Which.
        connection: Uuid,
        /// In Mbit/s.
        bandwidth_mbps: i32,
    },
    /// The connection on another interconnect.
    Migrate {
        /// Which.
        connection: Uuid,
    },
    /// Work on a channel, from now on and for some minutes.
    Maintain {
        /// Where.
        at: WorkPlace,
        /// Whether it waits for nobody.
        emergency: bool,
    },
    /// The work on a channel is over.
    Restore {
        /// Where.
        at: WorkPlace,
    },
    /// No connection any more.
    Delete {
        /// Which.
        connection: Uuid,
    },
}

/// A key that is brought.
#[derive(Debug, Clone)]
pub struct Brought {
    /// Its text.
    pub key: Sensitive,
    /// The environment's id.
    pub environment: String,
    /// In Mbit/s.
    pub bandwidth_mbps: i32,
    /// The UUID that both providers know the connection by.
    pub connection: Uuid,
}

/// Why a wish was not met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// The target refused, or could not be asked.
    #[error("{0}")]
    Refused(String),
    /// There is no way to ask the target for this.
    #[error("{0}")]
    Unsupported(String),
}

/// The target's customer.
pub trait Customer: Send + Sync {
    /// Tells the target a wish. It is not waited until the wish is met.
    fn wish(&self, wish: Wish) -> BoxFuture<'_, Result<(), WishError>>;
}
