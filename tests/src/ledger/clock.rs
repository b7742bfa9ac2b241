//! One clock for all processes of a run.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds of Unix time. Calls and executions are recorded in different processes of one
/// machine, which share this clock and no other.
pub type Micros = u64;

/// The time.
#[must_use]
pub fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    micros(since.unwrap_or_default())
}

pub(crate) fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
