//! The two roles against each other, and the specification's recovery table.

mod kept;
mod model;
mod recovery;
mod rehearsal;
pub(crate) mod world;

pub(crate) use self::{kept::Kept, model::run as connections};
pub(crate) use super::channels::tests::model::short as channels;
