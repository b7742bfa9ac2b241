//! The time of day, which deadlines are compared by between machines.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds of Unix time; none before 1970, which nobody believes.
pub(crate) fn unix_ms() -> Option<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}
