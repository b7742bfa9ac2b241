//! The server steps: from a delivery to its settlement, in the one order that loses nothing.
//!
//! ```text
//!            accept                begin                    finish
//!  Delivery ────────▶ Job ────────────────▶ (Request, Running) ─────▶ Settlement
//!     │                │ expired, abandoned                              ▲
//!     └────────────────┴─────────────────────────────────────────────────┘
//!       a reply, too large, …
//!
//!  Settlement::Reply { to, message, then } ── publish ──▶ then.handle_publish(result) ──▶ Verdict
//!  Settlement::Settle ──────────────────────────────────────────────────────────────────▶ Verdict
//! ```
//!
//! The [`AckToken`] sits inside from the first step to the last. A driver cannot acknowledge before
//! the reply is out, since only [`AfterReply::handle_publish`] gives the token back, and it cannot
//! do so twice, since every step consumes the one before:
//!
//! ```compile_fail,E0382
//! # use rpc_proto::server::{AfterReply, Verdict};
//! fn twice(then: AfterReply) -> (Verdict, Verdict) {
//!     (then.handle_publish(Ok(())), then.handle_publish(Ok(())))
//! }
//! ```
//!
//! ```compile_fail,E0382
//! # use rpc_proto::server::{Ending, Running, Settlement};
//! # use std::time::Instant;
//! fn twice(running: Running, now: Instant) -> (Settlement, Settlement) {
//!     (running.finish(now, Ending::TimedOut), running.finish(now, Ending::Panicked))
//! }
//! ```
//!
//! ```compile_fail,E0277
//! # use rpc_proto::AckToken;
//! fn must_be_clone<T: Clone>() {}
//! must_be_clone::<AckToken>();
//! ```

mod counters;
mod settlement;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use self::counters::{Counters, Stats};
pub use self::settlement::{AfterReply, Settlement, Verdict};
use crate::{
    AckToken, Address, Certainty, Delivery, Expiration, Headers, Message, Reason, ShortString,
    Status, deadline_after, wire,
};

/// What a server allows.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Policy {
    /// How long a request may take, from its arrival to its answer, when it sets no closer limit. A
    /// handler that awaits is stopped then; one that blocks its thread cannot be.
    pub max_execution: Duration,
    /// The longest reply body sent, in bytes.
    pub max_reply: usize,
    /// The longest request body taken, in bytes.
    pub max_request: usize,
    /// The queue this server consumes: a reply may never go there.
    pub own_queue: ShortString,
}

impl Policy {
    /// The default limits, for a server of this queue.
    #[must_use]
    pub const fn new(own_queue: ShortString) -> Self {
        Self {
            max_execution: Duration::from_secs(5 * 60),
            max_reply: 4 << 20,
            max_request: 1 << 20,
            own_queue,
        }
    }
}

/// A request as its handler sees it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The arguments, encoded.
    pub body: Bytes,
    /// How they are encoded; plain peers may leave it out.
    pub content_type: Option<ShortString>,
    /// When the answer is of no use any more.
    pub deadline: Instant,
    /// Further headers.
    pub headers: Headers,
    /// The caller's idempotency key.
    pub message_id: Option<ShortString>,
    /// The method; without one the service's default method is meant.
    pub method: Option<ShortString>,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
}

/// What a handler answers: a result, encoded, with its content type.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    /// The result, encoded.
    pub body: Bytes,
    /// How it is encoded.
    pub content_type: Option<ShortString>,
}

/// Takes deliveries in.
#[derive(Debug)]
pub struct Acceptor {
    policy: Policy,
    counters: Arc<Counters>,
}

/// A delivery, sorted.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a driver must handle both")]
pub enum Accepted {
    /// A request to run.
    Job(Job),
    /// Something to settle without running anything.
    Settlement(Settlement),
}

impl Acceptor {
    /// An acceptor under this policy.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            counters: Arc::default(),
        }
    }

    /// What became of all deliveries so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }

    /// Sorts a delivery: a request that can run, or something to settle at once.
    ///
    /// Replies are dropped, wherever they come from, and so is a request whose answer would go to
    /// the service's own queue: either would have the service talk to itself, for ever. A body over
    /// the limit is answered without being looked at.
    #[must_use]
    pub fn accept(&self, delivery: Delivery) -> Accepted {
        let Delivery {
            message,
            received_at,
            redelivered,
            token,
        } = delivery;
        let counters = Arc::clone(&self.counters);
        counters.received.add();
        if message.kind.as_ref() == Some(&wire::REPLY_TYPE)
            || message.reply_to.as_ref() == Some(&self.policy.own_queue)
        {
            counters.discarded.add();
            return Accepted::Settlement(Settlement::Settle(Verdict::ack(token)));
        }
        let expiration = message.expiration.map(Expiration::as_duration);
        let allowed = expiration.unwrap_or(self.policy.max_execution);
        let deadline = deadline_after(received_at, allowed.min(self.policy.max_execution));
        let Message {
            body,
            content_type,
            correlation_id,
            headers,
            kind,
            message_id,
            ..
        } = message;
        let envelope = Envelope {
            counters,
            deadline,
            max_reply: self.policy.max_reply,
            redelivered,
            reply_to: message.reply_to,
            // What the caller gave to find its call by; a peer may use either.
            correlation_id: correlation_id.or_else(|| message_id.clone()),
            token,
        };
        if body.len() > self.policy.max_request {
            let said = format!(
                "a request of {} bytes, and the limit is {}",
                body.len(),
                self.policy.max_request
            );
            return Accepted::Settlement(envelope.refuse(
                received_at,
                Reason::MessageTooLarge,
                said,
            ));
        }
        let request = Request {
            body,
            content_type,
            deadline,
            headers,
            message_id,
            method: kind,
            redelivered,
        };
        Accepted::Job(Job { request, envelope })
    }
}

