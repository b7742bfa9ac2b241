//! One open call: a future of the reply that needs no runtime, and that gives its slot back when
//! it is dropped. The async face awaits it, the blocking face parks a thread on it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use futures_channel::oneshot;
use rpc_proto::client::{Calls, Ended, Limits, Request, Stats};
use rpc_proto::wire::Reply;
use rpc_proto::{CallError, CallId, ErrorKind, Message, ShortString, TransportError};
use uuid::Uuid;

use crate::Confirm;

type CallResult = Result<Reply, CallError>;

/// The client machine behind its lock.
#[derive(Clone, Debug)]
pub(crate) struct Table(Arc<Mutex<Calls<oneshot::Sender<CallResult>>>>);

impl Table {
    pub(crate) fn new(limits: Limits) -> Self {
        Self(Arc::new(Mutex::new(Calls::new(limits))))
    }

    /// Feeds the machine, and passes on what has ended after the lock is released: to wake a caller
    /// may run it, and it comes back here.
    fn feed<R>(&self, feed: impl FnOnce(&mut Calls<oneshot::Sender<CallResult>>) -> R) -> R {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let output = feed(&mut calls);
        let first = calls.poll_ended();
        let others: Vec<_> = std::iter::from_fn(|| calls.poll_ended()).collect();
        drop(calls);
        for Ended { result, waiter } in first.into_iter().chain(others) {
            // The caller may have gone in this very moment.
            let _ = waiter.send(result);
        }
        output
    }

    /// Where replies come in.
    pub(crate) fn inlet(&self) -> Inlet {
        Inlet(self.clone())
    }

    pub(crate) fn close(&self) {
        self.feed(Calls::close);
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.feed(|calls| calls.in_flight())
    }

    pub(crate) fn stats(&self) -> Stats {
        self.feed(|calls| calls.stats())
    }
}

/// The receiving end of a table. When it is gone, however it went, no reply can come any more.
#[derive(Debug)]
pub(crate) struct Inlet(Table);

impl Inlet {
    pub(crate) fn handle_reply(&self, message: Message) {
        self.0.feed(|calls| calls.handle_reply(message));
    }

    pub(crate) fn handle_disconnect(&self, cause: TransportError) {
        self.0.feed(|calls| calls.handle_disconnect(cause));
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        // After a disconnect with a cause this changes nothing.
        self.handle_disconnect(ended());
    }
}

/// Why the calls end whose reply address was given up under them.
fn ended() -> TransportError {
    TransportError::new(ErrorKind::Closed, "rpc", "receive")
        .with_detail("the reply address was given up")
}

/// A call that is open, from before its request is published.
#[derive(Debug)]
pub(crate) struct OpenCall {
    table: Table,
    id: CallId,
    confirm: Option<Confirm>,
    reply: oneshot::Receiver<CallResult>,
    ended: bool,
}

impl OpenCall {
    /// Opens a call; returns it and the message to publish.
    pub(crate) fn begin(
        table: &Table,
        request: Request,
        reply_to: &ShortString,
        deadline: Instant,
    ) -> Result<(Self, Message), CallError> {
        let (waiter, reply) = oneshot::channel();
        // Six bits of such a UUID are fixed, and not the same six when it is turned by half a word.
        let bits = Uuid::new_v4().as_u128() ^ Uuid::new_v4().as_u128().rotate_left(32);
        let id = CallId::from_bits(bits);
        let now = Instant::now();
        let message =
            table.feed(|calls| calls.start(now, id, request, reply_to, deadline, waiter))?;
        Ok((
            Self {
                table: table.clone(),
                id,
                confirm: None,
                reply,
                ended: false,
            },
            message,
        ))
    }

    /// The request has been handed over, or has failed to be.
    pub(crate) fn published(&mut self, outcome: Result<Confirm, TransportError>) {
        match outcome {
            // One that nobody asked for must not count as the broker's word.
            Ok(confirm) => self.confirm = Some(confirm).filter(Confirm::is_requested),
            Err(error) => self
                .table
                .feed(|calls| calls.handle_publish(self.id, Err(error))),
        }
    }

    /// The deadline has come: ends the call, unless it has ended by itself.
    ///
    /// Either way it is ready now, or in a moment: another thread may have taken its end out of the
    /// machine and not passed it on yet. So the driver waits for it once more, without a limit.
    pub(crate) fn expire(&self, deadline: Instant) {
        // The clock that woke us may run a little ahead of this one.
        let now = Instant::now().max(deadline);
        self.table.feed(|calls| calls.handle_timeout(now));
    }
}

impl Future for OpenCall {
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
            self.table
                .feed(|calls| calls.handle_publish(self.id, verdict));
        }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        if !self.ended {
            self.table.feed(|calls| calls.cancel(self.id));
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
