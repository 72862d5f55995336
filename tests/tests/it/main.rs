//! Whole-system tests.

mod arrows;
