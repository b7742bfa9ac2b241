//! The threads of one transport: how they start, who watches their deadlines, how they all end.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use futures_channel::oneshot;

use super::errand::Errands;
use super::feed::Feed;
use super::lane::{Lane, Publish, Settle, caught, unanswered};
use crate::adapt::{CLOSE, lock};
use crate::blocking::Transport;
use crate::{ConsumerId, ErrorKind, TransportError};

/// How late a command that waits may learn that its time is up.
const TICK: Duration = Duration::from_millis(20);

/// What the threads share. It does not hold the inner transport: whoever holds
/// this on an async thread could be the last to drop it there.
pub(super) struct Crew {
    transport: &'static str,
    pub(super) publishes: Lane<Publish>,
    pub(super) settles: Lane<Settle>,
    pub(super) errands: Errands,
    /// By consumer; `None` after the end.
    feeds: Mutex<Option<HashMap<ConsumerId, Arc<Feed>>>>,
    threads: Mutex<Threads>,
    /// Rung when a thread ends.
    fewer: Condvar,
    /// Whether the keeper has its eye on the lanes, so that a push need not wake it.
    watched: AtomicBool,
    bell: Mutex<Bell>,
    rung: Condvar,
}

#[derive(Default)]
struct Threads {
    /// No more are started.
    ended: bool,
    handles: Vec<JoinHandle<()>>,
    running: usize,
}

/// What the keeper is told.
#[derive(Default)]
struct Bell {
    /// Something was put into a lane.
    work: bool,
    /// It is time to end.
    end: bool,
    /// The inner transport is given up: what it has not answered.
    stuck: Option<&'static str>,
    /// The end has been brought about.
    over: bool,
    /// Who waits for that.
    waiters: Vec<oneshot::Sender<()>>,
}

impl Crew {
    /// A crew whose keeper runs: the one thread that never calls the inner transport, and so is never
    /// held up.
    pub(super) fn start<T: Transport>(inner: &Arc<T>) -> Result<Arc<Self>, TransportError> {
        let transport = inner.name();
        let crew = Arc::new(Self {
            transport,
            publishes: Lane::new(transport),
            settles: Lane::new(transport),
            errands: Errands::default(),
            feeds: Mutex::new(Some(HashMap::new())),
            threads: Mutex::default(),
            fewer: Condvar::new(),
            watched: AtomicBool::new(false),
            bell: Mutex::default(),
            rung: Condvar::new(),
        });
        let (keeper, inner) = (Arc::clone(&crew), Arc::clone(inner));
        thread::Builder::new()
            .name("offload-keeper".to_owned())
            .spawn(move || keeper.keep(inner))
            .map_err(|error| no_thread(transport, "offload", error))?;
        Ok(crew)
    }

    /// Runs `work` in a thread of its own, which the end waits for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`] after the end; [`ErrorKind::Other`] when the system has no thread to
    /// give.
    pub(super) fn spawn(
        self: &Arc<Self>,
        role: &'static str,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), TransportError> {
        let mut threads = lock(&self.threads);
        if threads.ended {
            return Err(TransportError::new(ErrorKind::Closed, self.transport, role));
        }
        threads.handles.retain(|handle| !handle.is_finished());
        let crew = Arc::clone(self);
        let handle = thread::Builder::new()
            .name(format!("offload-{role}"))
            .spawn(move || {
                // Declared first and so dropped last, after all that `work` has taken along.
                let _present = Present(crew);
                work();
            })
            .map_err(|error| no_thread(self.transport, role, error))?;
        // The lock is still held: the thread cannot be counted out before it is counted in.
        threads.running += 1;
        threads.handles.push(handle);
        Ok(())
    }

    /// Sees to it that what was just put into a lane does not outwait its deadline.
    pub(super) fn watch(&self) {
        // Almost always true while there is work, so that a push costs no wake-up of the keeper.
        if !self.watched.swap(true, Ordering::AcqRel) {
            lock(&self.bell).work = true;
            self.rung.notify_all();
        }
    }

