//! Who is refused when there is more to do than can be done: whoever would be too late anyway.
//!
//! A queue that is long for a moment does no harm, and one that stays long does nothing but harm: all
//! requests wait, and in the end all are too late. So requests that have waited for over half their
//! time are refused once that has been so for a while, quickly enough for their callers to go
//! elsewhere, and the others find the queue short again.

use std::time::{Duration, Instant};

use super::Admission;
use crate::Pushback;
use crate::mutants::{Mutant, is};

/// For how long requests have been waiting for too long.
#[derive(Debug, Default)]
pub(super) struct Gate {
    standing_since: Option<Instant>,
}

impl Gate {
    /// A request has its turn after it has waited for so long. Returns when to come again, if it is
    /// to be refused.
    pub(super) fn check(
        &mut self,
        now: Instant,
        waited: Duration,
        timeout: Duration,
        admission: Admission,
    ) -> Option<Pushback> {
        let half = timeout / 2;
        if is(Mutant::NeverSheds) {
            return None;
        }
        if waited <= half && !(is(Mutant::ShedsForEver) && self.standing_since.is_some()) {
            self.standing_since = None;
            return None;
        }
        let since = *self.standing_since.get_or_insert(now);
        if now.saturating_duration_since(since) < admission.standing {
            return None;
        }
        Some(pushback(waited, half))
    }

    /// Whether a request that has waited for so long may have been refused before, by whoever had it
    /// then; and when to come again, if so.
    pub(super) fn may_have_refused(waited: Duration, timeout: Duration) -> Option<Pushback> {
        let half = timeout / 2;
        (waited + CLOCK_READING > half).then(|| pushback(waited, half))
    }
}

/// As long as the queue is too long by: then it may be as short as it should be.
fn pushback(waited: Duration, half: Duration) -> Pushback {
    let wait = waited.saturating_sub(half);
    Pushback::After(wait.clamp(SHORTEST_PUSHBACK, LONGEST_PUSHBACK))
}

/// By how much two workers may differ in how long a request has waited: times of day are read in
/// milliseconds.
const CLOCK_READING: Duration = Duration::from_millis(5);

const SHORTEST_PUSHBACK: Duration = Duration::from_millis(50);
const LONGEST_PUSHBACK: Duration = Duration::from_secs(1);

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a moment to begin at; it moves by hand"
)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);
    const LONG: Duration = Duration::from_millis(600);
    const SHORT: Duration = Duration::from_millis(400);

    #[test]
    fn only_a_wait_that_stays_long_is_overload() {
        let mut now = Instant::now();
        let mut gate = Gate::default();
        let mut refused = |waited, after| {
            now += Duration::from_millis(after);
            let pushback = gate.check(now, waited, TIMEOUT, Admission::default());
            pushback.is_some()
        };
        assert!(!refused(LONG, 0));
        assert!(!refused(LONG, 99));
        assert!(refused(LONG, 1));
        assert!(refused(LONG, 1));
        // One that waited less breaks the spell.
        assert!(!refused(SHORT, 1));
        assert!(!refused(LONG, 1));
        assert!(!refused(LONG, 99));
        assert!(refused(LONG, 1));
    }

    #[test]
    fn those_refused_come_again_when_the_queue_may_be_shorter() {
        let now = Instant::now();
        let mut gate = Gate::default();
        let mut check = |now, waited| gate.check(now, waited, TIMEOUT, Admission::default());
        assert_eq!(check(now, LONG), None);
        let later = now + Duration::from_millis(100);
        let after = |millis| Some(Pushback::After(Duration::from_millis(millis)));
        assert_eq!(check(later, LONG), after(100));
        assert_eq!(check(later, Duration::from_millis(501)), after(50));
        assert_eq!(check(later, Duration::from_secs(30)), after(1000));
    }
}
