//! What a server allows, and what it promises.

use std::sync::Arc;
use std::time::Duration;

use super::Dedup;
use crate::ShortString;

/// What a server allows, and what it promises.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Policy {
    /// When to refuse requests because there are too many. `None` refuses none.
    pub admission: Option<Admission>,
    /// Where the answers to earlier requests are kept, so that one that comes again under the same
    /// method and `message_id` is answered and not run. `None` keeps none.
    pub dedup: Option<Arc<dyn Dedup>>,
    /// How often a request may run.
    pub guarantee: Guarantee,
    /// How long a request may take, from its arrival to its answer, when it sets no closer limit. A
    /// handler that awaits is stopped then; one that blocks its thread is given up.
    pub max_execution: Duration,
    /// How many services a request may have come through before this one: services that call each
    /// other in a circle end there.
    pub max_hops: u32,
    /// The longest reply body sent, in bytes.
    pub max_reply: usize,
    /// The longest request body taken, in bytes.
    pub max_request: usize,
    /// How far a caller's clock may be from ours for its deadline to be believed. Zero believes none;
    /// then only the time since the request arrived counts. Nor is any believed once all requests
    /// have been overdue by it when they came, for ten seconds: then it is our clock that is ahead.
    pub max_skew: Duration,
    /// Handlers that may be given up because they do not come back, at once: each holds a thread for
    /// as long as it likes, and another one works in its place.
    pub max_stuck: usize,
    /// How long a request runs before its caller, if it wants that, is told where to cancel it.
    pub notice_after: Duration,
    /// The queue this server consumes: a reply may never go there.
    pub own_queue: ShortString,
    /// Where requests go that may have ended a worker's process. `None` runs them like all others.
    pub quarantine: Option<Quarantine>,
}

impl Policy {
    /// The default limits, for a server of this queue.
    #[must_use]
    pub const fn new(own_queue: ShortString) -> Self {
        Self {
            admission: Some(Admission::DEFAULT),
            dedup: None,
            guarantee: Guarantee::AtLeastOnce,
            max_execution: Duration::from_secs(5 * 60),
            max_hops: 8,
            max_reply: 4 << 20,
            max_request: 1 << 20,
            max_skew: Duration::from_secs(60),
            max_stuck: 16,
            notice_after: Duration::from_millis(200),
            own_queue,
            quarantine: None,
        }
    }
}

/// How often a request may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third promise to make")]
pub enum Guarantee {
    /// Once or more: a request is acknowledged after its reply is confirmed. A worker that dies
    /// loses none, and the next one runs it again.
    #[default]
    AtLeastOnce,
    /// Once or not at all: a request is acknowledged before it runs, and one that may have been
    /// delivered before does not run. A worker that dies loses what it had begun.
    ///
    /// A request that was handed back without having begun looks like one that has: it is refused as
    /// [`Redelivered`](crate::Reason::Redelivered), and "maybe executed" is all that can be said.
    AtMostOnce,
}

/// When to refuse requests because there are too many, in the manner of CoDel: not a long queue is
/// the sign of overload, but one that stays long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Admission {
    /// Requests that have waited for over half the time they had are refused when those before them
    /// had too, for at least so long without a break.
    pub standing: Duration,
}

impl Admission {
    const DEFAULT: Self = Self {
        standing: Duration::from_millis(100),
    };
}

impl Default for Admission {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Where requests go that may have ended a worker's process, to run there one at a time.
///
/// When a process dies, all that it had taken is delivered again, and only one of these has killed
/// it. In a queue where each worker takes one at a time, the next death has one suspect.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quarantine {
    /// How often a request may have been delivered there before it is given up. It is answered
    /// [`Poison`](crate::Reason::Poison) then, and dead-lettered by its queue.
    pub limit: u32,
    /// The queue. It must count deliveries, as quorum queues do; where they are not counted, the
    /// second delivery is one too many.
    pub queue: ShortString,
}

impl Quarantine {
    /// A quarantine in this queue, for requests that were delivered there up to `limit` times.
    #[must_use]
    pub const fn new(queue: ShortString, limit: u32) -> Self {
        Self { limit, queue }
    }
}
