//! The target is the Responder: the suite calls it.

mod bounds;
mod channels;
mod features;
mod intent;
mod issues;
mod keys;
mod lifecycle;
mod macsec;
mod pages;
mod races;
mod recovery;
mod statics;
mod transport;

use crate::suite::Case;

pub(super) const ALL: &[&[Case]] = &[
    transport::CASES,
    statics::CASES,
    pages::CASES,
    bounds::CASES,
    keys::CASES,
    intent::CASES,
    features::CASES,
    lifecycle::CASES,
    races::CASES,
    recovery::CASES,
    channels::CASES,
    macsec::CASES,
    issues::CASES,
];
