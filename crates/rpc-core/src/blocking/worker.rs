//! What the threads of a blocking server do: workers, a settler, a watch, and one for what does not run.
//!
//! ```text
//!  receiver: accept ──▶ worker 1 … n: run, publish the reply ──▶ settler: confirm, acknowledge
//!                │             ╰──── watch: notice, cancel, replace ────╯       │
//!                ╰──▶ turnstile: answer what is not run ────────────────────────╯
//! ```
//!
//! The receiver reads ahead while all workers are busy, so that it is known how long a request has
//! waited: what the client library buffers, it buffers without a time. A worker does not wait for
//! the confirm of its reply: it would stand still for a round trip with each request. The settler
//! waits instead, for all workers. Both lines are bounded by the prefetch. What it does is in
//! `settle.rs`.

use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rpc_proto::server::{
    Accepted, Acceptor, Begun, Ending, Finished, Forward, Intake, Job, Part, Request, Running,
    Settlement,
};
use rpc_proto::{Cancellation, Delivery, ErrorKind, TransportError, deadline_after};

use super::Transport;
use super::line::Line;
use super::progress::Progress;
use super::watch::{Seat, Task as Watched, Watch};
use crate::clock::unix_ms;
use crate::server::{
    CatchUnwind, First, NOTICE_LIMIT, Origin, Panicked, Post, Settler, Settles, await_turn,
    catch_unwind, life, race,
};
use crate::{Observer, Service, Work, park};

/// What the threads of one server share.
pub(super) struct Worker<T, S> {
    service: S,
    pub(super) acceptor: Acceptor,
    pub(super) settler: Settler<T>,
    pub(super) progress: Arc<Progress>,
    /// What waits for a worker.
    pub(super) accepted: Line<(Task, Origin<T>)>,
    /// What is to be passed on to quarantine, and what came from there. The workers may all be
    /// waiting for these, so each has a thread of its own.
    forwards: Line<(Task, Origin<T>)>,
    suspects: Line<(Task, Origin<T>)>,
    /// What is answered without being run, or in the place of a thread that does not come back. It need
    /// not wait for a worker.
    answers: Line<(Task, Origin<T>)>,
    watch: Watch<T>,
    observer: Option<Arc<dyn Observer>>,
    runtime: Runtime,
}

/// What a worker does.
#[derive(Debug)]
pub(super) enum Task {
    Forward(Box<Forward>),
    Run(Job),
    Settle(Settlement),
    /// Its handler is given up.
    TimedOut(Running),
}

/// Whether a thread goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Mine,
    /// It came back too late, and another works in its place.
    Taken,
}

impl<T: Transport, S: Service> Worker<T, S> {
    pub(super) fn new(
        service: S,
        acceptor: Acceptor,
        settle_timeout: Duration,
        runtime: Runtime,
        observer: Option<Arc<dyn Observer>>,
    ) -> Self {
        Self {
            service,
            acceptor,
            settler: Settler::new(settle_timeout),
            progress: Arc::default(),
            accepted: Line::new(),
            forwards: Line::new(),
            suspects: Line::new(),
            answers: Line::new(),
            watch: Watch::new(),
            observer,
            runtime,
        }
    }

    /// Starts the threads that outlive each transport.
    pub(super) fn start(self: &Arc<Self>, concurrency: usize) -> Result<(), TransportError> {
        self.spawn("rpc-settler", |worker| worker.settle_all())?;
        self.spawn("rpc-watch", |worker| worker.watch_all())?;
        self.spawn("rpc-turnstile", |worker| worker.answer_all())?;
        if self.acceptor.isolates() {
            self.spawn("rpc-forwarder", |worker| worker.serve(Part::Forward))?;
            self.spawn("rpc-suspect", |worker| worker.serve(Part::Suspect))?;
        }
        for _ in 0..concurrency {
            self.spawn("rpc-worker", |worker| worker.serve(Part::Work))?;
        }
        Ok(())
    }

