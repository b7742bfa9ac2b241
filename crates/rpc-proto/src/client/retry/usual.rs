//! How long an attempt usually takes that is answered: one that is begun too late for that only ends
//! in an error that says less than the one before.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A running estimate of the median, in one word, for all calls of a client: each answer moves it by
/// about a ninth towards itself, so that it comes to rest where half of them take longer. Zero until
/// there is one.
#[derive(Debug, Default)]
pub(super) struct Usual(AtomicU32);

impl Usual {
    /// An attempt that took this long was answered.
    pub(super) fn observe(&self, took: Duration) {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        // Two answers at once may count as one: it is an estimate.
        let known = self.0.load(Ordering::Relaxed);
        // The steps are as long in either direction: 9/8, and 8/9.
        let next = match known {
            0 => took,
            _ if took > known => known.saturating_add((known / 8).max(1)).min(took),
            _ => known.saturating_sub((known / 9).max(1)).max(took),
        };
        if next != known {
            self.0.store(next, Ordering::Relaxed);
        }
    }

    /// The estimate; zero when nothing is known.
    pub(super) fn now(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_answer_is_all_that_is_known() {
        let usual = Usual::default();
        assert_eq!(usual.now(), Duration::ZERO);
        usual.observe(700 * MS);
        assert_eq!(usual.now(), 700 * MS);
        usual.observe(700 * MS);
        assert_eq!(usual.now(), 700 * MS);
    }

    #[test]
    fn it_comes_to_where_half_take_longer_and_outliers_do_not_move_it_far() {
        let usual = Usual::default();
        usual.observe(Duration::MAX);
        for round in 0..10_000_u32 {
            // 1 to 99 ms in a fixed order that jumps about; each tenth takes a minute.
            let took = if round % 10 == 0 {
                60_000
            } else {
                1 + round * 37 % 99
            };
            usual.observe(took * MS);
        }
        let median = usual.now();
        assert!((40 * MS..75 * MS).contains(&median), "{median:?}");
    }

    #[test]
    fn it_follows_a_service_that_becomes_slow_or_quick() {
        let usual = Usual::default();
        usual.observe(MS);
        for expected in [100 * MS, MS] {
            for _ in 0..60 {
                usual.observe(expected);
            }
            assert_eq!(usual.now(), expected);
        }
    }
}
