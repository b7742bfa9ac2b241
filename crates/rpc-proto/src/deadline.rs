//! Deadlines that cannot overflow.

use std::time::{Duration, Instant};

/// The longest that anything here waits for: a day.
///
/// No call, handler or drain has a use for more, and it keeps the sum of a clock and whatever a
/// user asks for within what a clock can say.
pub const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// The moment `wait` after `now`, and at most a day after it.
#[must_use]
pub fn deadline_after(now: Instant, wait: Duration) -> Instant {
    now + wait.min(LONGEST_WAIT)
}
