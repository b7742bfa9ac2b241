//! The seam between the faces, on the calling side: callers, which are tasks or threads.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use std::{io, thread};

use fib_service::{Index, METHOD};
use rpc_core::{CallError, CallOptions, LinkState, blocking};
use serde::{Serialize, Serializer};

use super::Failure;
use super::args::CodecName;
#[cfg(feature = "async")]
use super::link::Runtime;

/// The argument of a call.
#[derive(Clone, Debug)]
pub(crate) enum Argument {
    /// A number.
    Index(Index),
    /// As somebody typed it, for plain text.
    Written(String),
}

impl Argument {
    /// What was typed, fit for `codec`.
    pub(crate) fn new(typed: &str, codec: CodecName) -> Result<Self, Failure> {
        if codec == CodecName::Text {
            return Ok(Self::Written(typed.to_owned()));
        }
        Index::parse(typed).map(Self::Index).ok_or_else(|| {
            let typed = super::output::Shown(typed);
            Failure::usage(format!(
                "`{typed}` is no number in decimal digits, which only `--codec text` can send"
            ))
        })
    }
}

impl Serialize for Argument {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Index(index) => index.serialize(serializer),
            Self::Written(text) => serializer.serialize_str(text),
        }
    }
}

/// Makes calls one after the other, and is the same on both faces: it says what to call for, and is
/// told how that went.
pub(crate) trait Caller: Send + 'static {
    /// The next call, or none when it is done.
    fn next(&mut self) -> Option<Argument>;

    /// How this call differs from the others of its client.
    fn options(&self) -> CallOptions {
        CallOptions::default()
    }

    /// How the call went.
    fn done(&mut self, outcome: Result<u128, CallError>);
}

/// What the thread that drives callers gets to know.
#[derive(Debug)]
pub(crate) enum Event<C> {
    /// The caller of this number is done.
    Done(usize, C),
    /// Time has passed.
    Tick,
}

/// A client, in one of the two faces.
#[derive(Clone, Debug)]
pub(crate) enum Client {
    #[cfg(feature = "async")]
    Async(rpc_core::Client, Runtime),
    Blocking(blocking::Client),
}

impl Client {
    /// Makes one call, in this thread.
    pub(crate) fn call(&self, argument: &Argument) -> Result<u128, CallError> {
        match self {
            #[cfg(feature = "async")]
            Self::Async(client, runtime) => runtime.block_on(client.call(METHOD, argument)),
            Self::Blocking(client) => client.call(METHOD, argument),
        }
    }

    /// Whether it is connected.
    pub(crate) fn state(&self) -> LinkState {
        match self {
            #[cfg(feature = "async")]
            Self::Async(client, _) => client.link_state(),
            Self::Blocking(client) => client.link_state(),
        }
    }

    /// Has all callers make their calls, each in a task or a thread of its own, and reports to
    /// `events` until all are done.
    pub(crate) fn drive<C: Caller>(
        &self,
        callers: Vec<C>,
        mut events: impl FnMut(Event<C>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (done, finished) = mpsc::channel();
        let mut open = callers.len();
        for (place, caller) in callers.into_iter().enumerate() {
            let done = done.clone();
            // Nobody listens any more when this process is about to end.
            self.spawn(caller, move |caller| drop(done.send((place, caller))))
                .map_err(|error| Failure::System("cannot start a caller", error))?;
        }
        drop(done);
        while open > 0 {
            match finished.recv_timeout(TICK) {
                Ok((place, caller)) => {
                    open -= 1;
                    events(Event::Done(place, caller))?;
                }
                Err(RecvTimeoutError::Timeout) => events(Event::Tick)?,
                Err(RecvTimeoutError::Disconnected) => {
                    let panicked = io::Error::other("it panicked");
                    return Err(Failure::System("a caller did not return", panicked));
                }
            }
        }
        Ok(())
    }

    fn spawn<C: Caller>(
        &self,
        mut caller: C,
        done: impl FnOnce(C) + Send + 'static,
    ) -> io::Result<()> {
        match self.clone() {
            #[cfg(feature = "async")]
            Self::Async(client, runtime) => runtime.spawn(async move {
                while let Some(argument) = caller.next() {
                    let options = caller.options();
                    let outcome = client.call_with(options, METHOD, &argument).await;
                    caller.done(outcome);
                }
                done(caller);
            }),
            Self::Blocking(client) => {
                thread::Builder::new()
                    .name("caller".into())
                    .spawn(move || {
                        while let Some(argument) = caller.next() {
                            let options = caller.options();
                            let outcome = client.call_with(options, METHOD, &argument);
                            caller.done(outcome);
                        }
                        done(caller);
                    })?;
            }
        }
        Ok(())
    }

    /// Ends all open calls.
    pub(crate) fn close(&self) {
        match self {
            #[cfg(feature = "async")]
            Self::Async(client, runtime) => runtime.block_on(client.close()),
            Self::Blocking(client) => client.close(),
        }
    }
}

/// How often the thread that drives callers looks up.
const TICK: Duration = Duration::from_millis(100);
