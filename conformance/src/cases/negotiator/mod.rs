//! The target is the Negotiator: the suite issues the keys, listens, and sees what the target asks.

mod calling;
mod changing;
mod confirming;
mod creating;
mod deferring;
mod hearing;
mod leaving;
mod maintaining;
mod moving;
mod proposing;
mod reading;
mod retrying;
mod rotating;
mod settling;

use std::time::Duration;

use crate::suite::Case;

/// Between two looks at the target.
const LOOK: Duration = Duration::from_millis(200);

pub(super) const ALL: &[&[Case]] = &[
    calling::CASES,
    confirming::CASES,
    creating::CASES,
    proposing::CASES,
    retrying::CASES,
    settling::CASES,
    hearing::CASES,
    reading::CASES,
    changing::CASES,
    moving::CASES,
    deferring::CASES,
    leaving::CASES,
    rotating::CASES,
    maintaining::CASES,
];
