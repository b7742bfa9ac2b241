//! What became of the calls of a client. Attempts are counted in their table; what a caller sees is
//! counted here.

use std::sync::atomic::{AtomicU64, Ordering};

use rpc_proto::client::Stats;

/// What became of the calls of a client so far, and of the attempts at them.
///
/// `attempts.started` over `calls.started` says how often calls are tried again. Both parts are
/// looked at one after the other, so while calls run they may differ by those.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientStats {
    /// Messages that were to be sent. A call that finds no connection has none, one that is tried
    /// again has several.
    pub attempts: Stats,
    /// Calls as their callers see them: each counts once, however often it was tried.
    pub calls: CallStats,
}

/// What became of calls so far: begun, minus those that have ended in one way or another, are open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallStats {
    /// Ended with an error.
    pub failed: u64,
    /// Given up by the caller, who did not wait for the end.
    pub given_up: u64,
    /// Ended with a result.
    pub ok: u64,
    /// Begun: all but those whose arguments could not be encoded.
    pub started: u64,
}

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Failed,
    GivenUp,
    Ok,
}

/// Counts calls. Nothing else hangs on the numbers, so no order is needed.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    failed: AtomicU64,
    given_up: AtomicU64,
    ok: AtomicU64,
    started: AtomicU64,
}

impl Tally {
    pub(super) fn begin(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self, how: End) {
        let counter = match how {
            End::Failed => &self.failed,
            End::GivenUp => &self.given_up,
            End::Ok => &self.ok,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> CallStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CallStats {
            failed: read(&self.failed),
            given_up: read(&self.given_up),
            ok: read(&self.ok),
            started: read(&self.started),
        }
    }
}
