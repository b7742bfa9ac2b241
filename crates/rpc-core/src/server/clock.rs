//! The time of day, for comparing a caller's deadline with.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds of Unix time.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock before 1970 is believed by nobody.
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}
