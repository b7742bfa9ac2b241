//! The client machine: the table of open calls, and how each of them ends.
//!
//! ```text
//!             start                    handle_publish(Ok)
//!   (nothing) ─────▶ published, unconfirmed ─────────────▶ confirmed
//!                        │                                     │
//!                        └──────────────┬──────────────────────┘
//!     handle_reply · handle_publish(Err) · handle_timeout · handle_disconnect · cancel
//!                                       ▼
//!                               ended, exactly once
//! ```
//!
//! Reply and confirm may come in any order. Whatever comes for a call that has ended changes
//! nothing but a counter.

mod error;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use self::error::CallError;
use crate::wire::{self, Reply};
use crate::{
    CallId, Certainty, DeliveryMode, ErrorKind, Expiration, Headers, LONGEST_WAIT, Message,
    ShortString, TransportError, deadline_after,
};

/// What a call sends, before it has an identity.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The arguments, encoded.
    pub body: Bytes,
    /// How they are encoded.
    pub content_type: Option<ShortString>,
    /// Whether the broker keeps the request over a restart.
    pub delivery_mode: DeliveryMode,
    /// Further headers.
    pub headers: Headers,
    /// The method; without one the service's default method.
    pub method: Option<ShortString>,
}

/// What a client allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Calls open at once; one more is refused at once.
    pub max_in_flight: usize,
    /// The longest reply body taken, in bytes.
    pub max_reply: usize,
    /// The longest request body sent, in bytes.
    pub max_request: usize,
    /// The longest timeout a call may have; a longer one is cut to it.
    pub max_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_in_flight: 8192,
            max_reply: 4 << 20,
            max_request: 1 << 20,
            max_timeout: LONGEST_WAIT,
        }
    }
}

/// What became of all calls so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Given up by the caller, with the answer still open.
    pub cancelled: u64,
    /// Ended with an error.
    pub failed: u64,
    /// Ended with a result.
    pub ok: u64,
    /// Begun.
    pub started: u64,
    /// Replies that belong to no open call: late, duplicate, forged, or not ours at all.
    pub unmatched_replies: u64,
}

/// A call that has ended, for the driver to pass on.
#[derive(Debug)]
pub struct Ended<W> {
    /// How.
    pub result: Result<Reply, CallError>,
    /// Whoever waits for it, as it was given to [`Calls::start`].
    pub waiter: W,
}

/// The table of open calls of one reply address.
///
/// `W` is whatever the driver needs to wake the caller; the machine carries it and hands it back.
///
/// Commands: [`start`](Self::start), [`cancel`](Self::cancel). What happened:
/// [`handle_publish`](Self::handle_publish), [`handle_reply`](Self::handle_reply),
/// [`handle_timeout`](Self::handle_timeout), [`handle_disconnect`](Self::handle_disconnect). To do:
/// [`poll_ended`](Self::poll_ended) after each of them, and [`poll_timeout`](Self::poll_timeout).
#[derive(Debug)]
pub struct Calls<W> {
    limits: Limits,
    pending: HashMap<CallId, Pending<W>>,
    /// The same calls by deadline. An entry leaves with its call, so that calls given up early do
    /// not pile up here until their deadlines.
    deadlines: BTreeSet<(Instant, CallId)>,
    ended: VecDeque<Ended<W>>,
    /// Why no further call can start.
    closed: Option<Closed>,
    stats: Stats,
}

#[derive(Debug)]
struct Pending<W> {
    deadline: Instant,
    confirmed: bool,
    waiter: W,
}

#[derive(Clone, Debug)]
enum Closed {
    ByCaller,
    Lost(TransportError),
}