/// A request that waits for its turn.
#[derive(Debug)]
#[must_use = "a job that is dropped is answered to nobody, and delivered again at the end"]
pub struct Job {
    request: Request,
    envelope: Envelope,
}

impl Job {
    /// When its answer is of no use any more.
    #[must_use]
    pub const fn deadline(&self) -> Instant {
        self.request.deadline
    }

    /// Its turn has come: the request for the handler, and the job to finish with its answer.
    ///
    /// # Errors
    ///
    /// The settlement of a request whose deadline has passed while it waited: it does not run.
    #[expect(clippy::result_large_err, reason = "either way it is moved on at once")]
    pub fn begin(self, now: Instant) -> Result<(Request, Running), Settlement> {
        let Self { request, envelope } = self;
        if request.deadline <= now {
            return Err(envelope.refuse(now, Reason::Expired, EXPIRED));
        }
        Ok((request, Running { envelope }))
    }

    /// Hands the request back, unanswered, for another worker to take.
    pub fn abandon(self) -> Verdict {
        self.envelope.counters.requeued.add();
        Verdict::requeue(self.envelope.token)
    }
}

/// A request whose handler runs.
#[derive(Debug)]
#[must_use = "a running job that is dropped is answered to nobody, and delivered again at the end"]
pub struct Running {
    envelope: Envelope,
}

/// How the work on a request ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Ending {
    /// The handler answered, or the service refused the request for it.
    Answered(Result<Response, Status>),
    /// The deadline passed while the work waited for a thread: it never began.
    Expired,
    /// The handler panicked.
    Panicked,
    /// The handler was stopped at the deadline.
    TimedOut,
}

impl Running {
    /// When the answer is of no use any more, and a handler that can be stopped should be.
    #[must_use]
    pub const fn deadline(&self) -> Instant {
        self.envelope.deadline
    }

    /// The work has ended, in one way or another.
    pub fn finish(self, now: Instant, ending: Ending) -> Settlement {
        let Self { envelope } = self;
        let counters = &envelope.counters;
        let response = match ending {
            Ending::Answered(Ok(response)) => response,
            Ending::Answered(Err(status)) => {
                // The framework says it in place of a handler that did not run.
                let refused = status.certainty() == Certainty::NotExecuted;
                let counter = if refused {
                    &counters.refused
                } else {
                    &counters.failed
                };
                counter.add();
                return envelope.fail(now, status, !refused);
            }
            Ending::Expired => return envelope.refuse(now, Reason::Expired, EXPIRED),
            Ending::Panicked => {
                counters.panicked.add();
                counters.failed.add();
                // What the panic said stays in this process: it may speak of anything.
                let status = Status::framework(Reason::HandlerPanicked, "the handler panicked");
                return envelope.fail(now, status, true);
            }
            Ending::TimedOut => {
                counters.failed.add();
                let said = "the handler had not answered by the deadline";
                return envelope.fail(now, Status::framework(Reason::HandlerTimedOut, said), true);
            }
        };
        let (len, limit) = (response.body.len(), envelope.max_reply);
        if len > limit {
            counters.failed.add();
            let said = format!("a reply of {len} bytes, and the limit is {limit}");
            return envelope.fail(now, Status::framework(Reason::ReplyTooLarge, said), true);
        }
        counters.ok.add();
        let Response { body, content_type } = response;
        let message = Message {
            body,
            content_type,
            ..Message::default()
        };
        envelope.send(now, message, true)
    }
}

/// What is needed to answer and to settle.
#[derive(Debug)]
struct Envelope {
    counters: Arc<Counters>,
    deadline: Instant,
    max_reply: usize,
    redelivered: bool,
    reply_to: Option<ShortString>,
    correlation_id: Option<ShortString>,
    token: Option<AckToken>,
}

impl Envelope {
    /// Answers a request that does not run.
    fn refuse(self, now: Instant, reason: Reason, said: impl Into<String>) -> Settlement {
        self.counters.refused.add();
        self.fail(now, Status::framework(reason, said), false)
    }

    fn fail(self, now: Instant, status: Status, ran: bool) -> Settlement {
        let message = wire::encode_status(&status.of_redelivered(self.redelivered));
        self.send(now, message, ran)
    }

    fn send(self, now: Instant, mut message: Message, ran: bool) -> Settlement {
        let Self {
            counters,
            deadline,
            redelivered,
            reply_to,
            correlation_id,
            token,
            ..
        } = self;
        let Some(reply_to) = reply_to else {
            if ran {
                counters.casts.add();
            }
            return Settlement::Settle(Verdict::ack(token));
        };
        // Nobody may be left to read it, and whoever is should have a moment to do so.
        let left = deadline
            .saturating_duration_since(now)
            .max(SHORTEST_REPLY_LIFETIME);
        message.expiration = Some(Expiration::after(left));
        message.kind = Some(wire::REPLY_TYPE);
        message.correlation_id = correlation_id;
        let then = AfterReply::new(counters, token, redelivered);
        Settlement::Reply {
            to: Address::queue(reply_to),
            message,
            then,
        }
    }
}

const EXPIRED: &str = "the deadline passed before the handler could begin";

/// How long a reply stays in its queue at least.
const SHORTEST_REPLY_LIFETIME: Duration = Duration::from_secs(10);
