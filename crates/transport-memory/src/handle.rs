//! The broker as people hold it: shared by all its transports, behind one lock.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread;
use std::time::Instant;

use rpc_core::{ErrorKind, ShortString, TransportError};

use crate::broker::Broker;
use crate::connection::MemoryTransport;
use crate::effects::Effects;

/// A message broker inside this process. Cheap to clone: clones are the same broker.
#[derive(Clone)]
pub struct MemoryBroker {
    state: Arc<State>,
}

struct State {
    broker: Mutex<Broker<Waker>>,
    /// Rung when what is held has changed.
    held: Condvar,
}

impl MemoryBroker {
    /// How many messages are ready in one queue at most, unless
    /// [`with_max_ready`](Self::with_max_ready) says otherwise.
    pub const MAX_READY: NonZeroUsize = NonZeroUsize::new(100_000).unwrap();

    /// A broker with no queues, which holds [`MAX_READY`](Self::MAX_READY) messages in each.
    #[must_use]
    pub fn new() -> Self {
        Self::with_max_ready(Self::MAX_READY)
    }

    /// A broker that refuses what is published to a queue where `max_ready` messages are ready.
    ///
    /// What consumers hold does not count, and what comes back into a queue is never refused.
    #[must_use]
    pub fn with_max_ready(max_ready: NonZeroUsize) -> Self {
        Self {
            state: Arc::new(State {
                broker: Mutex::new(Broker::new(max_ready)),
                held: Condvar::new(),
            }),
        }
    }

    /// A new connection to this broker. While it is [stopped](Self::stop), one that has ended.
    #[must_use]
    pub fn connect(&self) -> MemoryTransport {
        let connection = self.lock().connect();
        MemoryTransport::on(self.clone(), connection)
    }

    /// As [`connect`](Self::connect), and fails where there is nobody to connect to.
    pub(crate) fn dial(&self) -> Result<MemoryTransport, TransportError> {
        let mut broker = self.lock();
        if broker.is_stopped() {
            return Err(TransportError::new(ErrorKind::Connect, "memory", "connect")
                .with_detail("the broker is stopped"));
        }
        let connection = broker.connect();
        Ok(MemoryTransport::on(self.clone(), connection))
    }

    /// How many messages are ready in a queue, or `None` when there is no such queue. What consumers
    /// have been sent is not ready.
    #[must_use]
    pub fn queue_len(&self, name: &str) -> Option<usize> {
        let name = ShortString::new(name).ok()?;
        let now = Instant::now();
        self.with(|broker, effects| broker.ready_len(&name, now, effects))
    }

    /// How many messages of a queue are with consumers and not settled, received or not; `None`
    /// when there is no such queue. Of an inbox always 0.
    #[must_use]
    pub fn unsettled(&self, name: &str) -> Option<usize> {
        let name = ShortString::new(name).ok()?;
        self.lock().unsettled_len(&name)
    }

    /// Deletes a queue with all that is in it, as an operator would; whether there was one.
    ///
    /// Its consumers end with [`NotFound`](rpc_core::ErrorKind::NotFound). Tokens of its deliveries
    /// stay valid, and nothing comes back.
    pub fn delete_queue(&self, name: &str) -> bool {
        let Ok(name) = ShortString::new(name) else {
            return false;
        };
        self.with(|broker, effects| broker.delete(&name, effects))
    }

    /// Crashes and comes back at once: every transport ends with
    /// [`Closed`](rpc_core::ErrorKind::Closed) as the cause, as with [`sever`](MemoryTransport::sever).
    ///
    /// Durable and quorum queues stay, the durable ones with the persistent messages in them alone.
    /// Inboxes and transient queues are gone. [`connect`](Self::connect) works again.
    pub fn crash(&self) {
        let now = Instant::now();
        self.with(|broker, effects| broker.crash(now, effects));
    }

    /// Crashes, and stays away until [`start`](Self::start): meanwhile nobody connects.
    pub fn stop(&self) {
        let now = Instant::now();
        self.with(|broker, effects| broker.stop(now, effects));
    }

    /// Comes back after [`stop`](Self::stop).
    pub fn start(&self) {
        self.lock().start();
    }

    /// How many transports are connected.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.lock().open_connections()
    }

    /// Blocks publishers, as a broker does that is short of memory, or lets them go on.
    ///
    /// What is published meanwhile waits; its confirm resolves when publishers may go on, or at the
    /// deadline to [`Timeout`](rpc_core::ErrorKind::Timeout), certainly not executed. What is
    /// settled and what is consumed goes on.
    pub fn block_publishers(&self, blocked: bool) {
        let now = Instant::now();
        self.with(|broker, effects| broker.block(blocked, now, effects));
        self.state.held.notify_all();
    }

    /// Sees to it that what is held next fails at its deadline, in a thread that is there as long
    /// as anything is held: neither face has a timer of its own.
    pub(crate) fn watch_held(&self, broker: &Broker<Waker>) -> io::Result<()> {
        self.state.held.notify_all();
        if broker.is_watched() {
            return Ok(());
        }
        // It begins with waiting for the lock, which our caller has.
        let this = self.clone();
        thread::Builder::new()
            .name("memory-held".to_owned())
            .spawn(move || while this.watch_once() {})?;
        Ok(())
    }

    /// Waits for the next deadline of what is held; `false` when there is none.
    fn watch_once(&self) -> bool {
        let now = Instant::now();
        let mut effects = Effects::default();
        let mut broker = self.lock();
        let next = broker.refuse_overdue(now, &mut effects);
        if let Some(next) = next
            && effects.verdicts.is_empty()
        {
            let left = next.saturating_duration_since(now);
            let woken = self.state.held.wait_timeout(broker, left);
            drop(woken.unwrap_or_else(PoisonError::into_inner));
        } else {
            drop(broker);
        }
        effects.run();
        next.is_some()
    }

    /// Does one thing to the broker, and afterwards, outside the lock, what it entails.
    pub(crate) fn with<R>(
        &self,
        verb: impl FnOnce(&mut Broker<Waker>, &mut Effects<Waker>) -> R,
    ) -> R {
        let mut effects = Effects::default();
        let mut broker = self.lock();
        let result = verb(&mut broker, &mut effects);
        if !effects.dead.is_empty() {
            broker.bury(Instant::now(), &mut effects);
        }
        drop(broker);
        effects.run();
        result
    }

    /// The broker itself. Nothing foreign runs under this lock, so poison is of no meaning.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Broker<Waker>> {
        self.state
            .broker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryBroker {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the state: it holds the bodies of messages.
        f.debug_struct("MemoryBroker").finish_non_exhaustive()
    }
}
