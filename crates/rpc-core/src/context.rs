//! What a handler knows of the request besides its arguments.

use std::time::{Duration, Instant};

use rpc_proto::server::Request;
use rpc_proto::wire::TRACEPARENT;
use rpc_proto::{Cancellation, HeaderValue, Headers, ShortString};

/// What a handler knows of the request besides its arguments.
///
/// A handler that calls other services hands it on, so that their work ends with its own.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Context {
    /// Which attempt of its call this is, from 1.
    pub attempt: u32,
    /// Cancelled when nobody awaits the answer any more: the caller has given up, or the deadline
    /// has passed.
    pub cancellation: Cancellation,
    /// When the answer is of no use any more.
    pub deadline: Instant,
    /// The headers of the request.
    pub headers: Headers,
    /// How many services it has come through before this one.
    pub hops: u32,
    /// The caller's idempotency key: equal over all attempts.
    pub message_id: Option<ShortString>,
    /// The method, as the caller named it.
    pub method: Option<ShortString>,
    /// Whether it may have been delivered, and have run, before.
    pub redelivered: bool,
}

impl Context {
    /// That of a request.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        Self {
            attempt: request.attempt,
            cancellation: request.cancellation.clone(),
            deadline: request.deadline,
            headers: request.headers.clone(),
            hops: request.hops,
            message_id: request.message_id.clone(),
            method: request.method.clone(),
            redelivered: request.redelivered,
        }
    }

    /// The time that is left; zero when the deadline has passed.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Whether nobody awaits the answer any more: for handlers that compute, to look at now and then.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancellation.is_cancelled() || self.remaining().is_zero()
    }

    /// The trace that the request belongs to, as the W3C defines it.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.headers.get(TRACEPARENT).and_then(HeaderValue::as_text)
    }
}
