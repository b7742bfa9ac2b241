//! How the async server settles: reply, confirm, acknowledge, in this order.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rpc_proto::server::{Settlement, Verdict};
use rpc_proto::{AckToken, Address, ErrorKind, Message, TransportError, deadline_after};
use tokio::time::timeout;

use super::worker::Worker;
use super::{Origin, Post, reply_limit, warn_of_given_up};
use crate::link::CLOSE_LIMIT;
use crate::{Fate, Service, Transport};

impl<T: Transport, S: Service> Worker<T, S> {
    /// What joined a request may have come by another transport, and waits for that one's confirms.
    pub(super) fn settle_joined(self: &Arc<Self>, joined: Vec<Settlement>) {
        for settlement in joined {
            match self.posts.of(settlement.consumer()) {
                Some(post) => {
                    let worker = Arc::clone(self);
                    let origin = Origin::joined(post);
                    self.spawn(async move { worker.settle(settlement, origin).await });
                }
                // It went back with its transport.
                None => self.at_work.end(),
            }
        }
    }

    /// Reply, confirm, acknowledge, in this order.
    pub(super) async fn settle(&self, settlement: Settlement, mut origin: Origin<T>) {
        origin.answered(&settlement);
        let verdict = match settlement {
            Settlement::Reply { to, message, then } => {
                let sent = self
                    .send(&self.posts.outlet(&origin.post), &to, message)
                    .await;
                if let Err(error) = &sent {
                    tracing::debug!(%error, "a reply could not be delivered");
                }
                then.handle_publish(sent.as_ref().map(|&()| ()))
            }
            Settlement::Settle(verdict) => verdict,
        };
        self.carry_out(verdict, &origin.post).await;
        origin.settled();
    }

    /// Acknowledges before the request runs.
    pub(super) async fn ack_first(
        &self,
        token: AckToken,
        post: &Arc<Post<T>>,
    ) -> Result<(), TransportError> {
        let acked = bounded("ack", self.settle_timeout, post.transport.ack(token)).await;
        note(post, acked.as_ref().map(|&()| ()));
        acked
    }

    pub(super) async fn carry_out(&self, verdict: Verdict, post: &Arc<Post<T>>) {
        let transport = &post.transport;
        let settled = async {
            match verdict {
                Verdict::Ack(token) => transport.ack(token).await,
                Verdict::Discard(token) => transport.reject(token, Fate::Discard).await,
                Verdict::GiveUp(token) => {
                    warn_of_given_up();
                    transport.ack(token).await
                }
                Verdict::Requeue(token) => transport.reject(token, Fate::Requeue).await,
                Verdict::Settled => Ok(()),
            }
        };
        if !post.is_given_up() {
            let settled = bounded("settle", self.settle_timeout, settled).await;
            note(post, settled.as_ref().map(|&()| ()));
        }
        self.at_work.end();
    }

    pub(super) async fn send(
        &self,
        transport: &Arc<T>,
        to: &Address,
        message: Message,
    ) -> Result<(), TransportError> {
        let limit = reply_limit(self.settle_timeout, transport.is_blocked(), &message);
        let deadline = deadline_after(Instant::now(), limit);
        let confirmed = async { transport.publish(to, message, deadline).await?.await };
        bounded("reply", limit, confirmed).await
    }
}

/// How it went to settle a delivery. A transport that is given up is closed, beside everything else.
fn note<T: Transport>(post: &Arc<Post<T>>, settled: Result<(), &TransportError>) {
    if post.handle_settled(settled) {
        let transport = Arc::clone(&post.transport);
        tokio::spawn(async move { timeout(CLOSE_LIMIT, transport.close()).await });
    }
}

/// What a transport does, under our own clock.
async fn bounded(
    operation: &'static str,
    limit: Duration,
    work: impl Future<Output = Result<(), TransportError>>,
) -> Result<(), TransportError> {
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(TransportError::new(ErrorKind::Timeout, "rpc", operation)))
}
