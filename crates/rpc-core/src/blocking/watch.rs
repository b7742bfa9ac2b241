//! The clock of a blocking server: a thread that runs a handler cannot look at it.
//!
//! ```text
//!  sit ─▶ notice ─▶ cancelled ─▶ given up: overtake
//!   ╰─────────── rise, at any time ──────────╯
//! ```
//!
//! What is due when, [`Running`] decides. A worker's thread sits down with the job it runs and takes
//! it along when it rises. One that does not rise in time finds its job gone: it was answered for,
//! and perhaps another thread works in its place.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rpc_proto::server::{Acceptor, Due, GivenUp, Running};
use rpc_proto::{Address, LONGEST_WAIT, Message};

use crate::server::{Origin, Post};

/// The jobs that run, and when something is due for each.
pub(super) struct Watch<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    sitting: HashMap<u64, Sitting<T>>,
    /// Seats whose job was taken away; those that were replaced hold the proof.
    overtaken: HashMap<u64, Option<GivenUp>>,
    next: u64,
    /// When the watching thread looks again.
    looks_at: Option<Instant>,
    closed: bool,
}

struct Sitting<T> {
    running: Running,
    origin: Origin<T>,
    due: Instant,
}

/// The seat of a thread that runs a handler.
#[derive(Debug)]
pub(super) struct Seat(u64);

/// What is to be done for a job that still runs.
pub(super) enum Task<T> {
    /// Publish this.
    Notice(Address, Message, Arc<Post<T>>),
    /// Finish the job in the place of its thread, which is replaced if there is a seat.
    Overtaken {
        running: Running,
        origin: Origin<T>,
        replace: Option<Seat>,
    },
}

/// A thread that rises finds its job gone.
#[derive(Debug)]
pub(super) struct Overtaken {
    /// Whether another thread works in its place.
    pub(super) replaced: bool,
}

impl<T> Watch<T> {
    pub(super) fn new() -> Self {
        let state = State {
            sitting: HashMap::new(),
            overtaken: HashMap::new(),
            next: 0,
            looks_at: None,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// A thread begins with a job.
    pub(super) fn sit(&self, running: Running, origin: Origin<T>) -> Seat {
        let due = running.poll_timeout();
        let mut state = self.lock();
        state.next += 1;
        let seat = state.next;
        let sitting = Sitting {
            running,
            origin,
            due,
        };
        state.sitting.insert(seat, sitting);
        let sooner = state.looks_at.is_none_or(|looks_at| due < looks_at);
        drop(state);
        if sooner {
            self.changed.notify_all();
        }
        Seat(seat)
    }

    /// The thread has come to the end of it.
    pub(super) fn rise(&self, seat: &Seat) -> Result<(Running, Origin<T>), Overtaken> {
        let mut state = self.lock();
        if let Some(sitting) = state.sitting.remove(&seat.0) {
            return Ok((sitting.running, sitting.origin));
        }
        let given_up = state.overtaken.remove(&seat.0).flatten();
        Err(Overtaken {
            replaced: given_up.is_some(),
        })
    }

    /// There was no thread to replace the one in this seat. Returns whether it still sits there, to go
    /// on when it rises: otherwise it has ended, and there is one thread less.
    pub(super) fn keep(&self, seat: &Seat) -> bool {
        let mut state = self.lock();
        let given_up = state.overtaken.get_mut(&seat.0);
        given_up.map(|given_up| *given_up = None).is_some()
    }

    /// Waits until something is due; none when the watch is closed.
    pub(super) fn wait(&self, acceptor: &Acceptor) -> Option<Vec<Task<T>>> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            let now = Instant::now();
            let due = state.due(now, acceptor);
            if !due.is_empty() {
                state.looks_at = Some(now);
                return Some(due);
            }
            let next = state.sitting.values().map(|sitting| sitting.due).min();
            state.looks_at = next;
            let wait = next.map_or(LONGEST_WAIT, |next| next.saturating_duration_since(now));
            let waited = self.changed.wait_timeout(state, wait);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends the waiting: jobs that still run are nobody's concern any more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn due(&mut self, now: Instant, acceptor: &Acceptor) -> Vec<Task<T>> {
        let mut all = Vec::new();
        let mut overdue = Vec::new();
        for (&seat, sitting) in &mut self.sitting {
            if sitting.due > now {
                continue;
            }
            loop {
                match sitting.running.poll(now) {
                    Some(Due::Notice(to, message)) => {
                        let post = Arc::clone(&sitting.origin.post);
                        all.push(Task::Notice(to, *message, post));
                    }
                    Some(Due::GiveUp) => {
                        overdue.push(seat);
                        break;
                    }
                    None => {
                        sitting.due = sitting.running.poll_timeout();
                        break;
                    }
                }
            }
        }
        for seat in overdue {
            let Some(Sitting {
                running, origin, ..
            }) = self.sitting.remove(&seat)
            else {
                continue;
            };
            let given_up = acceptor.give_up();
            let replace = given_up.is_some().then_some(Seat(seat));
            self.overtaken.insert(seat, given_up);
            all.push(Task::Overtaken {
                running,
                origin,
                replace,
            });
        }
        all
    }
}
