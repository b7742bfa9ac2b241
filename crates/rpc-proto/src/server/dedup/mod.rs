//! Answers that are kept, so that a request that comes again is answered and not run.
//!
//! Two deliveries are of one request when method and `message_id` are equal: attempts at one call
//! share them, and so does a redelivery. While it runs, further deliveries join it; when it has
//! ended, the store answers them. What is kept is only what a handler answered: a request that was
//! refused may be tried again.

mod memory;
mod running;

use std::fmt;
use std::time::Instant;

use bytes::Bytes;

pub use self::memory::{DedupLimits, MemoryDedup};
pub(super) use self::running::{Claim, Duplicates, Entry};
use crate::{Headers, ShortString};

/// What makes two deliveries one request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct DedupKey {
    /// The method; none for the service's default one.
    pub method: Option<ShortString>,
    /// The caller's idempotency key.
    pub message_id: ShortString,
}

/// An answer as it is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// The payload.
    pub body: Bytes,
    /// What the payload is.
    pub content_type: Option<ShortString>,
    /// What an error says of itself.
    pub headers: Headers,
}

/// A store of answers.
///
/// It is asked and told on the thread that takes requests in, so it must answer at once, from memory
/// as a rule: [`MemoryDedup`] does. Workers that share a store answer each other's requests; that two
/// of them run one request at the same time, no store can prevent.
pub trait Dedup: fmt::Debug + Send + Sync + 'static {
    /// The answer to this request, if one is kept.
    fn find(&self, key: &DedupKey, now: Instant) -> Option<Kept>;

    /// Keeps an answer for a while; what there is no room for is forgotten.
    fn keep(&self, key: DedupKey, answer: Kept, now: Instant);
}
