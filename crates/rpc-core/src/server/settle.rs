//! How the async server publishes and acknowledges: without waiting, as far as the transport lets it.
//!
//! Most transports only put a message or an acknowledgement into a line, and are done at once. So each
//! of these is tried where it comes up, and only what has to wait becomes a task of its own: no call
//! pays for a task that has nothing to wait for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rpc_proto::server::{Job, Verdict};
use rpc_proto::{AckToken, Address, ErrorKind, Message, TransportError, deadline_after};
use tokio::time::{timeout, timeout_at};

use super::worker::Worker;
use super::{Act, Origin, Post, Settler, Settles, Then, Waiting, reply_limit};
use crate::link::CLOSE_LIMIT;
use crate::{Service, Transport};

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
        let publishing = async move { on.publish(&to, message, until).await };
        match at_once(publishing) {
            Ok(confirm) => self.await_confirm(confirm, until, then, origin),
            Err(publishing) => {
                let worker = Arc::clone(self);
                self.spawn(async move {
                    let confirm = bounded("reply", limit, publishing).await;
                    worker.await_confirm(confirm, until, then, origin);
                });
            }
        }
    }

    fn carry_out(self: &Arc<Self>, verdict: Verdict, origin: Origin<T>) {
        let Some(act) = Act::of(verdict, &origin.post) else {
            return self.carried_out(Ok(()), &origin);
        };
        let transport = Arc::clone(&origin.post.transport);
        let acting = async move {
            match act {
                Act::Ack(token) => transport.ack(token).await,
                Act::Reject(token, fate) => transport.reject(token, fate).await,
            }
        };
        match at_once(acting) {
            Ok(settled) => self.carried_out(settled.as_ref().map(|&()| ()), &origin),
            Err(settling) => {
                let worker = Arc::clone(self);
                self.spawn(async move {
                    let settled = bounded("settle", worker.settler.timeout, settling).await;
                    worker.carried_out(settled.as_ref().map(|&()| ()), &origin);
                });
            }
        }
    }

    fn run_here(self: &Arc<Self>, job: Job, origin: Origin<T>) {
        self.start(job, origin);
    }
}

impl<T: Transport, S: Service> Worker<T, S> {
    /// Acknowledges before the request runs.
    pub(super) async fn ack_first(
        &self,
        token: AckToken,
        post: &Arc<Post<T>>,
    ) -> Result<(), TransportError> {
        let acked = bounded("ack", self.settler.timeout, post.transport.ack(token)).await;
        note(post, acked.as_ref().map(|&()| ()));
        acked
    }

    /// Acknowledges what is confirmed, as long as the server lives.
    pub(super) async fn settle_all(self: Arc<Self>) {
        let mut waiting = Waiting::default();
        let sent = &self.settler.sent;
        while let Some(until) = sent.look(&mut waiting, |confirmed, (then, origin)| {
            self.confirmed(confirmed, then, origin);
        }) {
            let _ = timeout_at(until.into(), sent.rung()).await;
        }
    }

    fn carried_out(&self, settled: Result<(), &TransportError>, origin: &Origin<T>) {
        note(&origin.post, settled);
        self.settler.at_work.end();
        origin.settled();
    }
}

/// How it went to settle a delivery. A transport that is given up is closed, beside everything else.
fn note<T: Transport>(post: &Arc<Post<T>>, settled: Result<(), &TransportError>) {
    if post.handle_settled(settled) {
        let transport = Arc::clone(&post.transport);
        tokio::spawn(async move { timeout(CLOSE_LIMIT, transport.close()).await });
    }
}

/// What can be done without waiting, or else what is left to wait for.
fn at_once<F: Future>(future: F) -> Result<F::Output, Pin<Box<F>>> {
    let mut future = Box::pin(future);
    // Whoever goes on with it polls it again, so nobody has to be woken before.
    let mut context = Context::from_waker(Waker::noop());
    match future.as_mut().poll(&mut context) {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => Err(future),
    }
}

/// What a transport does, under our own clock.
async fn bounded<O>(
    operation: &'static str,
    limit: Duration,
    work: impl Future<Output = Result<O, TransportError>>,
) -> Result<O, TransportError> {
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(TransportError::new(ErrorKind::Timeout, "rpc", operation)))
}
