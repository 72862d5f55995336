//! The two roles against each other, and the specification's recovery table.

mod model;
mod recovery;
mod rehearsal;
pub(super) mod world;
