//! What the async server does with a delivery: wait for a slot, run, reply, settle.

use std::future::{Future, pending};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rpc_proto::server::{
    Accepted, Acceptor, Begun, Ending, Finished, Forward, Forwarded, Intake, Job, Request, Running,
    Settlement, Verdict,
};
use rpc_proto::{
    Address, Delivery, ErrorKind, LONGEST_WAIT, Message, TransportError, deadline_after,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{timeout, timeout_at};

use super::{
    AtWork, CatchUnwind, First, GRACE, NOTICE_LIMIT, Origin, Panicked, Post, Posts, catch_unwind,
    race, reply_limit, unix_ms,
};
use crate::{Answer, Fate, Observer, Service, Transport, Work};

/// What the tasks of one server share.
pub(super) struct Worker<T, S> {
    pub(super) service: S,
    pub(super) acceptor: Acceptor,
    pub(super) posts: Posts<T>,
    pub(super) at_work: AtWork,
    /// One permit for each handler that may run; closed to wake those that wait when no further one
    /// may begin.
    pub(super) slots: Arc<Semaphore>,
    /// Bounded by the prefetch: the broker sends no more than that unsettled.
    jobs: Mutex<JoinSet<()>>,
    observer: Option<Arc<dyn Observer>>,
    settle_timeout: Duration,
}

impl<T: Transport, S: Service> Worker<T, S> {
    pub(super) fn new(
        service: S,
        acceptor: Acceptor,
        concurrency: usize,
        settle_timeout: Duration,
        observer: Option<Arc<dyn Observer>>,
    ) -> Self {
        Self {
            service,
            acceptor,
            posts: Posts::new(),
            at_work: AtWork::default(),
            slots: Arc::new(Semaphore::new(concurrency.min(Semaphore::MAX_PERMITS))),
            jobs: Mutex::default(),
            observer,
            settle_timeout: settle_timeout.min(LONGEST_WAIT),
        }
    }

    /// Takes a delivery in, and does all that is to be done for it in a task of its own.
    pub(super) fn take(self: &Arc<Self>, intake: &Intake, delivery: Delivery, post: &Arc<Post<T>>) {
        self.at_work.begin();
        let origin = Origin::new(post, &delivery, self.observer.as_ref());
        let accepted = intake.accept(delivery, Instant::now(), unix_ms());
        let worker = Arc::clone(self);
        match accepted {
            Accepted::Job(job) => self.spawn(async move { worker.work(job, origin).await }),
            Accepted::Settlement(settlement) => {
                self.spawn(async move { worker.settle(settlement, origin).await });
            }
            Accepted::Forward(forward) => {
                self.spawn(async move { worker.forward(*forward, origin).await });
            }
            // Settled together with the one that runs.
            Accepted::Joined => {}
        }
    }

    /// Drops all handlers where they await.
    pub(super) fn abort(&self) {
        self.jobs().abort_all();
    }

    /// Answers one request.
    async fn work(self: &Arc<Self>, job: Job, origin: Origin<T>) {
        let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
            return self.settle(job.hand_back(Instant::now()), origin).await;
        };
        match job.begin(Instant::now()) {
            Begun::Run(request, running) => self.run(request, running, slot, origin).await,
            Begun::AckFirst(token, then) => {
                let acked =
                    bounded("ack", self.settle_timeout, origin.post.transport.ack(token)).await;
                let acked = acked.as_ref().map(|&()| ());
                match then.handle_ack(Instant::now(), acked) {
                    Ok((request, running)) => self.run(request, running, slot, origin).await,
                    Err(joined) => {
                        self.at_work.end();
                        self.settle_joined(joined);
                    }
                }
            }
            Begun::Settle(settlement) => {
                drop(slot);
                self.settle(settlement, origin).await;
            }
            Begun::Joined => {}
        }
    }

    async fn run(
        self: &Arc<Self>,
        request: Request,
        mut running: Running,
        slot: OwnedSemaphorePermit,
        mut origin: Origin<T>,
    ) {
        let mut slot = Some(slot);
        origin.runs();
        let post = &origin.post;
        let ending = match catch_unwind(|| self.service.call(request)) {
            Ok(Work::Ready(answer)) => Ending::Answered(answer),
            Ok(Work::Async(work)) => {
                let work = CatchUnwind::new(work);
                match self.watch(work, &mut running, post, true).await {
                    Waited::Ended(Ok(answer)) => Ending::Answered(answer),
                    Waited::Ended(Err(Panicked)) => Ending::Panicked,
                    Waited::Cancelled => Ending::Cancelled,
                    Waited::TimedOut => Ending::TimedOut,
                }
            }
            Ok(Work::Blocking(work)) => self.offload(work, &mut running, &mut slot, post).await,
            Err(Panicked) => Ending::Panicked,
        };
        // The slot is for handlers. That the reply is still on its way is bounded by the prefetch.
        drop(slot);
        let Finished { settlement, joined } = running.finish(Instant::now(), ending);
        self.settle_joined(joined);
        self.settle(settlement, origin).await;
    }

    /// Waits for work, tells its caller when it has run for a while, and looks at the clock.
    async fn watch<F: Future + Unpin>(
        &self,
        mut work: F,
        running: &mut Running,
        post: &Arc<Post<T>>,
        stoppable: bool,
    ) -> Waited<F::Output> {
        let deadline = running.deadline();
        while let Some(due) = running.poll_notice().filter(|due| *due < deadline) {
            // Nobody can cancel it before its caller is told where.
            match timeout_at(due.into(), &mut work).await {
                Ok(output) => return Waited::Ended(output),
                Err(_) => self.notify(running, due, post),
            }
        }
        let cancellation = running.cancellation().clone();
        let cancelled = async {
            if stoppable {
                cancellation.cancelled().await;
            } else {
                pending::<()>().await;
            }
        };
        match timeout_at(deadline.into(), race(work, cancelled)).await {
            Ok(First::Left(output)) => Waited::Ended(output),
            Ok(First::Right(())) => Waited::Cancelled,
            Err(_) => Waited::TimedOut,
        }
    }

    /// Tells a caller that its request runs here. It matters little whether that arrives.
    fn notify(&self, running: &mut Running, due: Instant, post: &Arc<Post<T>>) {
        // The clock that woke us may run a little ahead of this one.
        let now = Instant::now().max(due);
        let Some((to, message)) = running.notice(now) else {
            return;
        };
        let transport = Arc::clone(&post.transport);
        let deadline = deadline_after(now, NOTICE_LIMIT);
        tokio::spawn(async move {
            let sent = transport.publish(&to, message, deadline);
            let _ = timeout_at(deadline.into(), sent).await;
        });
    }

    /// Runs blocking work on a thread that it may keep busy, unless none is free before the deadline.
    ///
    /// Work that does not come back by then is given up: its caller is answered, and its slot taken
    /// by another, unless too many are given up already.
    async fn offload(
        &self,
        work: Box<dyn FnOnce() -> Answer + Send>,
        running: &mut Running,
        slot: &mut Option<OwnedSemaphorePermit>,
        post: &Arc<Post<T>>,
    ) -> Ending {
        let turn = Arc::new(Turn::default());
        let begins = Arc::clone(&turn);
        let cancellation = running.cancellation().clone();
        let run = move || {
            // A thread that comes free in the moment after the deadline comes too late.
            if cancellation.is_cancelled() || !begins.take(Turn::BEGUN) {
                return Ending::Expired;
            }
            catch_unwind(work).map_or(Ending::Panicked, Ending::Answered)
        };
        let mut thread = tokio::task::spawn_blocking(run);
        let mut waited = self.watch(&mut thread, running, post, false).await;
        if matches!(waited, Waited::TimedOut) {
            running.cancellation().cancel();
            if let Ok(ending) = timeout(GRACE, &mut thread).await {
                waited = Waited::Ended(ending);
            }
        }
        match waited {
            Waited::Ended(Ok(ending)) => ending,
            // Panics are caught inside; the error is a runtime that shuts down, and this task with
            // it. Nobody knows whether the work began: unsettled, the request is delivered again.
            Waited::Ended(Err(_)) => pending().await,
            Waited::Cancelled | Waited::TimedOut if turn.take(Turn::GIVEN_UP) => Ending::Expired,
            Waited::Cancelled | Waited::TimedOut => {
                let given_up = self.acceptor.give_up();
                let slot = slot.take().filter(|_| given_up.is_none());
                tokio::spawn(async move {
                    let _ = thread.await;
                    drop((given_up, slot));
                });
                Ending::TimedOut
            }
        }
    }

    /// Passes a request on to quarantine, or runs it here if that cannot be.
    async fn forward(self: &Arc<Self>, forward: Forward, origin: Origin<T>) {
        let Forward { to, message, then } = forward;
        let sent = self.send(&origin.post.transport, &to, message).await;
        if let Err(error) = &sent {
            tracing::debug!(%error, "a request could not be passed on to quarantine");
        }
        match then.handle_publish(sent.as_ref().map(|&()| ())) {
            Forwarded::Settle(verdict) => self.carry_out(verdict, &origin.post).await,
            Forwarded::Run(job) => self.work(*job, origin).await,
        }
    }

    /// What joined a request may have come by another transport, and waits for that one's confirms.
    fn settle_joined(self: &Arc<Self>, joined: Vec<Settlement>) {
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
    async fn settle(&self, settlement: Settlement, mut origin: Origin<T>) {
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

    async fn carry_out(&self, verdict: Verdict, post: &Arc<Post<T>>) {
        let transport = &post.transport;
        let settled = async {
            match verdict {
                Verdict::Ack(token) => transport.ack(token).await,
                Verdict::Discard(token) => transport.reject(token, Fate::Discard).await,
                Verdict::Requeue(token) => transport.reject(token, Fate::Requeue).await,
                Verdict::Settled => Ok(()),
            }
        };
        // Unsettled, the request comes again when this transport has ended.
        if let Err(error) = bounded("settle", self.settle_timeout, settled).await {
            tracing::debug!(%error, "a request could not be settled");
        }
        self.at_work.end();
    }

    async fn send(
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

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut jobs = self.jobs();
        while jobs.try_join_next().is_some() {}
        jobs.spawn(work);
    }

    fn jobs(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
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

/// How a wait for work ended.
enum Waited<O> {
    Cancelled,
    Ended(O),
    TimedOut,
}

/// Whether offloaded work has begun, or was given up before: only one of them can be.
#[derive(Debug, Default)]
struct Turn(AtomicU8);

impl Turn {
    const BEGUN: u8 = 1;
    const GIVEN_UP: u8 = 2;

    fn take(&self, what: u8) -> bool {
        self.0
            .compare_exchange(0, what, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}
