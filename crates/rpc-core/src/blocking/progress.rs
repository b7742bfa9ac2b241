//! How far a server is: whether requests still come, and which of its threads still run.

use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rpc_proto::TransportError;

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

    /// Waits for [`end`](Self::end); `None` when it has not come by `deadline`.
    pub(super) fn wait_ended(&self, deadline: Instant) -> Option<Result<(), TransportError>> {
        self.wait(deadline, |state| state.ended.is_some())
            .ended
            .clone()
    }

    /// Waits until no thread is left, at most until `deadline`.
    pub(super) fn wait_all_gone(&self, deadline: Instant) {
        drop(self.wait(deadline, |state| state.threads == 0));
    }

    /// Whether no thread is left.
    pub(super) fn is_all_gone(&self) -> bool {
        self.state().threads == 0
    }

    fn wait(&self, deadline: Instant, done: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let left = deadline.saturating_duration_since(Instant::now());
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
