//! The Connection Coordinator API: the open Interconnect specification (repository `aws/Interconnect`), as its words and
//! shapes stand there. It is a document of its own, never mixed with [`crate::v1`]: enums carry their prefix, fields may be
//! absent, and names are paths.
//!
//! Two revisions are spoken at once. The document follows the later one; whatever the published one allows is read too, so
//! a peer that knows only that is served.
//!
//! How what is not known is treated, and why:
//! - **Unknown fields** are left out, in requests as in answers. The specification forbids none (no schema says
//!   `additionalProperties: false`), one shape serves both directions, and a peer of a later revision must go on working.
//!   Who compares two requests, to recognise a repeated `requestId`, compares their bytes, so that what is left out here
//!   still tells them apart.
//! - **Unknown enum values** are kept as they came and written back so (`Other`). Reading them is no error, acting on them is
//!   a decision: a state that is not known is never the good one.
//! - **Absent fields** stay absent. Fields that the later revision requires and the published one does not are optional here
//!   and required in the document; who needs one asks for it and refuses by name. `null` counts as absent.
//! - **Numbers** are as wide as the specification has them. [`crate::units`] holds the narrower ranges; a value outside of
//!   them is read, and refused with its rule where it is used ([`L3BaseConfig::check`]), not as broken JSON.

mod activation_key;
mod channel;
mod connection;
mod document;
mod encoding;
mod environment;
mod feature;
mod guidance;
mod interconnect;
mod issue;
mod macsec_key;
mod names;
mod operation;
mod provider;
#[cfg(test)]
mod tests;
mod wire;

pub use activation_key::*;
pub use channel::*;
pub use connection::*;
pub use document::{BASE_PATH, document};
pub use encoding::{KeyTextError, MAX_KEY_BYTES, decode_key, encode_key};
pub use environment::*;
pub use feature::*;
pub use guidance::*;
pub use interconnect::*;
pub use issue::*;
pub use macsec_key::*;
pub use names::*;
pub use operation::*;
pub use provider::*;
pub use wire::{AdminState, Empty, Sensitive};

/// An instant, RFC 3339.
pub type Timestamp = jiff::Timestamp;
