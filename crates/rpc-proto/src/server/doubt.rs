//! Whether it can be our own clock that is wrong.
//!
//! By the caller's clock a request may be overdue when it comes, although the broker would not have
//! delivered it after its expiration. Either it was held up on its way to us, while this process was
//! stopped, say; or the two clocks differ. The first ends with what was held up. The second does not
//! end: a worker whose clock is ahead by more than its callers' timeouts would refuse all they send.
//! So a clock by which everything has been overdue for a while is not believed, until something comes
//! that is in time by it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::mutants::{Mutant, is};

/// For how long everything has to be overdue: far longer than it takes to work off what was held up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Since when every request has been overdue when it came, by the clocks of their callers.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    since: Mutex<Option<Instant>>,
    /// Whether there is a moment in `since`: as a rule there is none, and that costs no lock.
    any: AtomicBool,
}

impl Doubt {
    /// A request has come that was in time.
    pub(super) fn in_time(&self) {
        // Late by a moment, it does no harm.
        if self.any.load(Ordering::Relaxed) && !is(Mutant::DoubtIsNeverOver) {
            self.any.store(false, Ordering::Relaxed);
            *self.since() = None;
        }
    }

    /// A request has come that was overdue. Tells whether the clocks are to blame.
    pub(super) fn overdue(&self, now: Instant) -> bool {
        let since = *self.since().get_or_insert(now);
        self.any.store(true, Ordering::Relaxed);
        now.saturating_duration_since(since) >= PATIENCE && !is(Mutant::ClockIsNeverDoubted)
    }

    fn since(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
