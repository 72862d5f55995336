//! Where a schedule's books are kept beside the world's own memory.

use super::super::{Book, Change};

/// A store that is told what the two providers decide, and shows that it keeps it.
pub(crate) trait Kept {
    /// Side 0 or 1 decided this, and the book is so afterwards.
    fn stored(&mut self, side: usize, changes: &[Change], book: &Book);

    /// A second worker decided this from what the last change has replaced.
    fn outrun(&mut self, side: usize, changes: &[Change]);
}

/// The world's own memory is enough.
impl Kept for () {
    fn stored(&mut self, _: usize, _: &[Change], _: &Book) {}

    fn outrun(&mut self, _: usize, _: &[Change]) {}
}
