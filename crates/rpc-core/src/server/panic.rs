//! A panic in a handler is the caller's answer and not the worker's end.

use std::any::Any;
use std::future::Future;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A handler panicked. What it said is in the log.
#[derive(Debug)]
pub(crate) struct Panicked;

/// Runs `work`, and returns [`Panicked`] if it panics.
///
/// Unwind safety is asserted: what the panic may have left half done belongs to the service, which
/// knows that its handlers share it between threads.
pub(crate) fn catch_unwind<R>(work: impl FnOnce() -> R) -> Result<R, Panicked> {
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|panic| log(&*panic))
}

/// A future that ends with [`Panicked`] if the one inside panics, in its end as well.
pub(crate) struct CatchUnwind<F: Future + ?Sized>(Option<Pin<Box<F>>>);

impl<F: Future + ?Sized> CatchUnwind<F> {
    pub(crate) const fn new(future: Pin<Box<F>>) -> Self {
        Self(Some(future))
    }
}

impl<F: Future + ?Sized> Future for CatchUnwind<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = &mut self.0 else {
            return Poll::Ready(Err(Panicked));
        };
        match catch_unwind(|| future.as_mut().poll(context)) {
            Ok(poll) => Poll::Ready(Ok(ready!(poll))),
            Err(panicked) => Poll::Ready(Err(panicked)),
        }
    }
}

impl<F: Future + ?Sized> Drop for CatchUnwind<F> {
    fn drop(&mut self) {
        let future = self.0.take();
        // What panics only in its destructor has answered before.
        let _ = catch_unwind(|| drop(future));
    }
}

fn log(panic: &(dyn Any + Send)) -> Panicked {
    let said = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no text)");
    tracing::error!(panic = said, "a handler panicked");
    Panicked
}
