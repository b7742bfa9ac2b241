//! How the blocking server settles: reply, confirm, acknowledge, in this order.
//!
//! Whoever has an answer sends it on its way; the settler's thread acknowledges when the confirm has
//! come. Where it is known already, there is nothing to wait for, and it is done at once.

use std::time::Instant;

use rpc_proto::server::{AfterForward, AfterReply, Forwarded, Job, Settlement, Verdict};
use rpc_proto::{AckToken, TransportError, deadline_after};

use super::Transport;
use super::supervise::begin_to_close;
use super::worker::{Task, Worker};
use crate::server::{Origin, Post, reply_limit, warn_of_given_up};
use crate::{Confirm, Fate, Service};

/// What comes after a confirm.
pub(super) enum Then {
    Forward(AfterForward),
    Reply(AfterReply),
}

impl<T: Transport, S: Service> Worker<T, S> {
    /// Sends the reply on its way, or settles at once where there is none.
    pub(super) fn settle(&self, settlement: Settlement, mut origin: Origin<T>) {
        origin.answered(&settlement);
        match settlement {
            Settlement::Reply { to, message, then } => {
                let outlet = self.posts.outlet(&origin.post);
                let limit = reply_limit(self.settle_timeout, outlet.is_blocked(), &message);
                let until = deadline_after(Instant::now(), limit);
                let confirm = outlet.publish(&to, message, until);
                self.await_confirm(confirm, until, Then::Reply(then), origin);
            }
            Settlement::Settle(verdict) => {
                self.carry_out(verdict, &origin.post);
                origin.settled();
            }
        }
    }

    /// What joined a request may have come by another transport.
    pub(super) fn settle_joined(&self, joined: Vec<Settlement>) {
        for settlement in joined {
            match self.posts.of(settlement.consumer()) {
                Some(post) => self.settle(settlement, Origin::joined(post)),
                // It went back with its transport.
                None => self.at_work.end(),
            }
        }
    }

    pub(super) fn await_confirm(
        &self,
        confirm: Result<Confirm, TransportError>,
        until: Instant,
        then: Then,
        origin: Origin<T>,
    ) {
        let known = match confirm {
            Ok(confirm) => self.sent.push(confirm, until, (then, origin)),
            Err(error) => Some((Err(error), (then, origin))),
        };
        if let Some((confirmed, (then, origin))) = known {
            self.confirmed(confirmed.as_ref().map(|&()| ()), then, origin);
        }
    }

    /// Acknowledges what is confirmed, as long as the server lives.
    pub(super) fn settle_all(&self) {
        self.sent.settle_all(|confirmed, (then, origin)| {
            self.confirmed(confirmed.as_ref().map(|&()| ()), then, origin);
        });
    }

    fn confirmed(&self, confirmed: Result<(), &TransportError>, then: Then, origin: Origin<T>) {
        if let Err(error) = confirmed {
            tracing::debug!(%error, "a message could not be delivered");
        }
        let verdict = match then {
            Then::Reply(then) => {
                let verdict = then.handle_publish(confirmed);
                self.carry_out(verdict, &origin.post);
                return origin.settled();
            }
            Then::Forward(then) => match then.handle_publish(confirmed) {
                Forwarded::Settle(verdict) => verdict,
                Forwarded::Run(job) => return self.run_here(*job, origin),
            },
        };
        // What is passed on is not done with.
        self.carry_out(verdict, &origin.post);
    }

    /// A request that could not be passed on to quarantine waits for a worker like all others.
    fn run_here(&self, job: Job, mut origin: Origin<T>) {
        origin.turn = None;
        if let Err((Task::Run(job), origin)) = self.accepted.push((Task::Run(job), origin)) {
            self.settle(job.hand_back(Instant::now()), origin);
        }
    }

    /// Acknowledges before the request runs.
    pub(super) fn ack_first(&self, token: AckToken, post: &Post<T>) -> Result<(), TransportError> {
        let acked = post.transport.ack(token);
        note(post, acked.as_ref().map(|&()| ()));
        acked
    }

    fn carry_out(&self, verdict: Verdict, post: &Post<T>) {
        let transport = &post.transport;
        let settled = match verdict {
            // Each would take its time, and others wait behind it.
            _ if post.is_given_up() => Ok(()),
            Verdict::Ack(token) => transport.ack(token),
            Verdict::Discard(token) => transport.reject(token, Fate::Discard),
            Verdict::GiveUp(token) => {
                warn_of_given_up();
                transport.ack(token)
            }
            Verdict::Requeue(token) => transport.reject(token, Fate::Requeue),
            Verdict::Settled => Ok(()),
        };
        note(post, settled.as_ref().map(|&()| ()));
        self.at_work.end();
    }
}

/// How it went to settle a delivery. A transport that is given up is closed, which wakes the threads
/// that receive from it.
fn note<T: Transport>(post: &Post<T>, settled: Result<(), &TransportError>) {
    if post.handle_settled(settled) {
        drop(begin_to_close(&post.transport));
    }
}
