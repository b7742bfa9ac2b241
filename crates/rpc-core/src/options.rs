//! What the verbs of a transport are told: which queue, how much at once, what becomes of it.

use std::num::NonZeroU16;

use crate::ShortString;

/// A work queue as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueSpec {
    /// Its name.
    pub name: ShortString,
    /// What it survives.
    pub kind: QueueKind,
}

impl QueueSpec {
    /// The queue of this name and kind.
    #[must_use]
    pub const fn new(name: ShortString, kind: QueueKind) -> Self {
        Self { name, kind }
    }
}

/// What a work queue survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueKind {
    /// A restart of the broker, together with the persistent messages in it.
    #[default]
    Durable,
    /// Nothing is declared; the queue must be there.
    Passive,
    /// The loss of a minority of the nodes of a cluster.
    Quorum,
    /// Nothing: gone with the broker, or with its last consumer. RabbitMQ refuses it from 4.3 on.
    Transient,
}

/// Where a consumer receives from, and how much at once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumeOptions {
    /// The queue.
    pub source: Source,
    /// How many unsettled deliveries the consumer holds at most. "No limit" cannot be said: client
    /// libraries buffer what the broker sends, without a bound of their own.
    pub prefetch: NonZeroU16,
}

impl ConsumeOptions {
    /// From the shared work queue of this name.
    #[must_use]
    pub const fn queue(name: ShortString, prefetch: NonZeroU16) -> Self {
        Self {
            source: Source::Queue(name),
            prefetch,
        }
    }

    /// From a private inbox.
    #[must_use]
    pub const fn inbox(inbox: Inbox) -> Self {
        Self {
            source: Source::Inbox(inbox),
            prefetch: NonZeroU16::MAX,
        }
    }
}

/// The kinds of queue one can receive from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A private queue, made for this consumer. Deliveries need no settling.
    Inbox(Inbox),
    /// A shared queue. Each delivery must be settled.
    Queue(ShortString),
}

/// How replies come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inbox {
    /// RabbitMQ's direct reply-to: no queue at all, and replies that cannot be delivered vanish.
    /// Refused on versions where an address that is no longer valid costs the *responder* its
    /// connection (3.10.0 to 3.10.11, 3.11.0 to 3.11.3).
    Direct,
    /// A queue of a name made by the broker, exclusive to the connection and gone with it.
    #[default]
    Exclusive,
}

/// What becomes of a delivery that is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// Dropped, or dead-lettered where its queue says so.
    Discard,
    /// Back into its queue.
    Requeue,
}
