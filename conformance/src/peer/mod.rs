//! The suite's own half of the API: a complete, well-behaved peer that can be told, case by case, to behave less well.
//!
//! `listen` is the listener, `heard` what came, `stage` what is agreed and which case a request belongs to, `plot` one case's
//! part with what goes wrong in it, `world` and `features` and `channels` how a Responder answers, `keys` activation keys.

mod channels;
mod features;
mod heard;
mod keys;
mod listen;
mod plot;
mod stage;
mod world;

pub(crate) use channels::Channels;
pub(crate) use features::{OWN_ASN, breaks, strictly};
pub(crate) use heard::Heard;
pub(crate) use keys::{Pair, sealed};
pub(crate) use listen::Guise;
pub use listen::{Peer, PeerError};
pub(crate) use plot::{Act, Held, Key, Plot, State};
pub(crate) use stage::Statics;
