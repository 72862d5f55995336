//! The cell: what is inside, what is left when it ends, and two at once.
