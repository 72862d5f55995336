//! The protocol of the open Interconnect specification, both roles, as pure functions: no IO, no clock, no randomness.
//!
//! A pairing of two providers is a [`Book`]: what is agreed ([`Terms`]) and what is stored ([`Row`]s, activation keys,
//! tombstones, answers given). Everything that happens is one of four kinds, and each answers with [`Change`]s that are
//! to be stored in one transaction, before anything is sent and before any answer is given:
//!
//! - [`Book::serve`]: the peer asks. The answer, and the changes.
//! - [`Book::step`]: time has come to a connection. At most one [`Ask`] for the peer, and when to come back.
//! - [`Book::absorb`]: the peer has answered an ask, or has not. Whatever that changed, a step is due at once.
//! - the customer's and the operator's wishes, and what the routers say: [`Book::issue_key`], [`Book::accept_key`],
//!   [`Book::resize`], [`Book::migrate`], [`Book::leave`], [`Book::observe`].
//!
//! It is level-triggered: a lost answer is no case of its own, since the next step sees what is not known and asks again,
//! by the same request id, until there is a definite answer. A proposal is stored before it is sent and changed only
//! after it was refused; the peer keeps its answers by request id. So a copy that comes late, doubled or out of order
//! finds its own answer and changes nothing. [`Row::version`] is the fence: a change that was made from a row that has
//! moved on is refused by [`Book::apply`], so of two workers one acts.
//!
//! What the routers are to do is told by [`Book::wanted`], as a state and not as commands. MACsec keys and maintenance are a
//! channel's own: `channels` has the same four for them.

mod absorb;
mod channels;
mod choose;
mod holds;
mod intent;
mod rehearse;
mod serve;
mod standing;
mod state;
mod step;
#[cfg(test)]
pub(crate) mod tests;
pub mod wire;
mod wishes;

pub use channels::*;
pub use choose::{ChannelGuidance, SubnetChoice};
pub use holds::Hold;
pub use intent::{Room, check as check_intent};
pub use rehearse::{Planned, Rehearsal, Work};
pub use serve::{Refusal, Reply, Request, SeenFeature, Served};
pub use standing::{Placed, Standing};
pub use state::*;
pub use step::{Ask, Step, Wanted};
pub use wishes::WishError;
