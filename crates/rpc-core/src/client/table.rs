//! The client machine behind its lock, together with the transport that its calls go out on.
//!
//! Both change at once: a call that begins gets the reply address and the transport of one
//! generation.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Instant;

use futures_channel::oneshot;
use rpc_proto::client::{Attempt, Calls, Ended, Limits, Request, Stats};
use rpc_proto::link::Generation;
use rpc_proto::wire::Reply;
use rpc_proto::{
    Address, CallError, CallId, ConsumerId, ErrorKind, Message, ShortString, TransportError,
};

pub(super) type CallResult = Result<Reply, CallError>;

/// See the module.
pub(crate) struct Table<T>(Arc<Mutex<State<T>>>);

struct State<T> {
    calls: Calls<oneshot::Sender<CallResult>>,
    seat: Option<Seat<T>>,
    /// Who carries notices to workers, while it waits for some.
    courier: Option<Waker>,
    /// No call will begin any more.
    over: bool,
}

/// A generation: its transport, and the inbox on it.
pub(crate) struct Seat<T> {
    pub(crate) generation: Generation,
    pub(crate) transport: Arc<T>,
    pub(crate) inbox: ConsumerId,
}

impl<T> Clone for Seat<T> {
    fn clone(&self) -> Self {
        Self {
            generation: self.generation,
            transport: Arc::clone(&self.transport),
            inbox: self.inbox,
        }
    }
}

impl<T> Table<T> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self(Arc::new(Mutex::new(State {
            calls: Calls::new(limits),
            seat: None,
            courier: None,
            over: false,
        })))
    }

    /// Feeds the machine, and passes on what follows after the lock is released: to wake a caller
    /// may run it, and it comes back here.
    fn feed<R>(&self, feed: impl FnOnce(&mut State<T>) -> R) -> R {
        let mut state = self.lock();
        let output = feed(&mut state);
        let first = state.calls.poll_ended();
        let others: Vec<_> = std::iter::from_fn(|| state.calls.poll_ended()).collect();
        let work = state.calls.has_cancel() || state.over;
        let courier = if work { state.courier.take() } else { None };
        drop(state);
        for Ended { result, waiter } in first.into_iter().chain(others) {
            // The caller may have gone in this very moment.
            let _ = waiter.send(result);
        }
        courier.into_iter().for_each(Waker::wake);
        output
    }

    /// There is a connection.
    pub(crate) fn arrive(&self, seat: Seat<T>, reply_to: ShortString) {
        let old = self.feed(|state| {
            state.calls.handle_connect(seat.generation, reply_to);
            state.seat.replace(seat)
        });
        // Not under the lock: a transport that is dropped may have much to do.
        drop(old);
    }

    /// The connection of this generation is gone; `for_good` when there will be no other.
    pub(crate) fn depart(&self, generation: Generation, cause: TransportError, for_good: bool) {
        let old = self.feed(|state| {
            state.calls.handle_disconnect(generation, cause.clone());
            if for_good {
                state.calls.handle_end(cause);
                state.over = true;
            }
            let present = state.seat.as_ref().map(|seat| seat.generation);
            state.seat.take_if(|_| present == Some(generation))
        });
        drop(old);
    }

    /// Nobody receives replies any more, for this reason.
    pub(crate) fn abandon(&self, cause: TransportError) {
        let old = self.feed(|state| {
            state.calls.handle_end(cause);
            state.over = true;
            state.seat.take()
        });
        drop(old);
    }

    /// The owner ends all calls.
    pub(crate) fn close(&self) {
        self.feed(|state| {
            state.calls.close();
            state.over = true;
        });
    }

    /// Opens a call; returns the message to publish, and what to publish it on.
    pub(super) fn start(
        &self,
        request: Request,
        attempt: Attempt,
        waiter: oneshot::Sender<CallResult>,
    ) -> Result<(Message, Arc<T>), CallError> {
        self.feed(|state| {
            let id = attempt.id;
            let message = state
                .calls
                .start(Instant::now(), request, attempt, waiter)?;
            if let Some(seat) = &state.seat {
                return Ok((message, Arc::clone(&seat.transport)));
            }
            debug_assert!(false, "connected, and without a transport");
            state.calls.cancel(id);
            Err(CallError::NotSent(given_up()))
        })
    }

    pub(super) fn cancel(&self, id: CallId) {
        self.feed(|state| state.calls.cancel(id));
    }

    pub(super) fn give_up(&self, id: CallId) {
        self.feed(|state| state.calls.give_up(id));
    }

    pub(super) fn handle_publish(&self, id: CallId, result: Result<(), TransportError>) {
        self.feed(|state| state.calls.handle_publish(id, result));
    }

    pub(super) fn handle_timeout(&self, now: Instant) {
        self.feed(|state| state.calls.handle_timeout(now));
    }

    pub(crate) fn handle_reply(&self, generation: Generation, message: Message) {
        self.feed(|state| state.calls.handle_reply(generation, message));
    }

    /// The present generation.
    pub(crate) fn seat(&self) -> Option<Seat<T>> {
        self.lock().seat.clone()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.lock().calls.in_flight()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.lock().calls.stats()
    }

    /// Waits for the next notice to a worker, with the transport to send it on; ends when there will
    /// be none any more.
    ///
    /// Cancel safe. For one courier only.
    pub(crate) async fn next_cancel(&self) -> Option<(Address, Message, Arc<T>)> {
        poll_fn(|context| {
            let mut state = self.lock();
            // Without a connection there is nobody to be told: the work ends at its deadline.
            while let Some((to, message)) = state.calls.poll_cancel() {
                if let Some(seat) = &state.seat {
                    return Poll::Ready(Some((to, message, Arc::clone(&seat.transport))));
                }
            }
            if state.over {
                return Poll::Ready(None);
            }
            state.courier = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

/// Why the calls end whose reply address was given up under them.
pub(crate) fn given_up() -> TransportError {
    TransportError::new(ErrorKind::Closed, "rpc", "receive")
        .with_detail("the reply address was given up")
}
