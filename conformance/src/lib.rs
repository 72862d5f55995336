//! A suite that tests any implementation of the Connection Coordinator API, the open specification by which two networks
//! provision private links between each other.
//!
//! The suite plays a peer: it speaks the API over HTTP to the target and knows nothing of how that is built. Each
//! [`Case`] holds one rule of the specification, names it and its source, can be run alone, and shows what was sent and
//! received when the target breaks it. [`report`] writes the result for people (Markdown) and for programs (JUnit XML).
//!
//! This is the half for a target that is the *Responder*: the side that handed the activation key to the customer, and is
//! then called by the peer to whom the customer brought it. The suite is that peer.

mod cases;
mod peer;
mod propose;
pub mod report;
mod session;
mod suite;
mod wire;

pub use peer::{Peer, PeerError};
pub use session::{KeyError, KeySource, Means, Settings, Wanted};
pub use suite::{Case, Outcome, Progress, SetupError, Stop, Verdict, all_cases, run};
pub use wire::Exchange;
