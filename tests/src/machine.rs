//! How busy the machine is: how late a thread is woken that wanted to sleep for a millisecond.
//!
//! What is measured in milliseconds beside other people's builds says as much about these as about us.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Measures until it is asked, or dropped.
#[derive(Debug)]
pub struct Delay {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    over: AtomicBool,
    longest_us: AtomicU64,
}

impl Delay {
    /// Begins to measure.
    #[must_use]
    pub fn watch() -> Self {
        let shared = Arc::<Shared>::default();
        let watching = Arc::clone(&shared);
        // Without a thread nothing is known, and nothing excused.
        let thread = thread::Builder::new()
            .name("machine-delay".into())
            .spawn(move || watching.watch())
            .ok();
        Self { shared, thread }
    }

    /// The longest delay since it began.
    #[must_use]
    pub fn longest(mut self) -> Duration {
        self.end();
        Duration::from_micros(self.shared.longest_us.load(Ordering::Acquire))
    }

    fn end(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // Its last sleep counts too: it may be the one that shows it.
            let _ = thread.join();
        }
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn watch(&self) {
        while !self.over.load(Ordering::Acquire) {
            let begun = Instant::now();
            thread::sleep(NAP);
            let delay = begun.elapsed().saturating_sub(NAP).as_micros();
            let delay = u64::try_from(delay).unwrap_or(u64::MAX);
            self.longest_us.fetch_max(delay, Ordering::AcqRel);
        }
    }
}

const NAP: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_machine_wakes_a_thread_without_any_delay() {
        let delay = Delay::watch();
        thread::sleep(NAP * 5);
        let longest = delay.longest();
        assert!(longest > Duration::ZERO, "{longest:?}");
    }
}
