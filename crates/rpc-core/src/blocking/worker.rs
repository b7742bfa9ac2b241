//! What the threads of a blocking server do: workers, a settler, and a watch.
//!
//! ```text
//!  receiver: accept ──▶ worker 1 … n: run, publish the reply ──▶ settler: confirm, acknowledge
//!                              ╰──── watch: notice, cancel, replace ────╯
//! ```
//!
//! The receiver reads ahead while all workers are busy, so that it is known how long a request has
//! waited: what the client library buffers, it buffers without a time. A worker does not wait for
//! the confirm of its reply: it would stand still for a round trip with each request. The settler
//! waits instead, for all workers. Both lines are bounded by the prefetch.

use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rpc_proto::server::{
    Accepted, Acceptor, AfterForward, AfterReply, Begun, Ending, Finished, Forward, Forwarded,
    Intake, Job, Part, Request, Running, Settlement, Verdict,
};
use rpc_proto::{Cancellation, Delivery, ErrorKind, LONGEST_WAIT, TransportError, deadline_after};

use super::Transport;
use super::line::Line;
use super::progress::Progress;
use super::watch::{Due, Seat, Watch};
use crate::server::{
    AtWork, CatchUnwind, First, NOTICE_LIMIT, Origin, Panicked, Post, Posts, await_turn,
    catch_unwind, life, race, reply_limit, unix_ms,
};
use crate::{Confirm, Fate, Observer, Service, Work, park};

/// What the threads of one server share.
pub(super) struct Worker<T, S> {
    service: S,
    pub(super) acceptor: Acceptor,
    pub(super) posts: Posts<T>,
    pub(super) at_work: AtWork,
    pub(super) progress: Arc<Progress>,
    /// What waits for a worker.
    accepted: Line<(Task, Origin<T>)>,
    /// What is to be passed on to quarantine, and what came from there. The workers may all be
    /// waiting for these, so each has a thread of its own.
    forwards: Line<(Task, Origin<T>)>,
    suspects: Line<(Task, Origin<T>)>,
    /// What waits for its confirm.
    sent: Line<Sent<T>>,
    watch: Watch<T>,
    observer: Option<Arc<dyn Observer>>,
    settle_timeout: Duration,
    runtime: Runtime,
}

/// What a worker does.
#[derive(Debug)]
enum Task {
    Forward(Box<Forward>),
    Run(Job),
    Settle(Settlement),
}

/// A message that was handed over, until when its confirm is awaited, and what comes after.
struct Sent<T> {
    confirm: Result<Confirm, TransportError>,
    until: Instant,
    then: Then,
    origin: Origin<T>,
}

