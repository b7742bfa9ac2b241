//! The calling side of the ledger: one record for each call.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rpc_core::{CallError, Certainty, Code};

use super::clock::{Micros, micros, now};
use crate::ask::{Answer, Ask};

/// A record for each call. The key of a call is its place here.
#[derive(Debug, Default)]
pub struct Book {
    records: Mutex<Vec<Record>>,
    begun: AtomicU64,
    ended: AtomicU64,
}

/// What is known of one call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Record {
    /// When it was begun, before anything was sent.
    pub begun: Micros,
    /// When it was to have ended.
    pub deadline: Micros,
    /// When it did.
    pub ended: Option<Micros>,
    /// How it did.
    pub outcome: Option<Outcome>,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no fourth way")]
pub enum Outcome {
    /// With the right answer.
    Right,
    /// With an answer that is not its own.
    Wrong,
    /// With a typed error.
    Failed {
        /// The kind.
        code: Code,
        /// The word for it.
        reason: String,
        /// Whether the error says that it ran.
        certainty: Certainty,
    },
}

impl Book {
    /// An empty book.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the record of the next call, and returns its key.
    pub fn open(&self, timeout: Duration) -> u64 {
        let begun = now();
        let mut records = self.lock();
        records.push(Record {
            begun,
            deadline: begun.saturating_add(micros(timeout)),
            ended: None,
            outcome: None,
        });
        let key = records.len() as u64 - 1;
        drop(records);
        self.begun.fetch_add(1, Ordering::SeqCst);
        key
    }

    /// Closes the record of a call.
    pub fn close(&self, ask: &Ask, result: &Result<Answer, CallError>) {
        let outcome = match result {
            Ok(answer) if *answer == ask.answer() => Outcome::Right,
            Ok(_) => Outcome::Wrong,
            Err(error) => Outcome::Failed {
                code: error.code(),
                reason: error.reason().as_str().to_owned(),
                certainty: error.certainty(),
            },
        };
        self.close_as(ask.key, outcome);
    }

    /// Closes the record of a call with an outcome that is known otherwise.
    ///
    /// # Panics
    ///
    /// When the call was never opened, or is closed already: then the rig is wrong, and so would be
    /// all that it says.
    pub fn close_as(&self, key: u64, outcome: Outcome) {
        let ended = now();
        let mut records = self.lock();
        let index = usize::try_from(key).expect("a key is an index");
        let record = &mut records[index];
        assert!(record.outcome.is_none(), "call {key} ended twice");
        record.ended = Some(ended);
        record.outcome = Some(outcome);
        drop(records);
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    /// Calls begun so far.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    /// Calls ended so far.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::SeqCst)
    }

    /// Waits until so many calls have ended; false when they have not within `limit`, or `over` says
    /// that no more will.
    pub fn wait_for(&self, ended: u64, limit: Duration, over: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + limit;
        while self.ended() < ended {
            if Instant::now() >= deadline || over() {
                return self.ended() >= ended;
            }
            thread::sleep(POLL);
        }
        true
    }

    /// The records as they are now.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.lock().clone()
    }

    /// When the first call after this moment ended well.
    #[must_use]
    pub fn first_right_after(&self, moment: Micros) -> Option<Micros> {
        let records = self.lock();
        let right = records
            .iter()
            .filter(|record| record.outcome == Some(Outcome::Right));
        let ends = right.filter_map(|record| record.ended);
        ends.filter(|ended| *ended >= moment).min()
    }

    /// The longest time in which no call ended well, between the first that did and the last.
    #[must_use]
    pub fn longest_pause(&self) -> Duration {
        let records = self.lock();
        let mut ends: Vec<Micros> = records
            .iter()
            .filter(|record| record.outcome == Some(Outcome::Right))
            .filter_map(|record| record.ended)
            .collect();
        drop(records);
        ends.sort_unstable();
        let pauses = ends.windows(2).map(|pair| pair[1] - pair[0]);
        Duration::from_micros(pauses.max().unwrap_or(0))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often the count of ended calls is looked at.
const POLL: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_another_call_is_wrong() {
        let book = Book::new();
        let keys = [(); 2].map(|()| book.open(Duration::from_secs(1)));
        let asks = keys.map(Ask::new);
        book.close(&asks[0], &Ok(asks[0].answer()));
        book.close(&asks[1], &Ok(asks[0].answer()));
        let outcomes = book.records().into_iter().map(|record| record.outcome);
        assert_eq!(
            outcomes.collect::<Vec<_>>(),
            [Some(Outcome::Right), Some(Outcome::Wrong)]
        );
        assert_eq!((book.begun(), book.ended()), (2, 2));
    }

    #[test]
    #[should_panic(expected = "ended twice")]
    fn a_call_that_ends_twice_stops_the_rig() {
        let book = Book::new();
        let key = book.open(Duration::ZERO);
        book.close_as(key, Outcome::Right);
        book.close_as(key, Outcome::Right);
    }
}
