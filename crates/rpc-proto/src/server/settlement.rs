//! The end of a delivery: what is to go out goes out first, and only then can it be acknowledged.

use std::sync::Arc;
use std::time::Instant;

use super::Job;
use super::shared::Shared;
use super::strikes::{Struck, is_suspect};
use crate::mutants::{Mutant, is};
use crate::{AckToken, Address, ConsumerId, ErrorKind, Message, TransportError};

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

impl Settlement {
    /// The consumer that received the delivery: only its transport can settle it. None for one that
    /// needs no settling.
    #[must_use]
    pub fn consumer(&self) -> Option<ConsumerId> {
        match self {
            Self::Reply { then, .. } => then.token.as_ref().map(AckToken::consumer),
            Self::Settle(verdict) => verdict.consumer(),
        }
    }
}

/// All that is left to do when a handler has ended.
#[derive(Debug)]
#[must_use = "until they are carried out, nobody is answered and nothing is acknowledged"]
pub struct Finished {
    /// For the delivery that ran.
    pub settlement: Settlement,
    /// For further deliveries of the same request, which came while it ran: perhaps to another
    /// consumer, of a later transport.
    pub joined: Vec<Settlement>,
}

/// A delivery whose reply is on its way.
#[derive(Debug)]
#[must_use = "until the outcome of the reply is known, the request is not acknowledged"]
pub struct AfterReply {
    pub(super) shared: Arc<Shared>,
    pub(super) token: Option<AckToken>,
    pub(super) redelivered: bool,
    /// What to remember it by, should its reply end with the connection; it was delivered before.
    pub(super) struck: Option<Struck>,
    /// Dead-letter the request instead of acknowledging it.
    pub(super) discard: bool,
}

impl AfterReply {
    /// The reply was confirmed, or could not be delivered.
    ///
    /// What will fail again for this reply, wherever it is tried, ends the matter: the request is
    /// acknowledged, the reply counted as undeliverable. What may have failed for this connection
    /// only puts the request back, so that another worker answers it. A reply queue that is full, or
    /// that never confirms, is the caller's own choice, and no reason to run its request for ever: a
    /// refusal ends the matter at once, a timeout at the second delivery. Nor is one that costs a
    /// connection each time: after some times the request is not run any more ([`Verdict::GiveUp`]).
    ///
    /// A server that is not allowed to publish is at fault itself, and its requests are not to be lost
    /// over it: they go back, and before it takes any on its next transport it
    /// [tries](super::Acceptor::trial) whether it may now. Where that is so and a reply is denied all
    /// the same, it is the address, and the second delivery ends the matter.
    pub fn handle_publish(self, result: Result<(), &TransportError>) -> Verdict {
        let Shared {
            counters, strikes, ..
        } = &*self.shared;
        self.shared.note_publish(result);
        match (self.struck, result) {
            (Some(name), Err(error)) if is_suspect(error) => strikes.strike(name),
            (Some(name), Ok(())) => strikes.forgive(name),
            _ => {}
        }
        let Err(error) = result else {
            counters.replied.add();
            return self.done();
        };
        let again = match error.kind() {
            ErrorKind::Closed | ErrorKind::Connect => true,
            ErrorKind::Timeout if is(Mutant::ReplyTimeoutAcked) => false,
            ErrorKind::Blocked | ErrorKind::Denied | ErrorKind::Timeout | ErrorKind::Other => {
                !self.redelivered
            }
            ErrorKind::NoRoute => is(Mutant::RequeueForEver),
            _ => false,
        };
        if again && self.token.is_some() {
            counters.requeued.add();
            Verdict::requeue(self.token)
        } else {
            counters.undeliverable.add();
            if is(Mutant::DiscardsTheHopeless) {
                return Verdict::discard(self.token);
            }
            self.done()
        }
    }

    fn done(self) -> Verdict {
        if self.discard && !is(Mutant::PoisonAcked) {
            Verdict::discard(self.token)
        } else {
            Verdict::ack(self.token)
        }
    }
}

