//! What the adapters add to a transport and what they must not take from it, with scripted ones.

mod block_on;
mod check;
mod connect;
mod hang;
mod never;
mod offload;
mod script;
mod supervised;
mod unsettled;

use std::num::NonZeroU16;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use self::script::Script;
use super::Offload;
use crate::{
    Address, ConsumeOptions, ErrorKind, QueueKind, QueueSpec, ShortString, TransportError, park,
};

const QUEUE: ShortString = ShortString::from_static("q");

fn offload() -> Offload<Script> {
    Offload::new(Script::default()).unwrap()
}

/// From the queue, four at once.
fn four() -> ConsumeOptions {
    ConsumeOptions::queue(QUEUE, NonZeroU16::new(4).unwrap())
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// Waits in this thread, with no runtime in sight, and not for ever.
fn wait<F: Future>(future: F) -> F::Output {
    park::block_on_until(pin!(future), soon()).expect("it ends in time")
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = soon();
    while !holds() {
        assert!(Instant::now() < deadline, "in time: {what}");
        thread::yield_now();
    }
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn kind<R>(result: Result<R, TransportError>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn to(queue: &'static str) -> Address {
    Address::queue(ShortString::from_static(queue))
}

fn declare(name: &'static str) -> QueueSpec {
    QueueSpec::new(ShortString::from_static(name), QueueKind::Durable)
}
