//! One call with its attempts, as far as it is the same on both faces.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use rpc_proto::client::{Attempts, Next, Request};
use rpc_proto::wire::{Reply, TRACEPARENT};
use rpc_proto::{
    Address, CallError, CallId, Cancellation, Certainty, ErrorKind, Message, TransportError,
};

#[cfg(feature = "blocking")]
use super::Stub;
use super::open_call::{OpenCall, new_id};
use super::stats::End;
use super::table::CallResult;
use super::{CallOptions, Core};
use crate::CallEvent;
use crate::clock::unix_ms;
use crate::race::{First, race};

/// A call that has begun.
pub(crate) struct Run<'a, T> {
    core: &'a Core<T>,
    attempts: Attempts,
    request: Request,
    cancellation: Option<Cancellation>,
    /// The identity of the first attempt, until it begins.
    first: Option<CallId>,
    made: u32,
    since: Instant,
    waiting: bool,
    ended: bool,
}

impl<'a, T> Run<'a, T> {
    pub(crate) fn new(core: &'a Core<T>, options: CallOptions, mut request: Request) -> Self {
        let since = Instant::now();
        let stub = &core.stub;
        let first = new_id();
        if let Some(trace) = options.traceparent {
            // Where there is no room for it, the trace ends here.
            let _ = request.headers.insert(TRACEPARENT, trace);
        }
        #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
        let seed = first.bits() as u64;
        let idempotent = options
            .idempotent
            .unwrap_or_else(|| stub.is_idempotent(request.method.as_ref()));
        let deadline = stub.deadline(since, options.timeout, options.until);
        let attempts = Attempts::new(stub.options.retry, deadline, seed)
            .idempotent(idempotent)
            .wait_for_ready(
                options
                    .wait_for_ready
                    .unwrap_or(stub.options.wait_for_ready),
            )
            .hops(options.hops)
            .message_id(options.message_id);
        core.tally.begin();
        Self {
            core,
            attempts,
            request,
            cancellation: options.cancellation,
            first: Some(first),
            made: 0,
            since,
            waiting: false,
            ended: false,
        }
    }

    /// Opens the next attempt.
    pub(crate) fn attempt(&mut self) -> Result<(OpenCall<T>, Message, Arc<T>), CallError> {
        self.stop_waiting();
        if self
            .cancellation
            .as_ref()
            .is_some_and(Cancellation::is_cancelled)
        {
            return Err(CallError::GivenUp {
                certainty: Certainty::NotExecuted,
            });
        }
        let (now, id) = match self.first.take() {
            Some(id) => (self.since, id),
            None => (Instant::now(), new_id()),
        };
        let mut attempt = self.attempts.begin(now, id);
        attempt.unix_ms = unix_ms();
        let opened = OpenCall::begin(&self.core.table, self.request.clone(), attempt);
        self.made += u32::from(opened.is_ok());
        opened.map_err(|error| self.explain(error))
    }

    /// Whether the request is not to be sent while the broker blocks publishers.
    pub(crate) const fn refuses(&self, blocked: bool) -> bool {
        self.core.stub.options.when_blocked.refuses(blocked)
    }

    /// An attempt has ended: what now?
    pub(crate) fn next(&mut self, outcome: CallResult) -> Next {
        let next = self
            .attempts
            .handle_outcome(Instant::now(), &self.core.budget, outcome);
        if !matches!(next, Next::Done(_)) {
            self.waiting = self.core.begin_to_wait();
            if !self.waiting {
                return Next::Done(Err(self.give_up()));
            }
        }
        next
    }

    /// Nothing came of the wait.
    pub(crate) fn give_up(&mut self) -> CallError {
        let error = self.attempts.give_up();
        self.explain(error)
    }

    /// Does `work`, unless the work that the call is for is given up first.
    pub(crate) async fn unless_given_up<F: Future>(&self, work: F) -> Option<F::Output> {
        let Some(cancellation) = &self.cancellation else {
            return Some(work.await);
        };
        match race(work, cancellation.cancelled()).await {
            First::Left(output) => Some(output),
            First::Right(()) => None,
        }
    }

    /// Waits until there is no use in waiting for the next attempt.
    pub(crate) async fn until_useless(&self) {
        let closed = self.core.cell.until_closed();
        self.unless_given_up(closed).await;
    }

    /// Waits until there is a connection, or no use in waiting for one.
    pub(crate) async fn until_up(&self) {
        let up = self.core.cell.until_up();
        // Where there will be none any more, the next attempt says why.
        self.unless_given_up(up).await;
    }

    /// The call has ended, with what is left to do with a reply.
    pub(crate) fn end<R>(
        mut self,
        result: CallResult,
        decode: impl FnOnce(Reply) -> Result<R, CallError>,
    ) -> Result<R, CallError> {
        let result = result.and_then(decode);
        let how = if result.is_ok() { End::Ok } else { End::Failed };
        self.core.tally.end(how);
        self.tell(result.as_ref().err(), false);
        self.ended = true;
        result
    }

    #[cfg(feature = "blocking")]
    pub(crate) const fn stub(&self) -> &'a Stub {
        &self.core.stub
    }

    pub(crate) const fn service(&self) -> &Address {
        &self.core.stub.options.service
    }

    pub(crate) const fn deadline(&self) -> Instant {
        self.attempts.deadline()
    }

    /// Says why there is no connection as the link knows it, which has tried since.
    fn explain(&self, error: CallError) -> CallError {
        match error {
            CallError::BrokerDown(cause) => {
                CallError::BrokerDown(self.core.cell.trouble().unwrap_or(cause))
            }
            other => other,
        }
    }

    fn tell(&self, error: Option<&CallError>, given_up: bool) {
        if let Some(observer) = &self.core.stub.options.observer.0 {
            observer.call_ended(&CallEvent {
                attempts: self.made,
                error,
                given_up,
                method: self
                    .request
                    .method
                    .as_ref()
                    .map_or("", |name| name.as_str()),
                took: self.since.elapsed(),
            });
        }
    }

    fn stop_waiting(&mut self) {
        if std::mem::take(&mut self.waiting) {
            self.core.end_wait();
        }
    }
}

impl<T> Drop for Run<'_, T> {
    fn drop(&mut self) {
        self.stop_waiting();
        if !self.ended {
            self.core.tally.end(End::GivenUp);
            self.tell(None, true);
        }
    }
}

/// The failure of a publish that was not tried, because the broker blocks publishers.
pub(crate) fn blocked() -> TransportError {
    TransportError::new(ErrorKind::Blocked, "rpc", "publish")
}
