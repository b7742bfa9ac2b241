//! How many requests were taken and are not settled yet, for the report of a drain.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Requests taken and not yet settled.
#[derive(Debug, Default)]
pub(crate) struct AtWork(AtomicUsize);

impl AtWork {
    pub(crate) fn begin(&self) {
        // A number for people: no other memory hangs on it.
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
