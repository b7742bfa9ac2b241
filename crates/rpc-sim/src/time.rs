//! Virtual time: whole microseconds since the world began, and how the machines see them.

use std::time::{Duration, Instant};

/// A moment or a span, in microseconds.
pub(crate) type Micros = u64;

/// A millisecond.
pub(crate) const MS: Micros = 1_000;
/// A second.
pub(crate) const SECOND: Micros = 1_000_000;

/// What turns virtual moments into the moments that the machines take.
///
/// Where it begins means nothing: no machine may look at more than differences, and the trace has
/// virtual time only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    epoch: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            epoch: Instant::now(),
        }
    }

    pub(crate) fn instant(self, at: Micros) -> Instant {
        self.epoch + Duration::from_micros(at)
    }

    /// Rounded up: whoever is woken then finds the moment passed.
    pub(crate) fn micros(self, instant: Instant) -> Micros {
        let nanos = instant.saturating_duration_since(self.epoch).as_nanos();
        Micros::try_from(nanos.div_ceil(1_000)).unwrap_or(Micros::MAX)
    }
}

pub(crate) fn span(duration: Duration) -> Micros {
    Micros::try_from(duration.as_nanos().div_ceil(1_000)).unwrap_or(Micros::MAX)
}
