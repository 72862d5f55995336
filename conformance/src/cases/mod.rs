//! The cases, one file an area.

mod bounds;
mod channels;
mod features;
mod intent;
mod issues;
mod keys;
mod lifecycle;
mod pages;
mod statics;

use crate::suite::Case;

/// All of them, in the order in which they run: what everything stands on first.
pub(crate) const ALL: &[&[Case]] = &[
    statics::CASES,
    pages::CASES,
    bounds::CASES,
    keys::CASES,
    intent::CASES,
    features::CASES,
    lifecycle::CASES,
    channels::CASES,
    issues::CASES,
];
