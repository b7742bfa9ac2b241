//! Load: so many calls, so many at once, each of them in the book.

mod tasks;
mod threads;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::ask::{Act, Ask};
use crate::ledger::{Book, now};
use crate::session::{Caller, Session};
use crate::setting::Setting;

/// What is called, how often, how fast.
#[derive(Clone)]
#[non_exhaustive]
pub struct Load {
    /// Calls in all.
    pub calls: u64,
    /// Calls open at once.
    pub in_flight: usize,
    /// How long each may take.
    pub timeout: Duration,
    /// Calls begun in a second; as many as there is room for when nothing is said.
    pub rate: Option<f64>,
    /// What the handler of a call does.
    pub act: Arc<dyn Fn(u64) -> Act + Send + Sync>,
    stop: Arc<AtomicBool>,
    /// How many may have begun so far.
    gate: Arc<AtomicU64>,
}

impl Load {
    /// The load of this setting, with this timeout.
    #[must_use]
    pub fn of(setting: &Setting, timeout: Duration) -> Self {
        Self {
            calls: setting.numbers.calls,
            in_flight: setting.numbers.in_flight,
            timeout,
            rate: None,
            act: Arc::new(|_| Act::Answer),
            stop: Arc::default(),
            gate: Arc::new(AtomicU64::new(u64::MAX)),
        }
    }

    /// Goes on as long as what happens to it, however many calls that takes.
    #[must_use]
    pub const fn without_end(mut self) -> Self {
        self.calls = u64::MAX;
        self
    }

    /// Begins so many calls a second, whatever becomes of them.
    #[must_use]
    pub const fn with_rate(mut self, rate: f64) -> Self {
        self.rate = Some(rate);
        self
    }

    /// Sets what the handler of each call does, by its key.
    #[must_use]
    pub fn with_act(mut self, act: impl Fn(u64) -> Act + Send + Sync + 'static) -> Self {
        self.act = Arc::new(act);
        self
    }

    /// Lets no more than so many calls begin until more is said: a load that is ahead of what happens
    /// to it would be over too soon.
    pub fn let_begin(&self, calls: u64) {
        self.gate.store(calls, Ordering::SeqCst);
    }

    /// What stops it before all calls are made.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }
}

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Load")
            .field("calls", &self.calls)
            .field("in_flight", &self.in_flight)
            .field("timeout", &self.timeout)
            .field("rate", &self.rate)
            .finish_non_exhaustive()
    }
}

/// Stops a load: no further call begins.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<AtomicBool>);

impl Stopper {
    /// No further call begins.
    pub fn stop(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What the callers of a load share.
struct Shared {
    load: Load,
    book: Arc<Book>,
    begun: Instant,
    next: AtomicU64,
    /// Dropped with the last of the callers.
    _done: mpsc::Sender<()>,
}

impl Shared {
    /// Takes the next call: which one it is, and when it is due. None when there is none left.
    fn take(&self) -> Option<(u64, Instant)> {
        if self.is_stopped() {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        if number >= self.load.calls {
            return None;
        }
        let after = self.load.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(number as f64 / rate)
        });
        Some((number, self.begun + after))
    }

    /// Whether a call has to wait for those before it.
    fn is_held(&self, number: u64) -> bool {
        number >= self.load.gate.load(Ordering::SeqCst) && !self.is_stopped()
    }

    fn is_stopped(&self) -> bool {
        self.load.stop.load(Ordering::SeqCst)
    }

    /// Opens the record of a call, and says what it asks.
    fn open(&self) -> Ask {
        let key = self.book.open(self.load.timeout);
        Ask::new(key).with_act((self.load.act)(key))
    }
}

/// Makes the calls, and returns when all have ended, or when those that have not are beyond hope: the
/// book shows which. `while_running` runs beside it, on this thread; the load goes on until its end
/// and its own, and one without end until that of `while_running`.
pub fn run<R>(
    session: &Session,
    load: &Load,
    book: &Arc<Book>,
    setting: &Setting,
    while_running: impl FnOnce() -> R,
) -> R {
    let (done, all_done) = mpsc::channel();
    let shared = Arc::new(Shared {
        load: load.clone(),
        book: Arc::clone(book),
        begun: Instant::now(),
        next: AtomicU64::new(0),
        _done: done,
    });
    match session.caller() {
        Caller::Tasks { client, runtime } => tasks::start(&runtime, &client, &shared),
        Caller::Threads(client) => threads::start(&client, &shared),
    }
    drop(shared);
    let over = AtomicBool::new(false);
    let watched = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                (setting.progress)(book.ended(), load.calls, "");
                thread::sleep(TICK);
            }
        });
        let watched = while_running();
        load.let_begin(u64::MAX);
        if load.calls == u64::MAX {
            load.stopper().stop();
        }
        wait(&all_done, book);
        over.store(true, Ordering::SeqCst);
        let _ = watch.join();
        watched
    });
    (setting.progress)(book.ended(), load.calls, "");
    watched
}

/// Waits until the last caller is done, or until no record is open that may still end in time.
fn wait(all_done: &mpsc::Receiver<()>, book: &Book) {
    loop {
        // Nobody sends: the end of the channel is the end of the last caller.
        match all_done.recv_timeout(TICK) {
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
        if book.begun() == book.ended() {
            continue;
        }
        let records = book.records();
        let open = records.iter().filter(|record| record.ended.is_none());
        let latest = open.map(|record| record.deadline).max();
        let patience = u64::try_from(PATIENCE.as_micros()).unwrap_or(u64::MAX);
        if latest.is_some_and(|deadline| deadline + patience < now()) {
            return;
        }
    }
}

/// How often a call that is held looks whether it still is.
const HELD: Duration = Duration::from_millis(2);

/// How often progress is shown, and the end looked for.
const TICK: Duration = Duration::from_millis(200);

/// How long after its deadline a call may still end, to be counted as late rather than as lost.
const PATIENCE: Duration = Duration::from_secs(10);
