//! The cases: a folder a role of the target, a file an area.

mod negotiator;
mod responder;

use crate::suite::Case;

/// All of them, in the order in which they run: what everything stands on first.
pub(crate) fn all() -> impl Iterator<Item = Case> {
    responder::ALL.iter().chain(negotiator::ALL).flat_map(|cases| cases.iter().copied())
}
