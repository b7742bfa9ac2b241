//! Waiting in a thread for a future that something else will wake, with no runtime.
//!
//! Only for futures that need no runtime: channels, confirms, calls.

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

/// Waits for `future` without a limit of its own.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let parker = Parker::take();
    loop {
        if let Poll::Ready(output) = parker.poll(future.as_mut()) {
            return output;
        }
        while !parker.was_woken() {
            thread::park();
        }
    }
}

/// Waits for `future` until `deadline`; `None` when it is not ready by then.
pub fn block_on_until<F: Future + ?Sized>(
    mut future: Pin<&mut F>,
    deadline: Instant,
) -> Option<F::Output> {
    let parker = Parker::take();
    loop {
        if let Poll::Ready(output) = parker.poll(future.as_mut()) {
            return Some(output);
        }
        while !parker.was_woken() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            thread::park_timeout(left);
        }
    }
}

/// One wait.
///
/// A thread has one token to be unparked with, and a wait inside the poll of another wait consumes
/// what was meant for the outer one. So each wait has a flag of its own, and looks at it before it
/// parks. The waker is kept for the next wait of the thread: most waits are not nested.
struct Parker {
    unpark: Arc<Unpark>,
    waker: Waker,
}

struct Unpark {
    thread: Thread,
    woken: AtomicBool,
}

thread_local! {
    static IDLE: Cell<Option<(Arc<Unpark>, Waker)>> = const { Cell::new(None) };
}

impl Parker {
    fn take() -> Self {
        let (unpark, waker) = IDLE.take().unwrap_or_else(|| {
            let thread = thread::current();
            let unpark = Arc::new(Unpark {
                thread,
                woken: AtomicBool::new(false),
            });
            let waker = Waker::from(Arc::clone(&unpark));
            (unpark, waker)
        });
        Self { unpark, waker }
    }

    fn poll<F: Future + ?Sized>(&self, future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&self.waker))
    }

    fn was_woken(&self) -> bool {
        // Acquire, to see what whoever woke us has done.
        self.unpark.woken.swap(false, Ordering::Acquire)
    }
}

impl Drop for Parker {
    fn drop(&mut self) {
        // A wake that comes late only makes the next wait poll once more.
        let kept = (Arc::clone(&self.unpark), self.waker.clone());
        // The thread may be ending, and its storage gone.
        let _ = IDLE.try_with(|idle| idle.set(Some(kept)));
    }
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use futures_channel::oneshot;

    use super::*;

    #[test]
    fn a_future_that_is_never_ready_ends_at_the_deadline() {
        let (_sender, receiver) = oneshot::channel::<()>();
        let deadline = Instant::now() + Duration::from_millis(20);
        assert!(block_on_until(pin!(receiver), deadline).is_none());
        assert!(Instant::now() >= deadline);
    }

    #[test]
    fn a_wait_inside_a_wait_does_not_swallow_the_outer_wake() {
        let mut polls = 0;
        let outer = poll_fn(|context| {
            polls += 1;
            if polls > 1 {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            let (sender, receiver) = oneshot::channel();
            thread::spawn(move || sender.send(()));
            block_on(receiver).unwrap();
            Poll::Pending
        });
        let deadline = Instant::now() + Duration::from_secs(10);
        assert!(block_on_until(pin!(outer), deadline).is_some());
    }
}
