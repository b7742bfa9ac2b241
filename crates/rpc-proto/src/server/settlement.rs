//! The end of a delivery: the reply goes out first, and only then can it be acknowledged.

use std::sync::Arc;

use super::Counters;
use crate::{AckToken, Address, ErrorKind, Message, TransportError};

/// What is left to do for a delivery.
#[derive(Debug)]
#[must_use = "until it is carried out, nobody is answered and nothing is acknowledged"]
#[expect(clippy::exhaustive_enums, reason = "a driver must handle both")]
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart at once, and a box costs a call"
)]
pub enum Settlement {
    /// Publish `message` to `to`, wait for the confirm, and tell `then` how it went.
    Reply {
        /// The caller's reply address.
        to: Address,
        /// The reply.
        message: Message,
        /// What comes after.
        then: AfterReply,
    },
    /// Nobody awaits a reply.
    Settle(Verdict),
}

/// A delivery whose reply is on its way.
#[derive(Debug)]
#[must_use = "until the outcome of the reply is known, the request is not acknowledged"]
pub struct AfterReply {
    counters: Arc<Counters>,
    token: Option<AckToken>,
    redelivered: bool,
}

impl AfterReply {
    pub(super) const fn new(
        counters: Arc<Counters>,
        token: Option<AckToken>,
        redelivered: bool,
    ) -> Self {
        Self {
            counters,
            token,
            redelivered,
        }
    }

    /// The reply was confirmed, or could not be delivered.
    ///
    /// What will fail again for this reply, wherever it is tried, ends the matter: the request is
    /// acknowledged, the reply counted as undeliverable. What may have failed for this connection
    /// only puts the request back, so that another worker answers it. A reply queue that is full, or
    /// that never confirms, is the caller's own choice, and no reason to run its request for ever: a
    /// refusal ends the matter at once, a timeout at the second delivery.
    pub fn handle_publish(self, result: Result<(), &TransportError>) -> Verdict {
        let Err(error) = result else {
            self.counters.replied.add();
            return Verdict::ack(self.token);
        };
        let again = match error.kind() {
            ErrorKind::Closed | ErrorKind::Connect => true,
            ErrorKind::Timeout | ErrorKind::Other => !self.redelivered,
            _ => false,
        };
        if again {
            self.counters.requeued.add();
            Verdict::requeue(self.token)
        } else {
            self.counters.undeliverable.add();
            Verdict::ack(self.token)
        }
    }
}

/// How to settle a delivery.
#[derive(Debug)]
#[must_use = "a delivery without its verdict is delivered again at the end"]
#[expect(clippy::exhaustive_enums, reason = "a driver must handle all three")]
pub enum Verdict {
    /// Done with it.
    Ack(AckToken),
    /// Another worker shall have it.
    Requeue(AckToken),
    /// It was settled by being delivered.
    Settled,
}

impl Verdict {
    pub(super) fn ack(token: Option<AckToken>) -> Self {
        token.map_or(Self::Settled, Self::Ack)
    }

    pub(super) fn requeue(token: Option<AckToken>) -> Self {
        token.map_or(Self::Settled, Self::Requeue)
    }
}
