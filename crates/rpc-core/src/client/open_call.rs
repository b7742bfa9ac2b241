//! One open attempt: a future of the reply that needs no runtime, and that gives its slot back when
//! it is dropped. The async face awaits it, the blocking face parks a thread on it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_channel::oneshot;
use rpc_proto::client::{Attempt, Request};
use rpc_proto::{CallError, CallId, Message, TransportError};
use uuid::Uuid;

use super::table::{CallResult, Table};
use crate::Confirm;

/// An attempt that is open, from before its request is published.
#[derive(Debug)]
pub(crate) struct OpenCall<T> {
    table: Table<T>,
    id: CallId,
    confirm: Option<Confirm>,
    reply: oneshot::Receiver<CallResult>,
    ended: bool,
}

/// A new identity for an attempt.
pub(super) fn new_id() -> CallId {
    // Six bits of such a UUID are fixed, and not the same six when it is turned by half a word.
    let bits = Uuid::new_v4().as_u128() ^ Uuid::new_v4().as_u128().rotate_left(32);
    CallId::from_bits(bits)
}

impl<T> OpenCall<T> {
    /// Opens an attempt; returns it, the message to publish, and what to publish it on.
    pub(super) fn begin(
        table: &Table<T>,
        request: Request,
        attempt: Attempt,
    ) -> Result<(Self, Message, Arc<T>), CallError> {
        let (waiter, reply) = oneshot::channel();
        let id = attempt.id;
        let (message, transport) = table.start(request, attempt, waiter)?;
        let open = Self {
            table: table.clone(),
            id,
            confirm: None,
            reply,
            ended: false,
        };
        Ok((open, message, transport))
    }

    /// The request has been handed over, or has failed to be.
    pub(crate) fn published(&mut self, outcome: Result<Confirm, TransportError>) {
        match outcome {
            // One that nobody asked for must not count as the broker's word.
            Ok(confirm) => self.confirm = Some(confirm).filter(Confirm::is_requested),
            Err(error) => self.table.handle_publish(self.id, Err(error)),
        }
    }

    /// Nobody needs it any more: ends it as [`expire`](Self::expire) does.
    pub(crate) fn give_up(&self) {
        self.table.give_up(self.id);
    }

    /// The deadline has come: ends the attempt, unless it has ended by itself.
    ///
    /// Either way it is ready now, or in a moment: another thread may have taken its end out of the
    /// machine and not passed it on yet. So the driver waits for it once more, without a limit.
    pub(crate) fn expire(&self, deadline: Instant) {
        // The clock that woke us may run a little ahead of this one.
        self.table.handle_timeout(Instant::now().max(deadline));
    }
}

impl<T> Future for OpenCall<T> {
    type Output = CallResult;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<CallResult> {
        loop {
            if let Poll::Ready(result) = Pin::new(&mut self.reply).poll(context) {
                self.ended = true;
                return Poll::Ready(result.unwrap_or_else(|_| Err(abandoned())));
            }
            let Some(confirm) = &mut self.confirm else {
                return Poll::Pending;
            };
            let Poll::Ready(verdict) = Pin::new(confirm).poll(context) else {
                return Poll::Pending;
            };
            self.confirm = None;
            // A refusal ends the call in the machine, which answers through `reply`: look again.
            self.table.handle_publish(self.id, verdict);
        }
    }
}

impl<T> Drop for OpenCall<T> {
    fn drop(&mut self) {
        if !self.ended {
            self.table.cancel(self.id);
        }
    }
}

/// The machine answers every waiter before it drops it, so this stands for a bug in it.
fn abandoned() -> CallError {
    debug_assert!(false, "the client machine dropped a waiter");
    CallError::Closed {
        certainty: rpc_proto::Certainty::MaybeExecuted,
    }
}
