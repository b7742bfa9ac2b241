//! Answers that are kept, so that a request that comes again is answered and not run.
//!
//! Two deliveries are of one request when method and `message_id` are equal: attempts at one call
//! share them, and so does a redelivery. While it runs, further deliveries join it; when it has
//! ended, the store answers them. Body and content type are then equal, too: another request under
//! the key is refused, rather than given an answer that is none to it.
//!
//! An answer is kept once the handler has begun, however it ended: with a result, an error, a panic
//! or at its deadline. That it does not run twice is the whole promise, and nobody knows what one
//! that panicked or was stopped has done by then; its caller is told "executed", and takes a new key
//! if it is to run again. Not kept is what did not run, and what was stopped because its caller gave
//! up: nobody was answered, and whoever comes again wants an answer.

mod digest;
mod memory;
mod running;

use std::fmt;
use std::time::Instant;

use bytes::Bytes;

pub use self::digest::Digest;
pub use self::memory::{DedupLimits, MemoryDedup};
pub(super) use self::running::{Claim, Duplicates, Entry, Identity};
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
    /// The request that it answers.
    pub request: Digest,
}

/// A store of answers.
///
/// It must answer at once, from memory as a rule, as [`MemoryDedup`] does. A request is looked up
/// twice: when it comes, on the thread that takes requests in, and when it has its turn. That second
/// time others wait, since it is under the lock of all requests that run: so no other delivery of it
/// can begin in between. Workers that share a store answer each other's requests; that two of them
/// run one request at the same time, no store can prevent.
pub trait Dedup: fmt::Debug + Send + Sync + 'static {
    /// The answer to this request, if one is kept.
    fn find(&self, key: &DedupKey, now: Instant) -> Option<Kept>;

    /// Keeps an answer for a while; what there is no room for is forgotten.
    fn keep(&self, key: DedupKey, answer: Kept, now: Instant);
}
