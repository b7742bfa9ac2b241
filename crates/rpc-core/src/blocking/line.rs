//! What waits for a thread: first in, first out, and closed once.
//!
//! To wake a thread costs more than a quick handler takes. So no more than one is on its way at a
//! time: it wakes the next one if there is more to do when it is there, and by then another may have
//! done it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A queue between threads. What bounds it is outside: the broker sends no more than the prefetch
/// unsettled.
#[derive(Debug)]
pub(super) struct Line<I> {
    state: Mutex<State<I>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<I> {
    items: VecDeque<I>,
    closed: bool,
    /// Threads that wait.
    idle: usize,
    /// Whether one of them has been woken, and is not there yet.
    waking: bool,
}

impl<I> Line<I> {
    pub(super) const fn new() -> Self {
        let state = State {
            items: VecDeque::new(),
            closed: false,
            idle: 0,
            waking: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Puts an item at the end; gives it back when the line is closed.
    pub(super) fn push(&self, item: I) -> Result<(), I> {
        let mut state = self.lock();
        if state.closed {
            return Err(item);
        }
        state.items.push_back(item);
        self.wake_next(state);
        Ok(())
    }

    /// Waits for the next item; none when the line is closed and empty.
    pub(super) fn pop(&self) -> Option<I> {
        let mut state = self.lock();
        while state.items.is_empty() && !state.closed {
            state.idle += 1;
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
            // Also when nobody meant to wake it: then one more may be on its way, which does no harm.
            state.waking = false;
        }
        let item = state.items.pop_front();
        self.wake_next(state);
        item
    }

    /// Wakes a thread for the next item, if it takes one.
    fn wake_next(&self, mut state: MutexGuard<'_, State<I>>) {
        if state.items.is_empty() || state.waking || state.idle == 0 {
            return;
        }
        state.waking = true;
        drop(state);
        self.changed.notify_one();
    }

    /// The next item, if there is one now.
    pub(super) fn try_pop(&self) -> Option<I> {
        self.lock().items.pop_front()
    }

    /// Takes out what is `wanted`.
    pub(super) fn take_out(&self, wanted: impl Fn(&I) -> bool) -> Vec<I> {
        let mut state = self.lock();
        let (taken, left) = std::mem::take(&mut state.items)
            .into_iter()
            .partition(wanted);
        state.items = left;
        taken.into()
    }

    /// Lets nothing further in.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<I>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
