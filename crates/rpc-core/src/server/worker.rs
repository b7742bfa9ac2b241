//! What the async server does with a delivery: wait for a slot, run, reply, settle.

use std::future::{Future, pending};
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rpc_proto::server::{
    Accepted, Acceptor, Begun, Due, Ending, Finished, Intake, Job, Request, Running,
};
use rpc_proto::{Address, Delivery, Message, deadline_after};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::{
    CatchUnwind, First, NOTICE_LIMIT, Origin, Panicked, Post, Settler, Settles, catch_unwind,
    is_turn, life, race, turn_comes,
};
use crate::clock::unix_ms;
use crate::{Answer, Observer, Service, Transport, Work};

/// What the tasks of one server share.
pub(super) struct Worker<T, S> {
    pub(super) service: S,
    pub(super) acceptor: Acceptor,
    pub(super) settler: Settler<T>,
    /// One permit for each handler that may run; closed to wake those that wait when no further one
    /// may begin.
    pub(super) slots: Arc<Semaphore>,
    /// Bounded by the prefetch: the broker sends no more than that unsettled.
    jobs: Mutex<JoinSet<()>>,
    observer: Option<Arc<dyn Observer>>,
}

/// The right to run a handler; a suspect needs none.
type Slot = Option<OwnedSemaphorePermit>;

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
            settler: Settler::new(settle_timeout),
            slots: Arc::new(Semaphore::new(concurrency.min(Semaphore::MAX_PERMITS))),
            jobs: Mutex::default(),
            observer,
        }
    }

    /// Takes a delivery in, and does at once what can be done at once. What has to wait is done in a
    /// task of its own.
    pub(super) fn take(self: &Arc<Self>, intake: &Intake, delivery: Delivery, post: &Arc<Post<T>>) {
        self.settler.at_work.begin();
        let mut origin = Origin::new(post, &delivery, self.observer.as_ref());
        let accepted = intake.accept(delivery, Instant::now(), unix_ms().unwrap_or(0));
        origin.turn = self.acceptor.arrive(&accepted);
        match accepted {
            Accepted::Job(job) => self.start(job, origin),
            Accepted::Settlement(settlement) => self.settle(settlement, origin),
            Accepted::Forward(forward) => {
                let worker = Arc::clone(self);
                self.spawn(async move {
                    let until = deadline_after(Instant::now(), life(&forward.message));
                    turn_comes(&mut origin.turn, until, &origin.post.ended).await;
                    if origin.post.ended.is_cancelled() {
                        worker.settle(forward.hand_back(Instant::now()), origin);
                    } else {
                        worker.forward(*forward, origin);
                    }
                });
            }
            // Settled together with the one that runs.
            Accepted::Joined => {}
        }
    }

    /// Drops all handlers where they await.
    pub(super) fn abort(&self) {
        self.jobs().abort_all();
    }

    /// Begins with a request now if its turn has come, or when it comes.
    pub(super) fn start(self: &Arc<Self>, job: Job, mut origin: Origin<T>) {
        if !origin.is_suspect()
            && let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned()
        {
            if is_turn(origin.turn(&self.acceptor), job.deadline()) {
                return self.begin(job, Some(slot), origin);
            }
            let worker = Arc::clone(self);
            return self.spawn(async move { worker.wait_for_turn(job, Some(slot), origin).await });
        }
        let worker = Arc::clone(self);
        self.spawn(async move { worker.wait_for_slot(job, origin).await });
    }

    async fn wait_for_slot(self: &Arc<Self>, job: Job, mut origin: Origin<T>) {
        // Those that wait for a suspect hold their slots: it has a place of its own.
        let slot = if origin.is_suspect() {
            None
        } else {
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
                return self.settle(job.hand_back(Instant::now()), origin);
            };
            Some(slot)
        };
        origin.turn(&self.acceptor);
        self.wait_for_turn(job, slot, origin).await;
    }

    async fn wait_for_turn(self: &Arc<Self>, job: Job, slot: Slot, mut origin: Origin<T>) {
        turn_comes(&mut origin.turn, job.deadline(), &origin.post.ended).await;
        self.begin(job, slot, origin);
    }

    fn begin(self: &Arc<Self>, job: Job, slot: Slot, origin: Origin<T>) {
        match job.begin(Instant::now()) {
            Begun::Run(request, running) => self.run(request, running, slot, origin),
            Begun::AckFirst(token, then) => {
                let worker = Arc::clone(self);
                self.spawn(async move {
                    let acked = worker.ack_first(token, &origin.post).await;
                    let acked = acked.as_ref().map(|&()| ());
                    match then.handle_ack(Instant::now(), acked) {
                        Ok((request, running)) => worker.run(request, running, slot, origin),
                        Err(joined) => {
                            worker.settler.at_work.end();
                            origin.settled();
                            worker.settle_joined(joined);
                        }
                    }
                });
            }
            Begun::Settle(settlement) => {
                drop(slot);
                self.settle(settlement, origin);
            }
            Begun::Joined => {}
        }
    }

    /// Runs a handler: here, if it answers at once.
    fn run(
        self: &Arc<Self>,
        request: Request,
        running: Running,
        slot: Slot,
        mut origin: Origin<T>,
    ) {
        origin.runs();
        let ending = match catch_unwind(|| self.service.call(request)) {
            Ok(Work::Ready(answer)) => Ending::Answered(answer),
            Err(Panicked) => Ending::Panicked,
            Ok(work) => {
                let worker = Arc::clone(self);
                return self.spawn(async move { worker.attend(work, running, slot, origin).await });
            }
        };
        // The slot is for handlers. That the reply is still on its way is bounded by the prefetch.
        drop(slot);
        self.finish(running, ending, origin);
    }

    /// Stays with a handler that takes its time.
    async fn attend(
        self: &Arc<Self>,
        work: Work,
        mut running: Running,
        mut slot: Slot,
        origin: Origin<T>,
    ) {
        let post = &origin.post;
        let ending = match work {
            Work::Ready(answer) => Ending::Answered(answer),
            // Its time was over before it was looked at for the first time: so it never began.
            Work::Async(_) if running.deadline() <= Instant::now() => Ending::Expired,
            Work::Async(work) => {
                let cancelled = running.cancellation().cancelled();
                let work = pin!(race(CatchUnwind::new(work), cancelled));
                match self.watch(work, &mut running, post).await {
                    Some(First::Left(Ok(answer))) => Ending::Answered(answer),
                    Some(First::Left(Err(Panicked))) => Ending::Panicked,
                    Some(First::Right(())) => Ending::Cancelled,
                    None => Ending::TimedOut,
                }
            }
            Work::Blocking(work) => self.offload(work, &mut running, &mut slot, post).await,
        };
        drop(slot);
        self.finish(running, ending, origin);
    }

    fn finish(self: &Arc<Self>, running: Running, ending: Ending, origin: Origin<T>) {
        let Finished { settlement, joined } = running.finish(Instant::now(), ending);
        self.settle_joined(joined);
        self.settle(settlement, origin);
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
        slot: &mut Slot,
        post: &Arc<Post<T>>,
    ) -> Ending {
        let start = Arc::new(Start::default());
        let begins = Arc::clone(&start);
        let cancellation = running.cancellation().clone();
        let run = move || {
            // A thread that comes free in the moment after the deadline comes too late.
            if cancellation.is_cancelled() || !begins.take(Start::BEGUN) {
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
            None if start.take(Start::GIVEN_UP) => Ending::Expired,
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
struct Start(AtomicU8);

impl Start {
    const BEGUN: u8 = 1;
    const GIVEN_UP: u8 = 2;

    fn take(&self, what: u8) -> bool {
        self.0
            .compare_exchange(0, what, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}
