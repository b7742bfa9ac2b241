//! A call that is open in nobody's thread.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use rpc_proto::CallError;
use rpc_proto::client::{Next, Request};
use rpc_proto::wire::Reply;

use super::Transport;
use crate::client::{CallOptions, Core, OpenCall, Run, Stub, blocked};
use crate::park;

/// A call whose request has been sent, made by [`Client::begin`](super::Client::begin).
///
/// Whoever [waits](Self::wait) gets the answer. Until then it counts as open, and what the client does
/// about a failure, such as another attempt, is not done yet. Dropped, it is given up as an async call
/// is that is dropped: its slot is free at once, and a worker of ours that has been running it for a
/// while is told.
#[must_use = "a call that is dropped is given up"]
pub struct PendingCall<'c, R, T: Transport = Arc<dyn Transport>> {
    run: Run<'c, T>,
    first: Result<OpenCall<T>, CallError>,
    decode: fn(&Stub, Reply) -> Result<R, CallError>,
}

impl<'c, R, T: Transport> PendingCall<'c, R, T> {
    /// Opens a call, and makes the first attempt at it.
    pub(super) fn begin(
        core: &'c Core<T>,
        options: CallOptions,
        request: Request,
        decode: fn(&Stub, Reply) -> Result<R, CallError>,
    ) -> Self {
        let mut run = Run::new(core, options, request);
        let first = send(&mut run);
        Self { run, first, decode }
    }

    /// Waits for the result, and makes further attempts where the client makes them.
    ///
    /// # Errors
    ///
    /// A [`CallError`] within the timeout, which counts from the beginning of the call: after it this
    /// does not wait any more, but still returns an answer that has come meanwhile.
    pub fn wait(self) -> Result<R, CallError> {
        let Self {
            mut run,
            first,
            decode,
        } = self;
        let mut sent = first;
        loop {
            let outcome = sent.and_then(|call| answer(&run, call));
            match run.next(outcome) {
                Next::Done(result) => {
                    let stub = run.stub();
                    return run.end(result, |reply| decode(stub, reply));
                }
                Next::RetryAt(at) => pause(&run, at),
                Next::WhenUp { after, until } => {
                    pause(&run, after);
                    let up = park::block_on_until(pin!(run.until_up()), until);
                    if up.is_none() {
                        let (error, stub) = (run.give_up(), run.stub());
                        return run.end(Err(error), |reply| decode(stub, reply));
                    }
                }
            }
            sent = send(&mut run);
        }
    }
}

impl<R, T: Transport> fmt::Debug for PendingCall<'_, R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingCall")
            .field("first", &self.first)
            .finish_non_exhaustive()
    }
}

/// Begins the next attempt.
fn send<T: Transport>(run: &mut Run<'_, T>) -> Result<OpenCall<T>, CallError> {
    let (mut call, message, transport) = run.attempt()?;
    if run.refuses(transport.is_blocked()) {
        call.published(Err(blocked()));
    } else {
        call.published(transport.publish(run.service(), message, run.deadline()));
    }
    Ok(call)
}

/// Waits for the end of an attempt.
fn answer<T>(run: &Run<'_, T>, mut call: OpenCall<T>) -> Result<Reply, CallError> {
    let deadline = run.deadline();
    let answered = park::block_on_until(pin!(run.unless_given_up(&mut call)), deadline);
    match answered {
        Some(Some(result)) => result,
        Some(None) => {
            call.give_up();
            park::block_on(call)
        }
        None => {
            call.expire(deadline);
            park::block_on(call)
        }
    }
}

/// Waits in this thread until then, or until there is no use in it.
fn pause<T>(run: &Run<'_, T>, until: Instant) {
    park::block_on_until(pin!(run.until_useless()), until);
}
