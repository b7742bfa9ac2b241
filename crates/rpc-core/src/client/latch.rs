//! A moment that comes once, to wait for on either face.

use std::future::poll_fn;
use std::sync::{Mutex, PoisonError};
use std::task::{Poll, Waker};

/// Closed, until it is opened for good.
#[derive(Debug, Default)]
pub(crate) struct Latch(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    open: bool,
    waiting: Vec<Waker>,
}

impl Latch {
    pub(crate) fn open(&self) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.open = true;
        let waiting = std::mem::take(&mut inner.waiting);
        drop(inner);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Waits until it is open. Cancel safe.
    pub(crate) async fn wait(&self) {
        poll_fn(|context| {
            let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if inner.open {
                return Poll::Ready(());
            }
            let known = |waker: &Waker| waker.will_wake(context.waker());
            if !inner.waiting.iter().any(known) {
                inner.waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}
