//! A flag that is set once, to look at and to wait for: nobody awaits the work any more.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// Tells whoever works that nobody awaits the result any more.
///
/// Clones are one and the same. Work that computes looks at
/// [`is_cancelled`](Self::is_cancelled) now and then; work that awaits may wait for
/// [`cancelled`](Self::cancelled). Neither needs a runtime.
#[derive(Clone, Default)]
pub struct Cancellation(Arc<Inner>);

#[derive(Default)]
struct Inner {
    cancelled: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Cancellation {
    /// One that is not cancelled yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels, and wakes whoever waits for it. Again, it changes nothing.
    pub fn cancel(&self) {
        // Set under the lock: who finds it unset there has its waker in the list before we take it.
        let mut guard = self.waiting();
        self.0.cancelled.store(true, Ordering::Release);
        let waiting = std::mem::take(&mut *guard);
        // Not under the lock: to wake a task may run it.
        drop(guard);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Whether it is cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }

    /// Waits until it is cancelled. Cancel safe.
    pub fn cancelled(&self) -> Cancelled {
        Cancelled(self.clone())
    }

    /// Whether `other` is a clone of this one.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cancellation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cancellation")
            .field(&self.is_cancelled())
            .finish()
    }
}

/// The future of [`Cancellation::cancelled`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Cancelled(Cancellation);

impl Future for Cancelled {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0.is_cancelled() {
            return Poll::Ready(());
        }
        let mut waiting = self.0.waiting();
        if self.0.is_cancelled() {
            return Poll::Ready(());
        }
        let known = |waker: &Waker| waker.will_wake(context.waker());
        if !waiting.iter().any(known) {
            waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn whoever_waits_is_woken_once_and_clones_are_one() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        let cancellation = Cancellation::new();
        let mut waiting = pin!(cancellation.clone().cancelled());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        cancellation.cancel();
        cancellation.cancel();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(waiting.as_mut().poll(&mut context).is_ready());
        assert!(cancellation.clone().is_cancelled());
    }
}