/// A request to pass on to the quarantine queue.
#[derive(Debug)]
#[must_use = "until it is carried out, nothing is acknowledged"]
pub struct Forward {
    /// The quarantine queue.
    pub to: Address,
    /// The request, with all that it came with.
    pub message: Message,
    /// What comes after.
    pub then: AfterForward,
}

impl Forward {
    /// Hands the request back without having passed it on, for another worker to do so: what waits for
    /// its turn when its server stops, or its connection ends, must not leave beside handlers that still
    /// run.
    pub fn hand_back(self, now: Instant) -> Settlement {
        let AfterForward(job) = self.then;
        job.hand_back(now)
    }
}

/// A request on its way to the quarantine queue.
#[derive(Debug)]
#[must_use = "until the outcome is known, the request is not acknowledged"]
pub struct AfterForward(pub(super) Box<Job>);

/// What becomes of a request that was to be passed on.
#[derive(Debug)]
#[must_use = "a delivery without its verdict is delivered again at the end"]
#[expect(clippy::exhaustive_enums, reason = "a driver must handle both")]
pub enum Forwarded {
    /// It could not be, and runs here.
    Run(Box<Job>),
    /// It is there, or is to be tried again.
    Settle(Verdict),
}

impl AfterForward {
    /// The request was confirmed in the quarantine queue, or could not be delivered there.
    ///
    /// What may have failed for this connection only puts it back. Where it will fail again, because
    /// there is no such queue for one, the request runs here: a suspect is not guilty.
    pub fn handle_publish(self, result: Result<(), &TransportError>) -> Forwarded {
        let Self(job) = self;
        let counters = &job.envelope.shared.counters;
        job.envelope.shared.note_publish(result);
        match result.map_err(TransportError::kind) {
            Ok(()) if is(Mutant::ForwardedRunsHereToo) => Forwarded::Run(job),
            Ok(()) => {
                counters.forwarded.add();
                Forwarded::Settle(Verdict::ack(job.envelope.token))
            }
            Err(ErrorKind::Timeout) if is(Mutant::ForwardTimeoutAcked) => {
                Forwarded::Settle(Verdict::ack(job.envelope.token))
            }
            Err(
                ErrorKind::Blocked
                | ErrorKind::Closed
                | ErrorKind::Connect
                | ErrorKind::Timeout
                | ErrorKind::Other,
            ) => {
                counters.requeued.add();
                Forwarded::Settle(Verdict::requeue(job.envelope.token))
            }
            Err(_) => Forwarded::Run(job),
        }
    }
}

/// How to settle a delivery.
#[derive(Debug)]
#[must_use = "a delivery without its verdict is delivered again at the end"]
#[expect(clippy::exhaustive_enums, reason = "a driver must handle all of them")]
pub enum Verdict {
    /// Done with it.
    Ack(AckToken),
    /// No worker shall have it: its queue may keep it elsewhere.
    Discard(AckToken),
    /// Done with it, although nobody was answered: each reply to it has ended the connection that it
    /// went out on. To acknowledge, and to tell the operator of.
    GiveUp(AckToken),
    /// Another worker shall have it.
    Requeue(AckToken),
    /// It was settled by being delivered, or before it ran.
    Settled,
}

impl Verdict {
    pub(super) fn ack(token: Option<AckToken>) -> Self {
        token.map_or(Self::Settled, Self::Ack)
    }

    pub(super) fn discard(token: Option<AckToken>) -> Self {
        token.map_or(Self::Settled, Self::Discard)
    }

    pub(super) fn give_up(token: Option<AckToken>) -> Self {
        token.map_or(Self::Settled, Self::GiveUp)
    }

    pub(super) fn requeue(token: Option<AckToken>) -> Self {
        token.map_or(Self::Settled, Self::Requeue)
    }

    /// The consumer that received the delivery.
    #[must_use]
    pub const fn consumer(&self) -> Option<ConsumerId> {
        match self {
            Self::Ack(token)
            | Self::Discard(token)
            | Self::GiveUp(token)
            | Self::Requeue(token) => Some(token.consumer()),
            Self::Settled => None,
        }
    }
}
