//! One module a cloud, each in two halves.
//!
//! The pure half ([`Rules`]) says what a cloud allows, which resources a channel's side needs, how each is identified, and
//! how a wanted and an observed resource differ. The IO half ([`CloudApi`]) does exactly one mutating wire request a call
//! and maps the cloud's errors to one closed list. Neither knows a database, a retry policy or a clock.

#![allow(
    clippy::result_large_err,
    reason = "an error comes with a wire request of milliseconds; its size is of no matter and a box a nuisance to match on"
)]

pub mod api;
pub mod constraints;
pub mod costs;
pub mod credential;
pub mod error;
pub mod feature;
pub mod resource;
pub mod rules;

#[cfg(any(feature = "aws", feature = "google"))]
mod call;
#[cfg(test)]
#[cfg(any(feature = "aws", feature = "google"))]
#[cfg_attr(not(all(feature = "aws", feature = "google")), allow(dead_code, reason = "made for both clouds"))]
mod testing;

#[cfg(feature = "aws")]
pub mod aws;
#[cfg(feature = "fake")]
pub mod fake;
#[cfg(feature = "google")]
pub mod google;
#[cfg(feature = "network")]
pub mod network;

pub use api::{Accepted, CloudApi, ListPage, ListScope, Secrets, Target};
pub use constraints::{Constraints, PrefixControl, Rule, Sourced};
pub use costs::{BilledBy, CostDriver};
pub use credential::{ConnectError, CredentialRef};
pub use error::{CallError, CallErrorKind, Outcome};
pub use feature::{Addressing, FeatureSide, Ipv4Pair};
pub use resource::{
    Change, IdentityKind, Learned, Lookup, Observed, Occupied, OwnerTag, Presence, ResourceKey, ResourceKind,
    ResourceSpec,
};
pub use rules::{Agreed, FieldFacts, Rules};
