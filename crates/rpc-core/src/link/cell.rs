//! The link machine behind its lock, and who waits for it to be up.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Instant;

use rpc_proto::link::{Generation, Link, LinkState, Step, needs_operator};
use rpc_proto::{ShortString, TransportError};

use crate::Observer;
use crate::race::{First, race};

/// A link, shared by its owner and its supervisor.
///
/// Waits need no runtime: the async face awaits them, the blocking one parks a thread on them.
pub(crate) struct LinkCell {
    inner: Mutex<Inner>,
    /// How often it has changed.
    changes: AtomicU64,
    observer: Option<Arc<dyn Observer>>,
    whose: Whose,
}

/// Whose link it is, for the log.
pub(crate) struct Whose {
    pub(crate) role: &'static str,
    pub(crate) queue: ShortString,
}

struct Inner {
    link: Link,
    /// Since when there has been no connection, where that was logged.
    down_since: Option<Instant>,
    /// Who waits, by the number of its wait.
    waiting: HashMap<u64, Waker>,
    waits: u64,
}

impl LinkCell {
    pub(crate) fn new(link: Link, observer: Option<Arc<dyn Observer>>, whose: Whose) -> Arc<Self> {
        let inner = Mutex::new(Inner {
            link,
            down_since: None,
            waiting: HashMap::new(),
            waits: 0,
        });
        Arc::new(Self {
            inner,
            changes: AtomicU64::new(0),
            observer,
            whose,
        })
    }

    /// Whether there is a connection.
    pub(crate) fn state(&self) -> LinkState {
        self.lock().link.state()
    }

    /// Why there is no connection, if there is none.
    pub(crate) fn trouble(&self) -> Option<TransportError> {
        self.state().trouble()
    }

    /// What the supervisor has to do now.
    pub(crate) fn poll(&self) -> Step {
        self.lock().link.poll(Instant::now())
    }

    /// The transport is there. `arrive` is called with its generation before anybody can see that it
    /// is up; where the owner has ended the link meanwhile, it is not called.
    pub(crate) fn handle_up(&self, arrive: impl FnOnce(Generation)) -> Option<Generation> {
        let mut inner = self.lock();
        let generation = inner.link.handle_up(Instant::now())?;
        // Under the lock: an end that comes in between would be undone by a late arrival.
        arrive(generation);
        let down_since = inner.down_since.take();
        self.tell(inner);
        let Whose { role, queue } = &self.whose;
        match down_since.map(|since| since.elapsed()) {
            Some(after) => tracing::info!(role, %queue, ?after, "connected again"),
            None => tracing::debug!(role, %queue, "connected"),
        }
        Some(generation)
    }

    pub(crate) fn handle_failed(&self, cause: &TransportError) {
        let mut inner = self.lock();
        let is_news = inner.link.handle_failed(Instant::now(), cause.clone());
        if is_news {
            inner.down_since.get_or_insert_with(Instant::now);
        }
        self.tell(inner);
        let Whose { role, queue } = &self.whose;
        let why = Chain(cause);
        if !is_news {
            tracing::debug!(role, %queue, cause = %why, "could not connect");
        } else if needs_operator(cause.kind()) {
            tracing::warn!(role, %queue, cause = %why, "no connection, and trying again will not mend it");
        } else {
            tracing::warn!(role, %queue, cause = %why, "could not connect, and goes on trying");
        }
    }

    pub(crate) fn handle_lost(&self, generation: Generation, cause: &TransportError) {
        let mut inner = self.lock();
        let now = Instant::now();
        if !inner.link.handle_lost(now, generation, cause.clone()) {
            return;
        }
        inner.down_since.get_or_insert(now);
        let given = matches!(inner.link.state(), LinkState::Lost(_));
        self.tell(inner);
        let Whose { role, queue } = &self.whose;
        let why = Chain(cause);
        if given {
            // Its owner made the transport, and may have closed it.
            tracing::debug!(role, %queue, cause = %why, "the transport has ended");
        } else if needs_operator(cause.kind()) {
            tracing::warn!(role, %queue, cause = %why, "the connection is lost, and trying again will not mend it");
        } else {
            tracing::warn!(role, %queue, cause = %why, "the connection is lost");
        }
    }

