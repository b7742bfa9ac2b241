//! Random numbers from a seed, to keep waits of many processes apart. Never for secrets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::mutants::{Mutant, is};

/// SplitMix64: a few instructions, any seed is as good as another.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        if is(Mutant::JitterOfTheMoment) {
            self.0 ^= MOMENTS.fetch_add(1, Ordering::Relaxed);
        }
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between `low` and `high`, both included; `low` when they are the wrong way round.
    pub(crate) fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = high.saturating_sub(low).as_nanos();
        let random = u128::from(self.next());
        // Spans are below a day, which is 2^47 ns: the product fits, and the bias does not matter.
        let part = (random * (span + 1)) >> 64;
        low + Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX))
    }

    /// A number below `bound`, 0 for a bound of 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.next()) * bound as u128;
        usize::try_from(wide >> 64).unwrap_or(0)
    }
}

/// What no seed decides.
static MOMENTS: AtomicU64 = AtomicU64::new(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_in_their_range_and_reach_both_ends() {
        let mut jitter = Jitter::new(7);
        let (low, high) = (Duration::from_nanos(3), Duration::from_nanos(5));
        let draws: Vec<_> = (0..100).map(|_| jitter.between(low, high)).collect();
        assert!(draws.iter().all(|draw| (low..=high).contains(draw)));
        assert!(draws.contains(&low) && draws.contains(&high));
        assert_eq!(jitter.between(high, low), high);
        assert!((0..100).all(|_| jitter.below(3) < 3));
        assert_eq!(jitter.below(0), 0);
    }
}
