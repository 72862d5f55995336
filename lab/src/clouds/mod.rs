//! Simulators of cloud APIs: real HTTP servers that speak the clouds' own wire protocols with the clouds' own state machines.
//!
//! [`aws::serve`] is AWS Direct Connect (awsJson1.1), [`google::serve`] is the part of Google Compute Engine's REST API that
//! deals with interconnects and Cloud Routers. Any client of the vendors works with them by its endpoint setting.
//!
//! What a simulator is told becomes [`network::Session`]s, which a [`network::Network`] runs on real routers; what its
//! answers say about BGP, BFD and light is read back through the same trait, and never computed here.
//!
//! Beside the cloud's API every simulator serves `/_lab/...` to whoever knows the admin token ([`ADMIN_HEADER`]):
//!
//! | request | meaning |
//! | --- | --- |
//! | `GET /_lab/dump` | the state as canonical JSON, as [`Running::dump`] |
//! | `GET /_lab/calls` | the journal: a list of [`JournalEntry`] |
//! | `POST /_lab/corrupt` | a [`Corruption`]: sets any field of any resource |
//! | `GET, POST, DELETE /_lab/faults`, `DELETE /_lab/faults/{id}` | [`Fault`]s |
//! | `POST /_lab/late` | requests that [`Effect::Double`] has held back arrive; answers their HTTP statuses |
//! | `GET, PUT /_lab/lag` | [`Lag`]: how late lists and reads are |

pub mod aws;
pub mod clock;
pub mod google;
pub mod network;
pub mod settings;
pub mod world;

mod document;
mod draw;
mod faults;
mod page;
mod server;
mod sim;

pub use clock::{Clock, ManualClock, SystemClock};
pub use faults::{Effect, Fault};
pub use server::{ADMIN_HEADER, ServeError};
pub use settings::{CloudSettings, Delays};
pub use sim::{CorruptError, Corruption, JournalEntry, Lag, Running};
