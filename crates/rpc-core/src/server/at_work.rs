//! How many requests were taken and are not settled yet, and when there are none.

use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// Requests taken and not yet settled.
#[derive(Debug, Default)]
pub(crate) struct AtWork(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    count: usize,
    waiting: Vec<Waker>,
}

impl AtWork {
    pub(crate) fn begin(&self) {
        self.lock().count += 1;
    }

    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.count -= 1;
        if state.count == 0 {
            let waiting = std::mem::take(&mut state.waiting);
            drop(state);
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().count
    }

    /// Waits until there are none. Cancel safe, and needs no runtime.
    pub(crate) async fn idle(&self) {
        poll_fn(|context| {
            let mut state = self.lock();
            if state.count == 0 {
                return Poll::Ready(());
            }
            let known = |waker: &Waker| waker.will_wake(context.waker());
            if !state.waiting.iter().any(known) {
                state.waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