    /// Ends it, because nobody can drive it.
    #[cfg(feature = "blocking")]
    pub(crate) fn abandon(&self, cause: TransportError) {
        let mut inner = self.lock();
        inner.link.abandon(cause);
        self.tell(inner);
    }

    /// Ends it, at the owner's wish.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        if !matches!(inner.link.state(), LinkState::Closed) {
            inner.link.close();
            self.tell(inner);
        }
    }

    /// Waits until it is up, and fails with the state in which it never will be again.
    ///
    /// Cancel safe.
    pub(crate) async fn until_up(&self) -> Result<Generation, LinkState> {
        self.until(|state| match state {
            LinkState::Up(generation) => Some(Ok(*generation)),
            LinkState::Closed | LinkState::Lost(_) => Some(Err(state.clone())),
            _ => None,
        })
        .await
    }

    /// Waits until it is up; shorter where there is no use in that: it never will be again, or only a
    /// person can mend what keeps it down. Fails with the cause.
    ///
    /// Cancel safe.
    pub(crate) async fn until_ready(&self) -> Result<(), TransportError> {
        self.until_link(|link| match link.state() {
            LinkState::Up(_) => Some(Ok(())),
            state @ (LinkState::Closed | LinkState::Lost(_)) => state.trouble().map(Err),
            state if link.needs_operator() => state.trouble().map(Err),
            _ => None,
        })
        .await
    }

    /// What a wait for it came to, which may have run out of time.
    pub(crate) fn ready(
        &self,
        waited: Option<Result<(), TransportError>>,
    ) -> Result<(), TransportError> {
        waited.unwrap_or_else(|| self.trouble().map_or(Ok(()), Err))
    }

    /// Waits until the owner has ended it.
    ///
    /// Cancel safe.
    pub(crate) async fn until_closed(&self) {
        self.until(|state| matches!(state, LinkState::Closed).then_some(()))
            .await;
    }

    /// Does `work` unless the owner ends the link first.
    pub(crate) async fn unless_closed<F: Future>(&self, work: F) -> Option<F::Output> {
        match race(work, self.until_closed()).await {
            First::Left(output) => Some(output),
            First::Right(()) => None,
        }
    }

    /// Waits until `look` sees what it looks for.
    async fn until<R>(&self, look: impl Fn(&LinkState) -> Option<R>) -> R {
        self.until_link(|link| look(&link.state())).await
    }

    async fn until_link<R>(&self, look: impl Fn(&Link) -> Option<R>) -> R {
        let mut wait = Wait {
            cell: self,
            number: None,
        };
        let mut last: Option<(u64, Waker)> = None;
        poll_fn(|context| {
            // Whoever receives is woken for each message, and has waited for the end all along.
            if let Some((changes, waker)) = &last
                && *changes == self.changes.load(Ordering::Acquire)
                && waker.will_wake(context.waker())
            {
                return Poll::Pending;
            }
            let mut inner = self.lock();
            if let Some(seen) = look(&inner.link) {
                return Poll::Ready(seen);
            }
            let changes = self.changes.load(Ordering::Acquire);
            last = Some((changes, context.waker().clone()));
            let number = *wait.number.get_or_insert_with(|| {
                inner.waits += 1;
                inner.waits
            });
            inner.waiting.insert(number, context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Tells observer and waiters of a change, after the lock is released.
    fn tell(&self, mut inner: MutexGuard<'_, Inner>) {
        // Under the lock, with what has changed.
        self.changes.fetch_add(1, Ordering::AcqRel);
        let state = inner.link.state();
        let waiting = std::mem::take(&mut inner.waiting);
        drop(inner);
        if let Some(observer) = &self.observer {
            observer.link_changed(&state);
        }
        waiting.into_values().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One wait. Given up, it leaves nothing behind: a link that stays up for days is waited on by every
/// call that pauses.
struct Wait<'a> {
    cell: &'a LinkCell,
    number: Option<u64>,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let waker = self.cell.lock().waiting.remove(&number);
            // After the lock: its last reference may be that of a task.
            drop(waker);
        }
    }
}

impl fmt::Debug for LinkCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LinkCell").field(&self.state()).finish()
    }
}
/// An error with all that it came from, in a line.
struct Chain<'e>(&'e TransportError);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