    /// Makes the feed known to `cancel` and to the end; stops it when the end has come already.
    pub(super) fn register(&self, consumer: ConsumerId, feed: &Arc<Feed>) {
        match &mut *lock(&self.feeds) {
            Some(feeds) => {
                feeds.insert(consumer, Arc::clone(feed));
            }
            None => drop(feed.stop()),
        }
    }

    /// The feed of a consumer that was not dropped yet.
    pub(super) fn feed(&self, consumer: ConsumerId) -> Option<Arc<Feed>> {
        lock(&self.feeds).as_ref()?.get(&consumer).cloned()
    }

    /// Forgets the feed of a consumer that is dropped.
    pub(super) fn forget(&self, consumer: ConsumerId) {
        if let Some(feeds) = &mut *lock(&self.feeds) {
            feeds.remove(&consumer);
        }
    }

    /// Whether the end has begun.
    pub(super) fn is_ending(&self) -> bool {
        lock(&self.bell).end
    }

    /// Begins the end.
    pub(super) fn end(&self) {
        lock(&self.bell).end = true;
        self.rung.notify_all();
    }

    /// Begins the end; what it returns resolves when all threads are gone.
    pub(super) fn end_and_tell(&self) -> oneshot::Receiver<()> {
        let (waiter, over) = oneshot::channel();
        let mut bell = lock(&self.bell);
        bell.end = true;
        if !bell.over {
            bell.waiters.push(waiter);
        }
        drop(bell);
        self.rung.notify_all();
        over
    }

    /// The life of the keeper.
    fn keep<T: Transport>(self: &Arc<Self>, inner: Arc<T>) {
        self.watch_until_end();
        let deadline = Instant::now() + CLOSE;
        self.publishes.close();
        self.settles.close();
        self.errands.close();
        let stuck = lock(&self.bell).stuck;
        if stuck.is_some() {
            // Nobody looks at their deadlines any more, and what they wait for does not answer.
            self.errands.abandon();
        }
        let feeds = lock(&self.feeds).take().unwrap_or_default();
        for feed in feeds.values() {
            // Not put back one by one: what is not settled goes back when the transport closes.
            match stuck {
                None => drop(feed.stop()),
                Some(operation) => feed.fail(self.given_up(operation)),
            }
        }
        let closed = self.begin_to_close(&inner);
        lock(&self.threads).ended = true;
        if !self.has_closed_by(&closed, deadline) {
            tracing::warn!(
                transport = self.transport,
                "the transport has not closed in time"
            );
        }
        self.join(deadline);
        self.publishes.abandon();
        self.settles.abandon();
        self.errands.abandon();
        // The last one, when the adapter was dropped and not closed: so the inner transport is
        // dropped here and never on an async thread.
        drop(inner);
        let waiters = {
            let mut bell = lock(&self.bell);
            bell.over = true;
            std::mem::take(&mut bell.waiters)
        };
        for waiter in waiters {
            let _ = waiter.send(());
        }
    }

    /// Closes the inner transport in a thread of its own, since it may never come back; what is
    /// returned is disconnected when it has.
    fn begin_to_close<T: Transport>(self: &Arc<Self>, inner: &Arc<T>) -> mpsc::Receiver<()> {
        let (done, closed) = mpsc::channel::<()>();
        let (inner, transport) = (Arc::clone(inner), self.transport);
        let spawned = self.spawn("close", move || {
            if let Err(error) = caught(transport, "close", || inner.close()) {
                tracing::debug!(%error, "the inner transport did not close in good order");
            }
            drop(inner);
            drop(done);
        });
        if let Err(error) = spawned {
            // It ends when its last holder drops it.
            tracing::warn!(%error, "a transport was not closed");
        }
        closed
    }