impl<W> Calls<W> {
    /// An empty table.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            pending: HashMap::new(),
            deadlines: BTreeSet::new(),
            ended: VecDeque::new(),
            closed: None,
            stats: Stats::default(),
        }
    }

    /// Opens a call and returns the message to publish.
    ///
    /// `id` must be random and new. The message carries the time left as its expiration, so that
    /// neither broker nor service works for a caller that has gone.
    ///
    /// # Errors
    ///
    /// All of them certain that nothing ran: the request is over the limit, too many calls are
    /// open, the deadline has passed, or the table is closed. Then nothing was opened.
    pub fn start(
        &mut self,
        now: Instant,
        id: CallId,
        request: Request,
        reply_to: &ShortString,
        deadline: Instant,
        waiter: W,
    ) -> Result<Message, CallError> {
        match &self.closed {
            Some(Closed::ByCaller) => {
                return Err(CallError::Closed {
                    certainty: Certainty::NotExecuted,
                });
            }
            Some(Closed::Lost(cause)) => return Err(CallError::NotSent(cause.clone())),
            None => {}
        }
        let Request {
            body,
            content_type,
            delivery_mode,
            headers,
            method,
        } = request;
        if body.len() > self.limits.max_request {
            let limit = self.limits.max_request;
            return Err(CallError::RequestTooLarge {
                len: body.len(),
                limit,
            });
        }
        if self.pending.len() >= self.limits.max_in_flight {
            return Err(CallError::TooManyInFlight {
                limit: self.limits.max_in_flight,
            });
        }
        let deadline = deadline.min(deadline_after(now, self.limits.max_timeout));
        let left = deadline.saturating_duration_since(now);
        if left.is_zero() {
            return Err(CallError::DeadlineExceeded {
                certainty: Certainty::NotExecuted,
                confirmed: false,
            });
        }
        self.stats.started += 1;
        self.deadlines.insert((deadline, id));
        let known = self.pending.insert(
            id,
            Pending {
                deadline,
                confirmed: false,
                waiter,
            },
        );
        debug_assert!(known.is_none(), "a call id was used twice");
        let correlation_id = id.to_correlation_id();
        Ok(Message {
            body,
            content_type,
            message_id: Some(correlation_id.clone()),
            correlation_id: Some(correlation_id),
            delivery_mode,
            expiration: Some(Expiration::after(left)),
            headers,
            kind: method,
            reply_to: Some(reply_to.clone()),
        })
    }

    /// Takes back a call whose caller has gone. Returns whether it was still open.
    pub fn cancel(&mut self, id: CallId) -> bool {
        let open = self.remove(id).is_some();
        self.stats.cancelled += u64::from(open);
        open
    }

    /// Ends all calls and lets no further one start, at the caller's own wish.
    pub fn close(&mut self) {
        self.end_all(Closed::ByCaller, || CallError::Closed {
            certainty: Certainty::MaybeExecuted,
        });
    }

    /// The broker has confirmed the request of a call, or the publish has failed.
    pub fn handle_publish(&mut self, id: CallId, result: Result<(), TransportError>) {
        match result {
            Ok(()) => {
                if let Some(pending) = self.pending.get_mut(&id) {
                    pending.confirmed = true;
                }
            }
            // The transport ends a publish at the deadline of its call, so this is that deadline.
            Err(error) if error.kind() == ErrorKind::Timeout => {
                let certainty = error.certainty();
                self.end(
                    id,
                    Err(CallError::DeadlineExceeded {
                        certainty,
                        confirmed: false,
                    }),
                );
            }
            Err(error) => self.end(id, Err(CallError::Publish(error))),
        }
    }

    /// A message has come to the reply address.
    ///
    /// It ends the call it names. One that names none is counted and dropped: it is late, a
    /// duplicate, or forged.
    pub fn handle_reply(&mut self, message: Message) {
        let id = message.correlation_id.as_ref().and_then(|id| {
            CallId::from_correlation_id(id.as_str()).filter(|id| self.pending.contains_key(id))
        });
        let Some(id) = id else {
            self.stats.unmatched_replies += 1;
            return;
        };
        let (len, limit) = (message.body.len(), self.limits.max_reply);
        let result = if len > limit {
            Err(CallError::ReplyTooLarge { len, limit })
        } else {
            wire::decode_reply(message).map_err(CallError::Remote)
        };
        self.end(id, result);
    }

    /// Ends every call whose deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            let confirmed = self
                .pending
                .get(&id)
                .is_some_and(|pending| pending.confirmed);
            let certainty = Certainty::MaybeExecuted;
            self.end(
                id,
                Err(CallError::DeadlineExceeded {
                    certainty,
                    confirmed,
                }),
            );
        }
    }

    /// The reply address is gone: ends every call, and lets no further one start.
    pub fn handle_disconnect(&mut self, cause: TransportError) {
        let shared = cause.clone();
        self.end_all(Closed::Lost(cause), || {
            CallError::ConnectionLost(shared.clone())
        });
    }

    /// The next call that has ended.
    pub fn poll_ended(&mut self) -> Option<Ended<W>> {
        self.ended.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) next has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Calls that are open.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// What became of all calls so far.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    fn end(&mut self, id: CallId, result: Result<Reply, CallError>) {
        let Some(pending) = self.remove(id) else {
            return;
        };
        match result {
            Ok(_) => self.stats.ok += 1,
            Err(_) => self.stats.failed += 1,
        }
        self.ended.push_back(Ended {
            result,
            waiter: pending.waiter,
        });
    }

    fn end_all(&mut self, why: Closed, error: impl Fn() -> CallError) {
        // The first reason stays: what follows it is its consequence.
        self.closed.get_or_insert(why);
        self.deadlines.clear();
        self.stats.failed += self.pending.len() as u64;
        let waiters = self.pending.drain().map(|(_, pending)| pending.waiter);
        self.ended.extend(waiters.map(|waiter| Ended {
            result: Err(error()),
            waiter,
        }));
    }

    fn remove(&mut self, id: CallId) -> Option<Pending<W>> {
        let pending = self.pending.remove(&id)?;
        self.deadlines.remove(&(pending.deadline, id));
        Some(pending)
    }
}
