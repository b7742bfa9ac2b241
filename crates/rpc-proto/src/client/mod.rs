//! The client machine: the table of open calls, and how each of them ends; and what may be tried
//! again of what has ended badly.
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
//! nothing but a counter. What is called a call in [`Calls`] is one attempt at it; [`Attempts`] puts
//! several of them together.

mod calls;
mod check;
mod error;
mod notices;
mod retry;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use bytes::Bytes;

pub use self::calls::Calls;
pub use self::check::{Check, Checked};
pub use self::error::CallError;
pub use self::retry::{Attempts, Budget, Next, RetryPolicy};
use crate::wire::Reply;
use crate::{CallId, DeliveryMode, Headers, LONGEST_WAIT, ShortString};

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

/// One attempt at a call: what its request says besides what is asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// Its identity: random, and new for each attempt.
    pub id: CallId,
    /// When it is of no use any more: that of the call, whichever attempt this is.
    pub deadline: Instant,
    /// How many services the call has come through.
    pub hops: u32,
    /// What all attempts at one call have in common; without one, the identity of this one.
    pub message_id: Option<ShortString>,
    /// Which attempt it is, from 1.
    pub number: u32,
    /// The time of day in milliseconds of Unix time, for a service whose clock agrees. A hint.
    pub unix_ms: Option<u64>,
}

impl Attempt {
    /// The first attempt at a call, which has come through no other service.
    #[must_use]
    pub const fn new(id: CallId, deadline: Instant) -> Self {
        Self {
            id,
            deadline,
            hops: 0,
            message_id: None,
            number: 1,
            unix_ms: None,
        }
    }
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

/// What became of all attempts so far, that is, of all that [`Calls`] has opened. A call that was not
/// tried again is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Taken back by a caller that has gone, with the answer still open.
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
