//! What waits for a thread: first in, first out, and closed once.

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
}

impl<I> Line<I> {
    pub(super) const fn new() -> Self {
        let state = State {
            items: VecDeque::new(),
            closed: false,
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
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for the next item; none when the line is closed and empty.
    pub(super) fn pop(&self) -> Option<I> {
        let waits = |state: &mut State<I>| state.items.is_empty() && !state.closed;
        let state = self.changed.wait_while(self.lock(), waits);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.items.pop_front()
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
