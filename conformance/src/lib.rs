//! A suite that tests any implementation of the Connection Coordinator API, the open specification by which two networks
//! provision private links between each other.
//!
//! The suite plays a peer: it speaks the API over HTTP to the target and knows nothing of how that is built. Each
//! [`Case`] holds one rule of the specification, names it and its source, can be run alone, and shows what was sent and
//! received when the target breaks it. [`report`] writes the result for people (Markdown) and for programs (JUnit XML).
//!
//! The suite tests a target in either role. The *Responder* handed the activation key to the customer, and is called by the
//! peer to whom the customer brought it: the suite is that peer, and calls. The *Negotiator* is the one to whom the customer
//! brought a key: the suite issued it, listens as [`Peer`], and behaves as well or as badly as the case wants.

mod cases;
mod customer;
mod macsec;
mod peer;
mod play;
mod propose;
pub mod report;
mod session;
mod suite;
mod wire;

pub use customer::{Brought, Customer, KeyError, KeySource, Wanted, Wish, WishError, WorkPlace};
pub use peer::{Peer, PeerError};
pub use session::{Credential, HttpSource, Means, Settings};
pub use suite::{Case, Outcome, Progress, Role, SetupError, Stop, Verdict, all_cases, run};
pub use wire::{Asker, Exchange};
