//! How far a server is: whether requests still come, and which of its threads still run.

use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rpc_proto::{LONGEST_WAIT, TransportError, deadline_after};

/// Told by the threads of a server, and waited for by its owner.
#[derive(Debug, Default)]
pub(super) struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Why no more requests come.
    ended: Option<Result<(), TransportError>>,
    /// Until when what has begun may take, once the owner wants to stop.
    stop: Option<Instant>,
    /// Everything is over that can be.
    over: bool,
    threads: usize,
}

/// One thread that runs; dropped when it ends, in whatever way.
#[derive(Debug)]
pub(super) struct Alive(Arc<Progress>);

impl Progress {
    /// Counts one more thread.
    pub(super) fn enter(progress: &Arc<Self>) -> Alive {
        progress.state().threads += 1;
        Alive(Arc::clone(progress))
    }

    /// No more requests come.
    pub(super) fn end(&self, cause: Result<(), TransportError>) {
        self.state().ended.get_or_insert(cause);
        self.changed.notify_all();
    }

    /// The owner wants it to stop; what has begun may take until then.
    pub(super) fn stop(&self, until: Instant) {
        self.state().stop.get_or_insert(until);
        self.changed.notify_all();
    }

    /// Until when what has begun may take, if the owner wants it to stop.
    pub(super) fn stopping(&self) -> Option<Instant> {
        self.state().stop
    }

    /// The last transport is left, and all lines are closed.
    pub(super) fn over(&self) {
        self.state().over = true;
        self.changed.notify_all();
    }

    pub(super) fn is_over(&self) -> bool {
        self.state().over
    }

    /// Waits for [`end`](Self::end); `None` when it has not come by `deadline`.
    pub(super) fn wait_ended(&self, deadline: Instant) -> Option<Result<(), TransportError>> {
        self.wait(deadline, |state| state.ended.is_some())
            .ended
            .clone()
    }

    /// Waits for [`over`](Self::over), at most until `deadline`.
    pub(super) fn wait_over(&self, deadline: Instant) {
        drop(self.wait(deadline, |state| state.over));
    }

    /// Waits until no more than so many threads are left, at most until `deadline`.
    pub(super) fn wait_gone(&self, left: usize, deadline: Instant) {
        drop(self.wait(deadline, |state| state.threads <= left));
    }

    fn wait(&self, deadline: Instant, done: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let longest = deadline_after(Instant::now(), LONGEST_WAIT);
        let left = deadline
            .min(longest)
            .saturating_duration_since(Instant::now());
        let waited = self
            .changed
            .wait_timeout_while(self.state(), left, |state| !done(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Alive {
    type Target = Progress;

    fn deref(&self) -> &Progress {
        &self.0
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.state().threads -= 1;
        self.0.changed.notify_all();
    }
}
