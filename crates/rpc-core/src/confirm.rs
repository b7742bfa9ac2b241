//! The broker's verdict on a publish, for whichever face waits for it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_channel::oneshot;

use crate::{ErrorKind, TransportError, park};

/// The broker's verdict on one publish: a future, and a thing to wait for in a thread.
///
/// Dropping it takes nothing back.
#[derive(Debug)]
#[must_use = "until it resolves, the message may be lost"]
pub struct Confirm(State);

#[derive(Debug)]
enum State {
    Unrequested,
    Known(Option<Result<(), TransportError>>),
    Open(oneshot::Receiver<Result<(), TransportError>>),
}

impl Confirm {
    /// A verdict that is known already.
    pub const fn known(verdict: Result<(), TransportError>) -> Self {
        Self(State::Known(Some(verdict)))
    }

    /// None at all: the broker was not asked. Resolves to `Ok` at once, and proves nothing.
    pub const fn unrequested() -> Self {
        Self(State::Unrequested)
    }

    /// Whether the broker was asked.
    #[must_use]
    pub const fn is_requested(&self) -> bool {
        !matches!(self.0, State::Unrequested)
    }

    /// For implementors of a transport: a verdict to come, and the place to put it.
    pub fn open() -> (Verdict, Self) {
        let (sender, receiver) = oneshot::channel();
        (Verdict(sender), Self(State::Open(receiver)))
    }

    /// Waits in this thread for the verdict.
    ///
    /// # Errors
    ///
    /// The verdict itself, or [`ErrorKind::Timeout`] when there is none at `deadline`; the message
    /// may arrive all the same.
    pub fn wait(mut self, deadline: Instant) -> Result<(), TransportError> {
        park::block_on_until(Pin::new(&mut self), deadline).unwrap_or_else(|| Err(Self::late()))
    }

    /// The verdict, if it is there.
    #[cfg(any(feature = "blocking", feature = "tokio"))]
    pub(crate) fn try_take(&mut self) -> Option<Result<(), TransportError>> {
        match &mut self.0 {
            State::Unrequested => Some(Ok(())),
            State::Known(verdict) => Some(verdict.take().unwrap_or(Ok(()))),
            State::Open(receiver) => match receiver.try_recv() {
                Ok(verdict) => verdict,
                Err(_) => Some(Err(gone())),
            },
        }
    }

    /// What is said in place of a verdict that has not come.
    pub(crate) fn late() -> TransportError {
        TransportError::new(ErrorKind::Timeout, "rpc", "confirm")
            .with_detail("the broker has not confirmed in time")
    }
}

impl Future for Confirm {
    type Output = Result<(), TransportError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Unrequested => Poll::Ready(Ok(())),
            State::Known(verdict) => Poll::Ready(verdict.take().unwrap_or(Ok(()))),
            State::Open(receiver) => Pin::new(receiver)
                .poll(context)
                .map(|verdict| verdict.unwrap_or_else(|_| Err(gone()))),
        }
    }
}

/// Where a transport puts the verdict on a publish. Dropped, the connection counts as lost.
#[derive(Debug)]
pub struct Verdict(oneshot::Sender<Result<(), TransportError>>);

impl Verdict {
    /// Gives the verdict. Nobody may be waiting any more; that is no error.
    pub fn settle(self, verdict: Result<(), TransportError>) {
        let _ = self.0.send(verdict);
    }
}

fn gone() -> TransportError {
    TransportError::new(ErrorKind::Closed, "rpc", "confirm")
        .with_detail("the transport ended before the broker confirmed")
}
