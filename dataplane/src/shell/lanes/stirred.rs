//! Which lanes the timers have to look at. With a thousand idle lanes a look at each in every tick is mostly a wait for memory
//! that no cache holds by then; these bits stay there.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::proto::tunnel::HALF;

const WORD: usize = u64::BITS as usize;

/// A bit for each index that a process gives out: it has that half of them which another process, whose place it takes, has not.
#[derive(Debug)]
pub(crate) struct Stirred(Box<[AtomicU64]>);

impl Stirred {
    pub(super) fn new() -> Self {
        Self((0..HALF as usize / WORD).map(|_| AtomicU64::new(0)).collect())
    }

    fn place(&self, index: u32) -> (&AtomicU64, u64) {
        let bit = (index % HALF) as usize;
        (&self.0[bit / WORD], 1 << (bit % WORD))
    }

    /// Has the next tick look at this lane. Lanes that are used all the time share the word, so it is written only when it
    /// has to be.
    pub(super) fn stir(&self, index: u32) {
        let (word, bit) = self.place(index);
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Whether this lane was stirred since the last call.
    pub(super) fn take(&self, index: u32) -> bool {
        let (word, bit) = self.place(index);
        word.load(Ordering::Relaxed) & bit != 0 && word.fetch_and(!bit, Ordering::Relaxed) & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lane_is_told_apart_and_taken_once() {
        for base in [0, HALF] {
            let stirred = Stirred::new();
            for index in [base + 1, base + 64, base + HALF - 1] {
                stirred.stir(index);
                stirred.stir(index);
            }
            let taken = |stirred: &Stirred| (base..base + HALF).filter(|n| stirred.take(*n)).collect::<Vec<_>>();
            assert_eq!(taken(&stirred), [base + 1, base + 64, base + HALF - 1]);
            assert!(taken(&stirred).is_empty());
        }
    }
}
