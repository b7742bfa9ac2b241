//! How the blocking server publishes and acknowledges: in the thread that has something to say.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use rpc_proto::server::{Job, Verdict};
use rpc_proto::{AckToken, Address, Message, TransportError, deadline_after};

use super::Transport;
use super::supervise::begin_to_close;
use super::worker::{Task, Worker};
use crate::server::{Act, Origin, Post, Settler, Settles, Then, Waiting, reply_limit};
use crate::{Service, park};

impl<T: Transport, S: Service> Settles<T> for Worker<T, S> {
    fn settler(&self) -> &Settler<T> {
        &self.settler
    }

    fn publish(
        self: &Arc<Self>,
        on: Arc<T>,
        to: Address,
        message: Message,
        then: Then,
        origin: Origin<T>,
    ) {
        let limit = reply_limit(self.settler.timeout, on.is_blocked(), &message);
        let until = deadline_after(Instant::now(), limit);
        let confirm = on.publish(&to, message, until);
        self.await_confirm(confirm, until, then, origin);
    }

    fn carry_out(self: &Arc<Self>, verdict: Verdict, origin: Origin<T>) {
        let post = &origin.post;
        let transport = &post.transport;
        let settled = match Act::of(verdict, post) {
            Some(Act::Ack(token)) => transport.ack(token),
            Some(Act::Reject(token, fate)) => transport.reject(token, fate),
            None => Ok(()),
        };
        note(post, settled.as_ref().map(|&()| ()));
        self.settler.at_work.end();
        origin.settled();
    }

    /// It waits for a worker like all others.
    fn run_here(self: &Arc<Self>, job: Job, origin: Origin<T>) {
        if let Err((Task::Run(job), origin)) = self.accepted.push((Task::Run(job), origin)) {
            self.settle(job.hand_back(Instant::now()), origin);
        }
    }
}

impl<T: Transport, S: Service> Worker<T, S> {
    /// Acknowledges what is confirmed, as long as the server lives.
    pub(super) fn settle_all(self: &Arc<Self>) {
        let mut waiting = Waiting::default();
        let sent = &self.settler.sent;
        while let Some(until) = sent.look(&mut waiting, |confirmed, (then, origin)| {
            self.confirmed(confirmed, then, origin);
        }) {
            park::block_on_until(pin!(sent.rung()), until);
        }
    }

    /// Acknowledges before the request runs.
    pub(super) fn ack_first(&self, token: AckToken, post: &Post<T>) -> Result<(), TransportError> {
        let acked = post.transport.ack(token);
        note(post, acked.as_ref().map(|&()| ()));
        acked
    }
}

/// How it went to settle a delivery. A transport that is given up is closed, which wakes the threads
/// that receive from it.
fn note<T: Transport>(post: &Post<T>, settled: Result<(), &TransportError>) {
    if post.handle_settled(settled) {
        drop(begin_to_close(&post.transport));
    }
}
