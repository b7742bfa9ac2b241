//! The server steps: from a delivery to its settlement, in the one order that loses nothing.
//!
//! ```text
//!            accept                begin                    finish
//!  Delivery ────────▶ Job ────────────────▶ (Request, Running) ─────▶ Settlement, and those of
//!     │                │ expired, shed, handed back, …                  ▲     deliveries that joined
//!     └────────────────┴────────────────────────────────────────────────┘
//!       a reply, too large, answered before, …
//!
//!  Settlement::Reply { to, message, then } ── publish ──▶ then.handle_publish(result) ──▶ Verdict
//!  Settlement::Settle ──────────────────────────────────────────────────────────────────▶ Verdict
//!  Accepted::Forward, to quarantine: the same as a reply
//!  Begun::AckFirst, at most once: ── ack ──▶ then.handle_ack(result) ──▶ (Request, Running)
//! ```
//!
//! The [`AckToken`](crate::AckToken) sits inside from the first step to the last. A driver cannot
//! acknowledge before the reply is out, since only [`AfterReply::handle_publish`] gives the token
//! back, and it cannot do so twice, since every step consumes the one before:
//!
//! ```compile_fail,E0382
//! # use rpc_proto::server::{AfterReply, Verdict};
//! fn twice(then: AfterReply) -> (Verdict, Verdict) {
//!     (then.handle_publish(Ok(())), then.handle_publish(Ok(())))
//! }
//! ```
//!
//! ```compile_fail,E0382
//! # use rpc_proto::server::{Ending, Finished, Running};
//! # use std::time::Instant;
//! fn twice(running: Running, now: Instant) -> (Finished, Finished) {
//!     (running.finish(now, Ending::TimedOut), running.finish(now, Ending::Panicked))
//! }
//! ```
//!
//! ```compile_fail,E0277
//! # use rpc_proto::AckToken;
//! fn must_be_clone<T: Clone>() {}
//! must_be_clone::<AckToken>();
//! ```

mod acceptor;
mod admission;
mod cancels;
mod clock;
mod counters;
mod dedup;
mod doubt;
mod envelope;
mod intake;
mod isolation;
mod job;
mod policy;
mod running;
mod settlement;
mod shared;
mod strikes;
#[cfg(test)]
mod tests;
mod timing;
mod trial;

use std::time::Instant;

use bytes::Bytes;

pub use self::acceptor::{Accepted, Acceptor, GivenUp, Lane};
pub use self::clock::Due;
pub use self::counters::{Counters, Stats};
pub use self::dedup::{Dedup, DedupKey, DedupLimits, Digest, Kept, MemoryDedup};
pub use self::intake::Intake;
pub use self::isolation::{Changed, Part, Turn};
pub use self::job::{AfterAck, Begun, Job};
pub use self::policy::{Admission, Guarantee, Policy, Quarantine};
pub use self::running::{Ending, Running};
pub use self::settlement::{
    AfterForward, AfterReply, Finished, Forward, Forwarded, Settlement, Verdict,
};
pub use self::trial::Trial;
use crate::{Cancellation, Headers, ShortString, Status};

/// A request as its handler sees it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which attempt of its call this is, from 1.
    pub attempt: u32,
    /// The arguments, encoded.
    pub body: Bytes,
    /// Cancelled when nobody awaits the answer any more: the caller has given up, or the deadline
    /// has passed.
    pub cancellation: Cancellation,
    /// How they are encoded; plain peers may leave it out.
    pub content_type: Option<ShortString>,
    /// When the answer is of no use any more.
    pub deadline: Instant,
    /// Further headers.
    pub headers: Headers,
    /// How many services it has come through before this one.
    pub hops: u32,
    /// The caller's idempotency key.
    pub message_id: Option<ShortString>,
    /// The method; without one the service's default method is meant.
    pub method: Option<ShortString>,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
}

impl Request {
    /// A request of these arguments and nothing else, due at `deadline`.
    #[must_use]
    pub fn new(body: impl Into<Bytes>, deadline: Instant) -> Self {
        Self {
            attempt: 1,
            body: body.into(),
            cancellation: Cancellation::new(),
            content_type: None,
            deadline,
            headers: Headers::new(),
            hops: 0,
            message_id: None,
            method: None,
            redelivered: false,
        }
    }
}

/// What a handler answers: a result, encoded, with its content type.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    /// The result, encoded.
    pub body: Bytes,
    /// How it is encoded.
    pub content_type: Option<ShortString>,
}

/// What a handler says in the end.
pub type Answer = Result<Response, Status>;
