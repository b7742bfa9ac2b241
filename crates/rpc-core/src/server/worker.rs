//! What the async server does with a delivery: wait for a slot, run, reply, settle.

use std::future::{Future, pending};
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rpc_proto::server::{
    Accepted, Acceptor, Begun, Due, Ending, Finished, Forward, Forwarded, Intake, Job, Request,
    Running,
};
use rpc_proto::{Address, Delivery, LONGEST_WAIT, Message, deadline_after};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::{
    AtWork, CatchUnwind, First, NOTICE_LIMIT, Origin, Panicked, Post, Posts, catch_unwind, life,
    race, turn_comes, unix_ms,
};
use crate::{Answer, Observer, Service, Transport, Work};

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
    pub(super) settle_timeout: Duration,
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
        let mut origin = Origin::new(post, &delivery, self.observer.as_ref());
        let accepted = intake.accept(delivery, Instant::now(), unix_ms());
        origin.turn = self.acceptor.arrive(&accepted);
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
    async fn work(self: &Arc<Self>, job: Job, mut origin: Origin<T>) {
        // Those that wait for a suspect hold their slots: it has a place of its own.
        let slot = if origin.is_suspect() {
            None
        } else {
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
                return self.settle(job.hand_back(Instant::now()), origin).await;
            };
            Some(slot)
        };
        turn_comes(origin.turn(&self.acceptor), job.deadline()).await;
        match job.begin(Instant::now()) {
            Begun::Run(request, running) => self.run(request, running, slot, origin).await,
            Begun::AckFirst(token, then) => {
                let acked = self.ack_first(token, &origin.post).await;
                let acked = acked.as_ref().map(|&()| ());
                match then.handle_ack(Instant::now(), acked) {
                    Ok((request, running)) => self.run(request, running, slot, origin).await,
                    Err(joined) => {
                        self.at_work.end();
                        origin.settled();
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
        mut slot: Option<OwnedSemaphorePermit>,
        mut origin: Origin<T>,
    ) {
        origin.runs();
        let post = &origin.post;
        let ending = match catch_unwind(|| self.service.call(request)) {
            Ok(Work::Ready(answer)) => Ending::Answered(answer),
            Ok(Work::Async(work)) => {
                let cancelled = running.cancellation().cancelled();
                let work = pin!(race(CatchUnwind::new(work), cancelled));
                match self.watch(work, &mut running, post).await {
                    Some(First::Left(Ok(answer))) => Ending::Answered(answer),
                    Some(First::Left(Err(Panicked))) => Ending::Panicked,
                    Some(First::Right(())) => Ending::Cancelled,
                    None => Ending::TimedOut,
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

    /// Waits for work while its clock runs; nothing when it does not come back.
    async fn watch<F: Future + Unpin>(
        &self,
        mut work: F,
        running: &mut Running,
        post: &Arc<Post<T>>,
    ) -> Option<F::Output> {
        let mut now = Instant::now();
        loop {
            match running.poll(now) {
                Some(Due::Notice(to, message)) => notify(to, *message, now, post),
                Some(Due::GiveUp) => return None,
                None => {
                    let until = running.poll_timeout();
                    if let Ok(output) = timeout_at(until.into(), &mut work).await {
                        return Some(output);
                    }
                    // The clock that woke us may run a little ahead of this one.
                    now = Instant::now().max(until);
                }
            }
        }
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
        let run = move || {
            if !begins.take(Turn::BEGUN) {
                return Ending::Expired;
            }
            catch_unwind(work).map_or(Ending::Panicked, Ending::Answered)
        };
        let mut thread = tokio::task::spawn_blocking(run);
        match self.watch(&mut thread, running, post).await {
            Some(Ok(ending)) => ending,
            // Panics are caught inside; the error is a runtime that shuts down, and this task with
            // it. Nobody knows whether the work began: unsettled, the request is delivered again.
            Some(Err(_)) => pending().await,
            None if turn.take(Turn::GIVEN_UP) => Ending::Expired,
            None => {
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
    async fn forward(self: &Arc<Self>, forward: Forward, mut origin: Origin<T>) {
        let Forward { to, message, then } = forward;
        let until = deadline_after(Instant::now(), life(&message));
        turn_comes(&mut origin.turn, until).await;
        let sent = self.send(&origin.post.transport, &to, message).await;
        if let Err(error) = &sent {
            tracing::debug!(%error, "a request could not be passed on to quarantine");
        }
        match then.handle_publish(sent.as_ref().map(|&()| ())) {
            Forwarded::Settle(verdict) => self.carry_out(verdict, &origin.post).await,
            Forwarded::Run(job) => {
                origin.turn = None;
                self.work(*job, origin).await;
            }
        }
    }

    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut jobs = self.jobs();
        while jobs.try_join_next().is_some() {}
        jobs.spawn(work);
    }

    fn jobs(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells a caller that its request runs here. It matters little whether that arrives.
fn notify<T: Transport>(to: Address, message: Message, now: Instant, post: &Arc<Post<T>>) {
    let transport = Arc::clone(&post.transport);
    let deadline = deadline_after(now, NOTICE_LIMIT);
    tokio::spawn(async move {
        let sent = transport.publish(&to, message, deadline);
        let _ = timeout_at(deadline.into(), sent).await;
    });
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
