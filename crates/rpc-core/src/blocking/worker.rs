//! What the threads of a blocking server do: a receiver, workers, and a settler.
//!
//! ```text
//!  receiver: accept ──▶ worker 1 … n: run, publish the reply ──▶ settler: confirm, acknowledge
//! ```
//!
//! The receiver reads ahead while all workers are busy, so that it is known how long a request has
//! waited: what the client library buffers, it buffers without a time. A worker does not wait for
//! the confirm of its reply: it would stand still for a round trip with each request. The settler
//! waits instead, for all workers. Both lines are bounded by the prefetch.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rpc_proto::server::{
    Accepted, Acceptor, AfterReply, Ending, Job, Policy, Request, Settlement, Stats, Verdict,
};
use rpc_proto::{TransportError, deadline_after};

use super::progress::Progress;
use super::{Consumer, Transport};
use crate::server::{AtWork, CatchUnwind, Panicked, catch_unwind};
use crate::{Confirm, Fate, Service, Work, park};

/// What the threads of one server share.
pub(super) struct Worker<T, S> {
    transport: Arc<T>,
    service: S,
    acceptor: Acceptor,
    /// What waits for a worker. Whoever holds the lock waits for the others too.
    accepted: Mutex<mpsc::Receiver<Accepted>>,
    /// Set when nothing further may begin.
    draining: AtomicBool,
    settle_timeout: Duration,
    runtime: Runtime,
    at_work: AtWork,
}

/// A reply that was handed over, until when its confirm is awaited, and what comes after.
type Sent = (Result<Confirm, TransportError>, Instant, AfterReply);

impl<T: Transport, S: Service> Worker<T, S> {
    pub(super) fn new(
        transport: T,
        service: S,
        policy: Policy,
        accepted: mpsc::Receiver<Accepted>,
        settle_timeout: Duration,
        runtime: Runtime,
    ) -> Self {
        Self {
            transport: Arc::new(transport),
            service,
            acceptor: Acceptor::new(policy),
            accepted: Mutex::new(accepted),
            draining: AtomicBool::new(false),
            settle_timeout,
            runtime,
            at_work: AtWork::default(),
        }
    }

    pub(super) const fn transport(&self) -> &Arc<T> {
        &self.transport
    }

    pub(super) fn stats(&self) -> Stats {
        self.acceptor.stats()
    }

    /// Requests taken and not yet settled.
    pub(super) fn at_work(&self) -> usize {
        self.at_work.count()
    }

    /// Takes requests in until there are no more, and hands back those that nobody has begun.
    pub(super) fn receive(
        &self,
        mut consumer: Box<dyn Consumer>,
        accept: SyncSender<Accepted>,
        replies: &SyncSender<Sent>,
        progress: &Progress,
    ) {
        let cause = loop {
            match consumer.recv() {
                Ok(Some(delivery)) => {
                    self.at_work.begin();
                    // The workers end after the receiver.
                    let _ = accept.send(self.acceptor.accept(delivery));
                }
                Ok(None) => break Ok(()),
                Err(cause) => break Err(cause),
            }
        };
        progress.end(cause);
        self.draining.store(true, Ordering::Release);
        // An idle worker holds the lock while it waits for what can no longer come: first this ends.
        drop(accept);
        self.serve(replies);
    }

    /// Answers requests until there are no more.
    pub(super) fn serve(&self, replies: &SyncSender<Sent>) {
        loop {
            let accepted = self
                .accepted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .recv();
            match accepted {
                Ok(Accepted::Job(job)) if self.draining.load(Ordering::Acquire) => {
                    self.settle(job.abandon());
                }
                Ok(Accepted::Job(job)) => self.finish(self.execute(job), replies),
                Ok(Accepted::Settlement(settlement)) => self.finish(settlement, replies),
                Err(_) => return,
            }
        }
    }

    fn execute(&self, job: Job) -> Settlement {
        match job.begin(Instant::now()) {
            Ok((request, running)) => {
                let ending = self.run(request, running.deadline());
                running.finish(Instant::now(), ending)
            }
            Err(settlement) => settlement,
        }
    }

    fn run(&self, request: Request, deadline: Instant) -> Ending {
        let answer = match catch_unwind(|| self.service.call(request)) {
            Ok(Work::Ready(answer)) => Ok(answer),
            Ok(Work::Blocking(work)) => catch_unwind(work),
            Ok(Work::Async(work)) => {
                let _entered = self.runtime.enter();
                let work = pin!(CatchUnwind::new(work));
                match park::block_on_until(work, deadline) {
                    Some(answer) => answer,
                    None => return Ending::TimedOut,
                }
            }
            Err(panicked) => Err(panicked),
        };
        answer.map_or_else(|Panicked| Ending::Panicked, Ending::Answered)
    }

    /// Sends the reply on its way, or settles at once where there is none.
    fn finish(&self, settlement: Settlement, replies: &SyncSender<Sent>) {
        match settlement {
            Settlement::Reply { to, message, then } => {
                let deadline = deadline_after(Instant::now(), self.settle_timeout);
                let sent = self.transport.publish(&to, message, deadline);
                // The settler ends after the last worker.
                let _ = replies.send((sent, deadline, then));
            }
            Settlement::Settle(verdict) => self.settle(verdict),
        }
    }

    /// Waits for the confirm of each reply in turn. A broker confirms about in order, and each reply
    /// has had its time since it was sent: many that are never confirmed take no longer than one.
    pub(super) fn settle_all(&self, sent: &mpsc::Receiver<Sent>) {
        for (sent, deadline, then) in sent {
            let confirmed = sent.and_then(|confirm| confirm.wait(deadline));
            if let Err(error) = &confirmed {
                tracing::debug!(%error, "a reply could not be delivered");
            }
            self.settle(then.handle_publish(confirmed.as_ref().map(|&()| ())));
        }
    }

    fn settle(&self, verdict: Verdict) {
        let settled = match verdict {
            Verdict::Ack(token) => self.transport.ack(token),
            Verdict::Requeue(token) => self.transport.reject(token, Fate::Requeue),
            Verdict::Settled => Ok(()),
        };
        if let Err(error) = settled {
            // Unsettled, the request comes again when this transport has ended.
            tracing::debug!(%error, "a request could not be settled");
        }
        self.at_work.end();
    }
}

/// The runtime that async handlers find themselves in, if any.
#[derive(Debug, Default)]
pub(super) struct Runtime(#[cfg(feature = "tokio")] Option<tokio::runtime::Handle>);

#[cfg(feature = "tokio")]
impl Runtime {
    pub(super) const fn of(runtime: tokio::runtime::Handle) -> Self {
        Self(Some(runtime))
    }

    fn enter(&self) -> Option<tokio::runtime::EnterGuard<'_>> {
        self.0.as_ref().map(tokio::runtime::Handle::enter)
    }
}

#[cfg(not(feature = "tokio"))]
impl Runtime {
    fn enter(&self) -> Option<std::convert::Infallible> {
        None
    }
}
