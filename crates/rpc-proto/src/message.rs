//! What travels: messages, deliveries, and the tokens that settle them.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::{Headers, ShortString};

/// A message: AMQP's basic properties as far as RPC needs them, and a body.
///
/// All fields are public because every combination is valid; what could be invalid is checked by
/// the types of the fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// The payload.
    pub body: Bytes,
    /// What the body is: a media type.
    pub content_type: Option<ShortString>,
    /// What joins a reply to its request.
    pub correlation_id: Option<ShortString>,
    /// Whether the broker keeps it over a restart, given a durable queue.
    pub delivery_mode: DeliveryMode,
    /// How long it is of use.
    pub expiration: Option<Expiration>,
    /// Everything that has no property of its own.
    pub headers: Headers,
    /// AMQP's `type`: the method of a request, or [`wire::REPLY_TYPE`](crate::wire::REPLY_TYPE).
    pub kind: Option<ShortString>,
    /// The idempotency key: equal over all attempts at one call.
    pub message_id: Option<ShortString>,
    /// The queue that awaits the reply; without one nobody does.
    pub reply_to: Option<ShortString>,
}

impl Message {
    /// A message of this body and no properties at all.
    #[must_use]
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            ..Self::default()
        }
    }
}

/// Whether a message outlives a restart of the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeliveryMode {
    /// Kept on disk, if its queue is durable.
    Persistent,
    /// Gone when the broker stops.
    #[default]
    Transient,
}

/// How long a message is of use, in whole milliseconds.
///
/// The broker drops what waited longer at the head of its queue. Built from a number only: a
/// malformed `expiration` would close the channel (406).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiration(u32);

impl Expiration {
    /// `left`, rounded up to a millisecond, at least 1 (RabbitMQ reads 0 as "now or never") and at
    /// most 49 days.
    #[must_use]
    pub fn after(left: Duration) -> Self {
        // In 64 bits: a division of 128 is a hundred instructions, and this is done for each message.
        let millis = left
            .as_secs()
            .saturating_mul(1_000)
            .saturating_add(left.subsec_nanos().div_ceil(1_000_000).into())
            .max(1);
        Self(u32::try_from(millis).unwrap_or(u32::MAX))
    }

    /// Reads the property of a delivered message; `None` when it is not a number that fits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }

    /// In milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u32 {
        self.0
    }

    /// As a duration.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0 as u64)
    }
}

/// A message as a consumer receives it.
#[derive(Debug)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// When the transport took it from the wire. What it waited since counts against its deadline.
    pub received_at: Instant,
    /// Whether the broker may have delivered it before. `false` is proof that it has not.
    pub redelivered: bool,
    /// What settles it. `None` from an inbox, whose deliveries are settled by being sent.
    pub token: Option<AckToken>,
}

/// The right to settle one delivery, once: it is moved into `ack` or `reject` and cannot be copied.
///
/// Dropped, the delivery stays unsettled and goes back to its queue when the transport closes.
#[derive(Debug, PartialEq, Eq, Hash)]
#[must_use = "an unsettled delivery is delivered again when the transport closes"]
pub struct AckToken {
    consumer: ConsumerId,
    tag: u64,
}

impl AckToken {
    /// For implementors of a transport: the delivery `tag` of `consumer`.
    pub const fn new(consumer: ConsumerId, tag: u64) -> Self {
        Self { consumer, tag }
    }

    /// The consumer that received the delivery.
    #[must_use]
    pub const fn consumer(&self) -> ConsumerId {
        self.consumer
    }

    /// The delivery's number with that consumer.
    #[must_use]
    pub const fn tag(&self) -> u64 {
        self.tag
    }
}

/// The identity of a consumer, unique in the process, so that a token of another transport or of
/// an earlier connection is told apart and never reaches the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerId(u64);

impl ConsumerId {
    /// One that no consumer in this process has had.
    #[must_use]
    pub fn unique() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl std::fmt::Display for ConsumerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiration_rounds_up_and_saturates() {
        assert_eq!(Expiration::after(Duration::ZERO).as_millis(), 1);
        assert_eq!(
            Expiration::after(Duration::from_micros(1_001)).as_millis(),
            2
        );
        assert_eq!(Expiration::after(Duration::MAX).as_millis(), u32::MAX);
        assert_eq!(Expiration::parse("5s"), None);
        assert_eq!(Expiration::parse("-5"), None);
        assert_eq!(
            Expiration::parse("250").unwrap().as_duration(),
            Duration::from_millis(250)
        );
    }
}
