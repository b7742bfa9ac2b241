//! What the verbs of a transport are told: which queue, how much at once, what becomes of it.

use std::num::NonZeroU16;

use rpc_proto::TooLong;

use crate::ShortString;

/// A work queue as it should be.
///
/// [`new`](Self::new) and [`durable`](Self::durable) make plain ones, which agree with what any
/// script declares; [`quorum`](Self::quorum) comes with limits and a place for dead letters.
///
/// ```
/// use rpc_core::{QueueSpec, ShortString};
///
/// let name = ShortString::from_static("numbers");
/// let queue = QueueSpec::quorum(name).with_max_length(10_000);
/// let dead = queue.dead_letter_queue()?.expect("quorum queues have one");
/// assert_eq!(dead.name, "numbers.dead");
/// # Ok::<(), rpc_core::Misdeclared>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueSpec {
    /// Its name.
    pub name: ShortString,
    /// What it survives.
    pub kind: QueueKind,
    delivery_limit: Option<u32>,
    max_length: Option<u32>,
    keeps_newest: bool,
    dead_letters: Option<DeadLetters>,
    dead_length: u32,
}

/// Where dead letters go.
#[derive(Clone, Debug, PartialEq, Eq)]
enum DeadLetters {
    /// To the queue of this name with [`QueueSpec::DEAD`] behind it.
    Own,
    To(ShortString),
}

impl QueueSpec {
    /// How often a [quorum](Self::quorum) queue delivers a message again.
    pub const DELIVERY_LIMIT: u32 = 20;

    /// How many messages wait in a [quorum](Self::quorum) queue at most.
    pub const MAX_LENGTH: u32 = 100_000;

    /// How many dead letters are kept: the newest.
    pub const DEAD_LENGTH: u32 = 10_000;

    /// How the name of the queue for dead letters ends.
    pub const DEAD: &str = ".dead";

    /// The queue of this name and kind, with nothing else to it.
    #[must_use]
    pub const fn new(name: ShortString, kind: QueueKind) -> Self {
        Self {
            name,
            kind,
            delivery_limit: None,
            max_length: None,
            keeps_newest: false,
            dead_letters: None,
            dead_length: Self::DEAD_LENGTH,
        }
    }

    /// A plain queue that survives a restart of the broker: what a script means by
    /// `queue_declare(name, durable=True)`.
    #[must_use]
    pub const fn durable(name: ShortString) -> Self {
        Self::new(name, QueueKind::Durable)
    }

    /// A queue that survives the loss of a node, and whose broker counts how often a message was
    /// delivered: at most [`DELIVERY_LIMIT`](Self::DELIVERY_LIMIT) times again, then it is a dead
    /// letter. It refuses messages when [`MAX_LENGTH`](Self::MAX_LENGTH) wait in it.
    #[must_use]
    pub const fn quorum(name: ShortString) -> Self {
        Self {
            name,
            kind: QueueKind::Quorum,
            delivery_limit: Some(Self::DELIVERY_LIMIT),
            max_length: Some(Self::MAX_LENGTH),
            keeps_newest: false,
            dead_letters: Some(DeadLetters::Own),
            dead_length: Self::DEAD_LENGTH,
        }
    }

    /// A queue that goes with its last consumer.
    #[must_use]
    pub const fn transient(name: ShortString) -> Self {
        Self::new(name, QueueKind::Transient)
    }

    /// Makes a message a dead letter that was delivered `limit` times again and would be once more.
    /// For [`QueueKind::Quorum`], the one kind that counts.
    #[must_use]
    pub const fn with_delivery_limit(mut self, limit: u32) -> Self {
        self.delivery_limit = Some(limit);
        self
    }

    /// Refuses what is published while `length` messages wait. What consumers hold does not count.
    #[must_use]
    pub const fn with_max_length(mut self, length: u32) -> Self {
        self.max_length = Some(length);
        self.keeps_newest = false;
        self
    }

    /// Keeps the newest `length` messages: what is published to a full queue drops its oldest.
    #[must_use]
    pub const fn with_newest(mut self, length: u32) -> Self {
        self.max_length = Some(length);
        self.keeps_newest = true;
        self
    }

