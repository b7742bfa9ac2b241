//! Waiting in a thread for a future that something else will wake, with no runtime.
//!
//! Only for futures that need no runtime: channels, confirms, calls.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    /// One waker a thread: it only names the thread, so every wait can share it. A wake that was
    /// meant for an earlier wait costs one more poll.
    static WAKER: Waker = Waker::from(Arc::new(Unpark(thread::current())));
}

/// Waits for `future` without a limit of its own.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    WAKER.with(|waker| {
        let mut context = Context::from_waker(waker);
        loop {
            match future.as_mut().poll(&mut context) {
                Poll::Ready(output) => return output,
                Poll::Pending => thread::park(),
            }
        }
    })
}

/// Waits for `future` until `deadline`; `None` when it is not ready by then.
pub fn block_on_until<F: Future + ?Sized>(
    mut future: Pin<&mut F>,
    deadline: Instant,
) -> Option<F::Output> {
    WAKER.with(|waker| {
        let mut context = Context::from_waker(waker);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return Some(output);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            thread::park_timeout(left);
        }
    })
}
