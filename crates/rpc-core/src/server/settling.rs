//! How a delivery is brought to its end, alike on both faces: reply, confirm, acknowledge, in this
//! order. What a face adds is how it publishes and how it acknowledges.
//!
//! Whoever has an answer sends it on its way and goes on; one settler acknowledges when the confirm
//! has come. Where it is known already, there is nothing to wait for, and it is done at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rpc_proto::server::{AfterForward, AfterReply, Forward, Forwarded, Job, Settlement, Verdict};
use rpc_proto::{AckToken, Address, LONGEST_WAIT, Message, TransportError};

use super::{AtWork, Origin, Post, Posts, Unconfirmed};
use crate::{Confirm, Fate};

/// What a server needs to settle.
pub(crate) struct Settler<T> {
    pub(crate) at_work: AtWork,
    pub(crate) posts: Posts<T>,
    /// What waits for its confirm.
    pub(crate) sent: Unconfirmed<(Then, Origin<T>)>,
    pub(crate) timeout: Duration,
}

/// What is left to do about a delivery: to acknowledge it, or to reject it.
pub(crate) enum Act {
    Ack(AckToken),
    Reject(AckToken, Fate),
}

impl Act {
    /// What a verdict asks for, which is nothing where the broker does not wait for it any more.
    pub(crate) fn of<T>(verdict: Verdict, post: &Post<T>) -> Option<Self> {
        match verdict {
            // Each would take its time, and others wait behind it.
            _ if post.is_given_up() => None,
            Verdict::Ack(token) => Some(Self::Ack(token)),
            Verdict::GiveUp(token) => {
                tracing::warn!(
                    "a request is given up: each reply to it has ended the connection it went out on"
                );
                Some(Self::Ack(token))
            }
            Verdict::Discard(token) => Some(Self::Reject(token, Fate::Discard)),
            Verdict::Requeue(token) => Some(Self::Reject(token, Fate::Requeue)),
            Verdict::Settled => None,
        }
    }
}

/// What comes after a confirm.
pub(crate) enum Then {
    Forward(AfterForward),
    Reply(AfterReply),
}

impl<T> Settler<T> {
    pub(crate) fn new(timeout: Duration) -> Self {
        let timeout = timeout.min(LONGEST_WAIT);
        Self {
            at_work: AtWork::default(),
            posts: Posts::new(),
            sent: Unconfirmed::new(timeout),
            timeout,
        }
    }
}

/// The server of a face, as far as it settles.
pub(crate) trait Settles<T>: Sized {
    fn settler(&self) -> &Settler<T>;

    /// Hands a message over, and goes on with [`await_confirm`](Self::await_confirm).
    fn publish(
        self: &Arc<Self>,
        on: Arc<T>,
        to: Address,
        message: Message,
        then: Then,
        origin: Origin<T>,
    );

    /// Settles a delivery with the broker, which is the end of it.
    fn carry_out(self: &Arc<Self>, verdict: Verdict, origin: Origin<T>);

    /// Runs a request that could not be passed on.
    fn run_here(self: &Arc<Self>, job: Job, origin: Origin<T>);

    /// Sends the reply on its way, or settles at once where there is none.
    fn settle(self: &Arc<Self>, settlement: Settlement, mut origin: Origin<T>) {
        origin.answered(&settlement);
        match settlement {
            Settlement::Reply { to, message, then } => {
                let outlet = self.settler().posts.outlet(&origin.post);
                self.publish(outlet, to, message, Then::Reply(then), origin);
            }
            Settlement::Settle(verdict) => self.carry_out(verdict, origin),
        }
    }

    /// What joined a request may have come by another transport.
    fn settle_joined(self: &Arc<Self>, joined: Vec<Settlement>) {
        for settlement in joined {
            match self.settler().posts.of(settlement.consumer()) {
                Some(post) => self.settle(settlement, Origin::joined(post)),
                // It went back with its transport.
                None => self.settler().at_work.end(),
            }
        }
    }

    /// Passes a request on to quarantine.
    fn forward(self: &Arc<Self>, forward: Forward, origin: Origin<T>) {
        let Forward { to, message, then } = forward;
        let on = Arc::clone(&origin.post.transport);
        self.publish(on, to, message, Then::Forward(then), origin);
    }

    /// A message was handed over, or could not be.
    fn await_confirm(
        self: &Arc<Self>,
        confirm: Result<Confirm, TransportError>,
        until: Instant,
        then: Then,
        origin: Origin<T>,
    ) {
        let known = match confirm {
            Ok(confirm) => self.settler().sent.push(confirm, until, (then, origin)),
            Err(error) => Some((Err(error), (then, origin))),
        };
        if let Some((confirmed, (then, origin))) = known {
            self.confirmed(confirmed, then, origin);
        }
    }

    /// A message was confirmed, or will not be.
    fn confirmed(
        self: &Arc<Self>,
        confirmed: Result<(), TransportError>,
        then: Then,
        mut origin: Origin<T>,
    ) {
        if let Err(error) = &confirmed {
            tracing::debug!(%error, "a message could not be delivered");
        }
        let confirmed = confirmed.as_ref().map(|&()| ());
        match then {
            Then::Reply(then) => self.carry_out(then.handle_publish(confirmed), origin),
            Then::Forward(then) => match then.handle_publish(confirmed) {
                Forwarded::Settle(verdict) => {
                    // What is passed on is not done with.
                    origin.told = None;
                    self.carry_out(verdict, origin);
                }
                Forwarded::Run(job) => {
                    origin.turn = None;
                    self.run_here(*job, origin);
                }
            },
        }
    }
}
