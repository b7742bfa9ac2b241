//! Counts and times the answers that come within the window that is measured.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use hdrhistogram::Histogram;

/// Where a run is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// Not every client has had an answer yet.
    Opening,
    /// Calls are made, and not counted.
    WarmingUp,
    Measuring,
    /// No further call is made.
    Stopping,
}

/// What all callers of a run share.
#[derive(Debug)]
pub(crate) struct Meter {
    stage: AtomicU8,
    /// Of each client, whether it has had an answer.
    open: Box<[AtomicBool]>,
    /// How many clients have had none.
    opening: AtomicUsize,
    /// Several, so that threads seldom meet at one.
    shards: Box<[Mutex<Histogram<u32>>]>,
}

impl Meter {
    /// For so many clients.
    pub(crate) fn new(clients: usize) -> Arc<Self> {
        Arc::new(Self {
            stage: AtomicU8::new(Stage::Opening as u8),
            open: (0..clients).map(|_| AtomicBool::new(false)).collect(),
            opening: AtomicUsize::new(clients),
            shards: (0..SHARDS).map(|_| Mutex::new(empty())).collect(),
        })
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            opening if opening == Stage::Opening as u8 => Stage::Opening,
            warming if warming == Stage::WarmingUp as u8 => Stage::WarmingUp,
            measuring if measuring == Stage::Measuring as u8 => Stage::Measuring,
            _ => Stage::Stopping,
        }
    }

    pub(crate) fn set(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// For the client of this number.
    pub(crate) fn tally(self: &Arc<Self>, client: usize) -> Tally {
        Tally {
            meter: Arc::clone(self),
            client,
        }
    }

    /// Notes that a client has had an answer.
    fn opened(&self, client: usize) {
        let known = self.open[client].swap(true, Ordering::Relaxed);
        if !known && self.opening.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.set(Stage::WarmingUp);
        }
    }

    /// The latencies of all calls that were counted, in nanoseconds; they are forgotten here.
    pub(crate) fn take(&self) -> Histogram<u32> {
        let mut all = empty();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            // They have the same bounds, or it could fail.
            let _ = all.add(&*shard);
            shard.reset();
        }
        all
    }
}

/// What one client counts with.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    meter: Arc<Meter>,
    client: usize,
}

impl Tally {
    /// Whether a further call is to be made.
    pub(crate) fn goes_on(&self) -> bool {
        self.meter.stage() != Stage::Stopping
    }

    /// Counts a call that began at `since` and was answered now.
    pub(crate) fn answered(&self, since: Instant) {
        self.answered_together(since, 1);
    }

    /// Counts so many calls, one after the other, the first of which began at `since`.
    pub(crate) fn answered_together(&self, since: Instant, count: u32) {
        match self.meter.stage() {
            Stage::Opening => self.meter.opened(self.client),
            Stage::Measuring => {
                let each = since.elapsed() / count;
                let latency = u64::try_from(each.as_nanos()).unwrap_or(LONGEST);
                let shard = &self.meter.shards[self.client % SHARDS];
                let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                shard.saturating_record_n(latency, count);
            }
            Stage::WarmingUp | Stage::Stopping => {}
        }
    }
}

fn empty() -> Histogram<u32> {
    // Cannot fail with these bounds.
    Histogram::new_with_bounds(1, LONGEST, 3).unwrap_or_else(|error| unreachable!("{error}"))
}

const SHARDS: usize = 8;

/// Two minutes, in nanoseconds.
const LONGEST: u64 = 120_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_of_the_window_are_counted() {
        let meter = Meter::new(2);
        let tally = meter.tally(1);
        let now = Instant::now();
        tally.answered(now);
        tally.answered(now);
        assert_eq!(meter.stage(), Stage::Opening, "the other has had none");
        meter.tally(0).answered(now);
        assert_eq!(meter.stage(), Stage::WarmingUp);
        tally.answered(now);
        meter.set(Stage::Measuring);
        tally.answered(now);
        meter.tally(0).answered(now);
        meter.set(Stage::Stopping);
        tally.answered(now);
        assert!(!tally.goes_on());
        assert_eq!(meter.take().len(), 2);
        assert_eq!(meter.take().len(), 0);
    }
}