    /// Keeps what is discarded, expires or is over the delivery limit in a queue of its own: the
    /// name of this one with `.dead` behind it, declared together with it, [quorum](QueueKind::Quorum)
    /// like it or else durable.
    ///
    /// That queue keeps the newest [`DEAD_LENGTH`](Self::DEAD_LENGTH), so that one that nobody looks at
    /// does not fill the broker. Their headers say why they are there: `x-first-death-reason`, and
    /// `x-first-death-queue`.
    #[must_use]
    pub fn with_dead_letter(mut self) -> Self {
        self.dead_letters = Some(DeadLetters::Own);
        self
    }

    /// As [`with_dead_letter`](Self::with_dead_letter), in a queue of that name: several queues may
    /// share one.
    #[must_use]
    pub fn with_dead_letter_to(mut self, name: ShortString) -> Self {
        self.dead_letters = Some(DeadLetters::To(name));
        self
    }

    /// Keeps the newest `length` dead letters. Queues that share a place for them must agree.
    #[must_use]
    pub const fn with_dead_letters_kept(mut self, length: u32) -> Self {
        self.dead_length = length;
        self
    }

    /// Drops what would be a dead letter.
    #[must_use]
    pub fn without_dead_letter(mut self) -> Self {
        self.dead_letters = None;
        self
    }

    /// How often a message is delivered again, if that is limited.
    #[must_use]
    pub const fn delivery_limit(&self) -> Option<u32> {
        self.delivery_limit
    }

    /// How many messages wait at most, if that is limited.
    #[must_use]
    pub const fn max_length(&self) -> Option<u32> {
        self.max_length
    }

    /// Whether a full queue drops its oldest message, and does not refuse the newest.
    #[must_use]
    pub const fn keeps_newest(&self) -> bool {
        self.keeps_newest
    }

    /// Whether there is a queue for its dead letters.
    #[must_use]
    pub const fn has_dead_letters(&self) -> bool {
        self.dead_letters.is_some()
    }

    /// Whether there is nothing to it but name and kind.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.delivery_limit.is_none() && self.max_length.is_none() && self.dead_letters.is_none()
    }

    /// The queue for its dead letters, to be declared before it; `None` when they are dropped, and
    /// for [`QueueKind::Passive`], which declares nothing.
    ///
    /// # Errors
    ///
    /// [`Misdeclared::NoName`] and [`Misdeclared::LongName`] for a name that cannot be.
    pub fn dead_letter_queue(&self) -> Result<Option<Self>, Misdeclared> {
        let name = match &self.dead_letters {
            _ if self.kind == QueueKind::Passive => return Ok(None),
            None => return Ok(None),
            Some(DeadLetters::To(name)) => name.clone(),
            Some(DeadLetters::Own) => ShortString::new(format!("{}{}", self.name, Self::DEAD))?,
        };
        if name.is_empty() {
            return Err(Misdeclared::NoName);
        }
        let kind = match self.kind {
            QueueKind::Quorum => QueueKind::Quorum,
            _ => QueueKind::Durable,
        };
        Ok(Some(Self::new(name, kind).with_newest(self.dead_length)))
    }

    /// For implementors of a transport: refuses what no broker can declare.
    ///
    /// # Errors
    ///
    /// What is wrong with it, which is a [`Misuse`](crate::ErrorKind::Misuse).
    pub fn check(&self) -> Result<(), Misdeclared> {
        if self.name.is_empty() {
            return Err(Misdeclared::NoName);
        }
        if self.delivery_limit.is_some()
            && !matches!(self.kind, QueueKind::Quorum | QueueKind::Passive)
        {
            return Err(Misdeclared::NotCounted);
        }
        self.dead_letter_queue().map(drop)
    }
}

/// Why a queue cannot be declared, whatever the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misdeclared {
    /// The name of the queue for its dead letters is too long.
    #[error("the name of the queue for dead letters is too long")]
    LongName(#[from] TooLong),
    /// It has no name, and a broker would name it itself.
    #[error("a queue needs a name")]
    NoName,
    /// It has a delivery limit, and is of a kind that does not count deliveries.
    #[error("only a quorum queue counts deliveries")]
    NotCounted,
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
    /// The loss of a minority of the nodes of a cluster. It counts how often it delivered a message:
    /// the header `x-delivery-count` of a message that comes again has the number, of times before.
    Quorum,
    /// Nothing: gone with its last consumer, or when a minute has passed without one. After a crash
    /// of the broker it may be there for that minute.
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
