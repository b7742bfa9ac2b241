//! Deliveries on their way from a thread that waits for them to a task that awaits them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::adapt::lock;
use crate::{Delivery, TransportError};

/// A bounded queue of deliveries, filled by the pump of one consumer and emptied by its `recv`.
///
/// Unlike a channel it can be stopped by a third party, who gets what is still in it: that is what
/// `cancel` has to put back.
pub(super) struct Feed {
    capacity: usize,
    state: Mutex<State>,
    /// Rung when there is room again, and when the feed is stopped or its pump is gone.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Delivery>,
    /// What `recv` says once, after the last delivery.
    cause: Option<TransportError>,
    /// No more will come.
    ended: bool,
    /// Nobody wants more, nor what is here.
    stopped: bool,
    /// The pump has let go of the inner consumer, and of every delivery.
    over: bool,
    waker: Option<Waker>,
}

impl Feed {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Adds a delivery, waiting for room; hands it back when the feed was stopped.
    pub(super) fn push(&self, delivery: Delivery) -> Option<Delivery> {
        let mut state = self
            .changed
            .wait_while(lock(&self.state), |state| {
                !state.stopped && state.ready.len() >= self.capacity
            })
            .unwrap_or_else(PoisonError::into_inner);
        if state.stopped {
            return Some(delivery);
        }
        state.ready.push_back(delivery);
        let waker = state.waker.take();
        drop(state);
        wake(waker);
        None
    }

    /// Says that no more will come, and why.
    pub(super) fn end(&self, cause: Option<TransportError>) {
        let mut state = lock(&self.state);
        state.ended = true;
        if !state.stopped {
            state.cause = cause;
        }
        let waker = state.waker.take();
        drop(state);
        wake(waker);
    }

    /// Ends `recv` at once with a cause, for a transport that is given up.
    pub(super) fn fail(&self, cause: TransportError) {
        let mut state = lock(&self.state);
        if !state.stopped && !state.ended {
            state.cause = Some(cause);
        }
        state.stopped = true;
        let unreturned = std::mem::take(&mut state.ready);
        let waker = state.waker.take();
        drop(state);
        self.changed.notify_all();
        wake(waker);
        drop(unreturned);
    }

    /// Ends `recv` at once and hands over what it has not returned.
    pub(super) fn stop(&self) -> VecDeque<Delivery> {
        let mut state = lock(&self.state);
        state.stopped = true;
        state.cause = None;
        let unreturned = std::mem::take(&mut state.ready);
        let waker = state.waker.take();
        drop(state);
        self.changed.notify_all();
        wake(waker);
        unreturned
    }

    /// The next delivery, or how it ended.
    pub(super) fn poll_recv(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Delivery>, TransportError>> {
        let mut state = lock(&self.state);
        if let Some(delivery) = state.ready.pop_front() {
            let was_full = state.ready.len() + 1 >= self.capacity;
            drop(state);
            if was_full {
                self.changed.notify_all();
            }
            return Poll::Ready(Ok(Some(delivery)));
        }
        if let Some(cause) = state.cause.take() {
            return Poll::Ready(Err(cause));
        }
        if state.ended || state.stopped {
            return Poll::Ready(Ok(None));
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Says that the pump has let go of everything.
    pub(super) fn set_over(&self) {
        lock(&self.state).over = true;
        self.changed.notify_all();
    }

    /// Whether nothing is left to cancel: the pump is gone and all it took was returned.
    pub(super) fn is_spent(&self) -> bool {
        let state = lock(&self.state);
        state.over && state.ready.is_empty()
    }

    /// Waits until the pump has let go of everything; `false` when it has not by `deadline`.
    pub(super) fn wait_over(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let (state, _) = self
            .changed
            .wait_timeout_while(lock(&self.state), left, |state| !state.over)
            .unwrap_or_else(PoisonError::into_inner);
        state.over
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.state);
        f.debug_struct("Feed")
            .field("ready", &state.ready.len())
            .field("ended", &state.ended)
            .field("stopped", &state.stopped)
            .finish_non_exhaustive()
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