enum Then {
    Forward(AfterForward),
    Reply(AfterReply),
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
            posts: Posts::new(),
            at_work: AtWork::default(),
            progress: Arc::default(),
            accepted: Line::new(),
            forwards: Line::new(),
            suspects: Line::new(),
            sent: Line::new(),
            watch: Watch::new(),
            observer,
            settle_timeout: settle_timeout.min(LONGEST_WAIT),
            runtime,
        }
    }

    /// Starts the threads that outlive each transport.
    pub(super) fn start(self: &Arc<Self>, concurrency: usize) -> Result<(), TransportError> {
        self.spawn("rpc-settler", |worker| worker.settle_all())?;
        self.spawn("rpc-watch", |worker| worker.watch_all())?;
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
        self.at_work.begin();
        let mut origin = Origin::new(post, &delivery, self.observer.as_ref());
        let accepted = intake.accept(delivery, Instant::now(), unix_ms());
        origin.turn = self.acceptor.arrive(&accepted);
        let line = self.line(origin.part());
        let task = match accepted {
            Accepted::Forward(forward) => Task::Forward(forward),
            Accepted::Job(job) => Task::Run(job),
            Accepted::Settlement(settlement) => Task::Settle(settlement),
            // Settled together with the one that runs.
            Accepted::Joined => return,
        };
        if let Err((task, origin)) = line.push((task, origin)) {
            // Nothing begins any more, so this is done at once.
            self.work(task, origin);
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

    const fn lines(&self) -> [&Line<(Task, Origin<T>)>; 3] {
        [&self.accepted, &self.forwards, &self.suspects]
    }

    const fn line(&self, part: Part) -> &Line<(Task, Origin<T>)> {
        match part {
            Part::Forward => &self.forwards,
            Part::Suspect => &self.suspects,
            Part::Work => &self.accepted,
        }
    }

    /// Does what is left to do for a request that will not begin here: this is no worker's thread.
    fn put_back(self: &Arc<Self>, task: Task, origin: Origin<T>) {
        if let Task::Run(job) = task {
            self.settle(job.hand_back(Instant::now()), origin);
        } else {
            self.work(task, origin);
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
        park::block_on_until(pin!(self.at_work.idle()), until);
        self.sent.close();
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
                Task::Settle(_) => {}
            }
            if self.work(task, origin) == Place::Taken {
                return;
            }
        }
    }

    fn work(self: &Arc<Self>, task: Task, origin: Origin<T>) -> Place {
        match task {
            Task::Run(job) => return self.begin(job, origin),
            Task::Settle(settlement) => self.settle(settlement, origin),
            Task::Forward(forward) => {
                let Forward { to, message, then } = *forward;
                let until = deadline_after(Instant::now(), self.settle_timeout);
                let confirm = origin.post.transport.publish(&to, message, until);
                self.await_confirm(confirm, until, Then::Forward(then), origin);
            }
        }
        Place::Mine
    }

    fn begin(self: &Arc<Self>, job: Job, origin: Origin<T>) -> Place {
        match job.begin(Instant::now()) {
            Begun::Run(request, running) => return self.run(request, running, origin),
            Begun::AckFirst(token, then) => {
                let acked = origin.post.transport.ack(token);
                match then.handle_ack(Instant::now(), acked.as_ref().map(|&()| ())) {
                    Ok((request, running)) => return self.run(request, running, origin),
                    Err(joined) => {
                        self.at_work.end();
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
                    // The clock cancels too, at the deadline.
                    Some(First::Right(())) if Instant::now() < deadline => {
                        return Ending::Cancelled;
                    }
                    Some(First::Right(())) | None => return Ending::TimedOut,
                }
            }
            Err(panicked) => Err(panicked),
        };
        answer.map_or_else(|Panicked| Ending::Panicked, Ending::Answered)
    }

    fn finish(&self, running: Running, ending: Ending, origin: Origin<T>) {
        let Finished { settlement, joined } = running.finish(Instant::now(), ending);
        self.settle(settlement, origin);
        self.settle_joined(joined);
    }

    /// Sends the reply on its way, or settles at once where there is none.
    fn settle(&self, settlement: Settlement, mut origin: Origin<T>) {
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
    fn settle_joined(&self, joined: Vec<Settlement>) {
        for settlement in joined {
            match self.posts.of(settlement.consumer()) {
                Some(post) => self.settle(settlement, Origin::joined(post)),
                // It went back with its transport.
                None => self.at_work.end(),
            }
        }
    }

    fn await_confirm(
        &self,
        confirm: Result<Confirm, TransportError>,
        until: Instant,
        then: Then,
        origin: Origin<T>,
    ) {
        let sent = Sent {
            confirm,
            until,
            then,
            origin,
        };
        if let Err(sent) = self.sent.push(sent) {
            // The settler has gone: this comes after the end.
            self.confirm(sent);
        }
    }

    /// Waits for the confirm of each reply in turn. A broker confirms about in order, and each reply
    /// has had its time since it was sent: many that are never confirmed take no longer than one.
    fn settle_all(&self) {
        while let Some(sent) = self.sent.pop() {
            self.confirm(sent);
        }
    }

    fn confirm(&self, sent: Sent<T>) {
        let Sent {
            confirm,
            until,
            then,
            origin,
        } = sent;
        let confirmed = confirm.and_then(|confirm| confirm.wait(until));
        if let Err(error) = &confirmed {
            tracing::debug!(%error, "a message could not be delivered");
        }
        let confirmed = confirmed.as_ref().map(|&()| ());
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

    fn carry_out(&self, verdict: Verdict, post: &Arc<Post<T>>) {
        let transport = &post.transport;
        let settled = match verdict {
            Verdict::Ack(token) => transport.ack(token),
            Verdict::Discard(token) => transport.reject(token, Fate::Discard),
            Verdict::Requeue(token) => transport.reject(token, Fate::Requeue),
            Verdict::Settled => Ok(()),
        };
        if let Err(error) = settled {
            // Unsettled, the request comes again when this transport has ended.
            tracing::debug!(%error, "a request could not be settled");
        }
        self.at_work.end();
    }

    fn watch_all(self: &Arc<Self>) {
        while let Some(all) = self.watch.wait(&self.acceptor) {
            for due in all {
                match due {
                    Due::Notice(to, message, post) => {
                        // It matters little whether that arrives, and others wait here.
                        if !post.transport.is_blocked() {
                            let until = deadline_after(Instant::now(), NOTICE_LIMIT);
                            drop(post.transport.publish(&to, message, until));
                        }
                    }
                    Due::Overtaken {
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
            tracing::error!(%error, "no thread for the place of a stuck handler");
            self.watch.keep(&seat);
        }
        self.finish(running, Ending::TimedOut, origin);
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