    /// Waits for the inner transport to close; whether it has in time.
    fn has_closed_by(&self, closed: &mpsc::Receiver<()>, deadline: Instant) -> bool {
        loop {
            let left = left_until(deadline);
            match closed.recv_timeout(left.min(TICK)) {
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return false,
                Err(RecvTimeoutError::Timeout) => self.answer_overdue(),
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
    }

    /// Answers what has taken too long while the end is under way: what was begun before keeps its own
    /// deadline, which may come long before that of the end.
    fn answer_overdue(&self) {
        let now = Instant::now();
        // There is nothing left to give up.
        let _ = (
            self.publishes.look(now),
            self.settles.look(now),
            self.errands.look(now),
        );
    }

    /// Why a transport has ended that did not answer.
    fn given_up(&self, operation: &'static str) -> TransportError {
        TransportError::new(ErrorKind::Closed, self.transport, operation)
            .with_source(unanswered(self.transport, operation))
    }

    /// Answers for the inner transport when that takes too long, and gives it up.
    ///
    /// While there is work it looks every tick, and otherwise sleeps: that bounds the lateness, and
    /// keeps the hot path free of timers.
    fn watch_until_end(&self) {
        loop {
            let mut bell = self
                .rung
                .wait_while(lock(&self.bell), |bell| !bell.work && !bell.end)
                .unwrap_or_else(PoisonError::into_inner);
            bell.work = false;
            drop(bell);
            loop {
                let now = Instant::now();
                let next = self.sweep(now);
                let nap = next.map_or(TICK, |next| next.saturating_duration_since(now).min(TICK));
                let (bell, _) = self
                    .rung
                    .wait_timeout_while(lock(&self.bell), nap, |bell| !bell.end)
                    .unwrap_or_else(PoisonError::into_inner);
                if bell.end {
                    return;
                }
                drop(bell);
                if next.is_some() {
                    continue;
                }
                // First the flag, then the look: whoever pushes after the look sees the flag down,
                // because the lane's lock is between them, and rings.
                self.watched.store(false, Ordering::Release);
                if self.sweep(Instant::now()).is_none() {
                    break;
                }
                self.watched.store(true, Ordering::Release);
            }
        }
    }

    fn sweep(&self, now: Instant) -> Option<Instant> {
        let looks = [
            self.publishes.look(now),
            self.settles.look(now),
            self.errands.look(now),
        ];
        if let Some(operation) = looks.iter().find_map(|look| look.stuck) {
            tracing::warn!(
                transport = self.transport,
                operation,
                "the transport does not answer, and is given up"
            );
            let mut bell = lock(&self.bell);
            bell.end = true;
            bell.stuck.get_or_insert(operation);
        }
        looks.iter().filter_map(|look| look.next).min()
    }

    /// Waits for every thread but the keeper. One that does not come back by `deadline` is left to
    /// itself: the inner transport breaks its contract, and nobody should hang for it.
    fn join(&self, deadline: Instant) {
        let mut threads = lock(&self.threads);
        while threads.running > 0 && !left_until(deadline).is_zero() {
            let nap = left_until(deadline).min(TICK);
            threads = self
                .fewer
                .wait_timeout_while(threads, nap, |threads| threads.running > 0)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            // Not under the lock: whoever is answered may run anything.
            drop(threads);
            self.answer_overdue();
            threads = lock(&self.threads);
        }
        let running = threads.running;
        let handles = std::mem::take(&mut threads.handles);
        drop(threads);
        if running > 0 {
            tracing::warn!(
                transport = self.transport,
                running,
                "threads are held up in a transport that was closed"
            );
        }
        for handle in handles {
            if running == 0 || handle.is_finished() {
                // A panic was reported by the hook, and everyone it concerned has been answered.
                let _ = handle.join();
            }
        }
    }
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crew")
            .field("publishes", &self.publishes)
            .field("settles", &self.settles)
            .finish_non_exhaustive()
    }
}

fn left_until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// Held by a thread as long as it runs.
struct Present(Arc<Crew>);

impl Drop for Present {
    fn drop(&mut self) {
        lock(&self.0.threads).running -= 1;
        self.0.fewer.notify_all();
    }
}

fn no_thread(
    transport: &'static str,
    operation: &'static str,
    error: std::io::Error,
) -> TransportError {
    TransportError::new(ErrorKind::Other, transport, operation)
        .with_detail("the system has no thread to give")
        .with_source(error)
}