    pub(super) fn spawn(
        self: &Arc<Self>,
        name: &str,
        run: impl FnOnce(&Arc<Self>) + Send + 'static,
    ) -> Result<(), TransportError> {
        let (worker, alive) = (Arc::clone(self), Progress::enter(&self.progress));
        thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                run(&worker);
                drop(alive);
            })
            .map(|_| ())
            .map_err(|error| {
                TransportError::new(ErrorKind::Other, "rpc", "start").with_source(error)
            })
    }

    /// Takes a delivery in, for a worker to answer.
    pub(super) fn take(self: &Arc<Self>, intake: &Intake, delivery: Delivery, post: &Arc<Post<T>>) {
        self.settler.at_work.begin();
        let mut origin = Origin::new(post, &delivery, self.observer.as_ref());
        let accepted = intake.accept(delivery, Instant::now(), unix_ms().unwrap_or(0));
        origin.turn = self.acceptor.arrive(&accepted);
        let part = self.line(origin.part());
        let (line, task) = match accepted {
            Accepted::Forward(forward) => (part, Task::Forward(forward)),
            Accepted::Job(job) => (part, Task::Run(job)),
            Accepted::Settlement(settlement) => (&self.answers, Task::Settle(settlement)),
            // Settled together with the one that runs.
            Accepted::Joined => return,
        };
        self.push(line, task, origin);
    }

    fn push(self: &Arc<Self>, line: &Line<(Task, Origin<T>)>, task: Task, origin: Origin<T>) {
        if let Err((task, origin)) = line.push((task, origin)) {
            // Nothing begins any more.
            self.put_back(task, origin);
        }
    }

    /// Hands back what came by this post and has not begun.
    pub(super) fn hand_back(self: &Arc<Self>, post: &Arc<Post<T>>) {
        let of_post = |(_, origin): &(Task, Origin<T>)| Arc::ptr_eq(&origin.post, post);
        for line in self.lines() {
            for (task, origin) in line.take_out(of_post) {
                self.put_back(task, origin);
            }
        }
    }

    const fn lines(&self) -> [&Line<(Task, Origin<T>)>; 4] {
        [
            &self.accepted,
            &self.forwards,
            &self.suspects,
            &self.answers,
        ]
    }

    const fn line(&self, part: Part) -> &Line<(Task, Origin<T>)> {
        match part {
            Part::Forward => &self.forwards,
            Part::Suspect => &self.suspects,
            Part::Work => &self.accepted,
        }
    }

    /// Does what is left to do for a request that will not begin here: this is no worker's thread, and
    /// it is nobody's turn.
    fn put_back(self: &Arc<Self>, task: Task, origin: Origin<T>) {
        let now = Instant::now();
        let settlement = match task {
            Task::Forward(forward) => forward.hand_back(now),
            Task::Run(job) => job.hand_back(now),
            Task::Settle(settlement) => settlement,
            Task::TimedOut(running) => return self.finish(running, Ending::TimedOut, origin),
        };
        self.settle(settlement, origin);
    }

    /// Answers what is not run, until there is no more.
    fn answer_all(self: &Arc<Self>) {
        while let Some((task, origin)) = self.answers.pop() {
            self.put_back(task, origin);
        }
    }

    /// Lets nothing further begin, and hands back what has not. Then waits for what has, until then.
    pub(super) fn wind_up(self: &Arc<Self>, until: Instant) {
        self.acceptor.drain();
        for line in self.lines() {
            line.close();
            // What is left when the time is up goes back with its transport.
            while let Some((task, origin)) = line.try_pop() {
                self.put_back(task, origin);
                if Instant::now() >= until {
                    break;
                }
            }
        }
        park::block_on_until(pin!(self.settler.at_work.idle()), until);
        self.settler.sent.close();
        self.watch.close();
    }

    /// Answers requests until there are no more.
    fn serve(self: &Arc<Self>, part: Part) {
        while let Some((task, mut origin)) = self.line(part).pop() {
            match &task {
                Task::Forward(forward) => {
                    let until = deadline_after(Instant::now(), life(&forward.message));
                    await_turn(&mut origin.turn, until);
                }
                Task::Run(job) => await_turn(origin.turn(&self.acceptor), job.deadline()),
                Task::Settle(_) | Task::TimedOut(_) => {}
            }
            if self.work(task, origin) == Place::Taken {
                return;
            }
        }
    }

    fn work(self: &Arc<Self>, task: Task, origin: Origin<T>) -> Place {
        match task {
            Task::Run(job) => return self.begin(job, origin),
            Task::Forward(forward) => self.forward(*forward, origin),
            other => self.put_back(other, origin),
        }
        Place::Mine
    }

    fn begin(self: &Arc<Self>, job: Job, origin: Origin<T>) -> Place {
        match job.begin(Instant::now()) {
            Begun::Run(request, running) => return self.run(request, running, origin),
            Begun::AckFirst(token, then) => {
                let acked = self.ack_first(token, &origin.post);
                match then.handle_ack(Instant::now(), acked.as_ref().map(|&()| ())) {
                    Ok((request, running)) => return self.run(request, running, origin),
                    Err(joined) => {
                        self.settler.at_work.end();
                        origin.settled();
                        self.settle_joined(joined);
                    }
                }
            }
            Begun::Settle(settlement) => self.settle(settlement, origin),
            Begun::Joined => {}
        }
        Place::Mine
    }

    fn run(self: &Arc<Self>, request: Request, running: Running, mut origin: Origin<T>) -> Place {
        origin.runs();
        let (deadline, cancellation) = (running.deadline(), running.cancellation().clone());
        let seat = self.watch.sit(running, origin);
        let ending = self.call(request, deadline, &cancellation);
        match self.watch.rise(&seat) {
            Ok((running, origin)) => {
                self.finish(running, ending, origin);
                Place::Mine
            }
            Err(overtaken) if overtaken.replaced => Place::Taken,
            Err(_) => Place::Mine,
        }
    }

    fn call(&self, request: Request, deadline: Instant, cancellation: &Cancellation) -> Ending {
        let answer = match catch_unwind(|| self.service.call(request)) {
            Ok(Work::Ready(answer)) => Ok(answer),
            Ok(Work::Blocking(work)) => catch_unwind(work),
            Ok(Work::Async(work)) => {
                let _entered = self.runtime.enter();
                let work = race(CatchUnwind::new(work), cancellation.cancelled());
                match park::block_on_until(pin!(work), deadline) {
                    Some(First::Left(answer)) => answer,
                    // The watch cancels too, at the deadline; this thread need not wait for it.
                    Some(First::Right(())) | None => return Ending::Cancelled,
                }
            }
            Err(panicked) => Err(panicked),
        };
        answer.map_or_else(|Panicked| Ending::Panicked, Ending::Answered)
    }

    fn finish(self: &Arc<Self>, running: Running, ending: Ending, origin: Origin<T>) {
        let Finished { settlement, joined } = running.finish(Instant::now(), ending);
        self.settle(settlement, origin);
        self.settle_joined(joined);
    }

    fn watch_all(self: &Arc<Self>) {
        while let Some(all) = self.watch.wait(&self.acceptor) {
            for task in all {
                match task {
                    Watched::Notice(to, message, post) => {
                        // It matters little whether that arrives, and others wait here.
                        if !post.transport.is_blocked() {
                            let until = deadline_after(Instant::now(), NOTICE_LIMIT);
                            drop(post.transport.publish(&to, message, until));
                        }
                    }
                    Watched::Overtaken {
                        running,
                        origin,
                        replace,
                    } => self.overtake(running, origin, replace),
                }
            }
        }
    }

    /// Answers for a thread that does not come back, and puts another one in its place.
    fn overtake(self: &Arc<Self>, running: Running, origin: Origin<T>, replace: Option<Seat>) {
        let part = origin.part();
        if let Some(seat) = replace
            && let Err(error) = self.spawn("rpc-worker", move |worker| worker.serve(part))
        {
            let kept = self.watch.keep(&seat);
            tracing::error!(%error, kept, "no thread for the place of a stuck handler");
        }
        // Others are due here too, and to answer may take its time.
        self.push(&self.answers, Task::TimedOut(running), origin);
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
