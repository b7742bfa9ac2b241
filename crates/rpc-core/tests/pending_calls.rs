//! Calls of the blocking client that are open in nobody's thread.

#![cfg(all(feature = "blocking", feature = "json"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rpc_core::blocking::{Client, PendingCall, Server};
use rpc_core::{
    CallOptions, Certainty, ClientOptions, QueueSpec, Reason, Router, ServerOptions, ShortString,
};
use transport_memory::{MemoryBroker, MemoryTransport};

const QUEUE: ShortString = ShortString::from_static("pending");
const PATIENCE: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_millis(100);

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn client(broker: &MemoryBroker) -> Client<MemoryTransport> {
    let options = ClientOptions::new(QUEUE).with_timeout(PATIENCE);
    Client::new(broker.connect(), options).unwrap()
}

fn serve(broker: &MemoryBroker, router: Router) -> Server<MemoryTransport, Router> {
    let options = ServerOptions::new(QueueSpec::durable(QUEUE))
        .with_concurrency(NonZeroUsize::new(4).unwrap());
    Server::start(broker.connect(), router, options).unwrap()
}

/// A handler that answers with its argument, as often as it is let.
fn held() -> (Router, Sender<()>) {
    let (lets, leave): (Sender<()>, Receiver<()>) = mpsc::channel();
    let leave = Mutex::new(leave);
    let router = Router::new().handle_blocking("echo", move |number: u64| {
        let _ = leave.lock().unwrap().recv_timeout(PATIENCE);
        Ok(number)
    });
    (router, lets)
}

fn begin<'c>(
    client: &'c Client<MemoryTransport>,
    timeout: Duration,
    number: u64,
) -> PendingCall<'c, u64, MemoryTransport> {
    let options = CallOptions::timeout(timeout);
    client.begin_with(options, "echo", &number).unwrap()
}

#[test]
fn one_thread_has_many_calls_open() {
    let broker = MemoryBroker::new();
    let (router, lets) = held();
    let _server = serve(&broker, router);
    let client = client(&broker);
    let open: VecDeque<_> = (0..100).map(|n| begin(&client, PATIENCE, n)).collect();
    assert_eq!(client.in_flight(), 100);
    (0..100).for_each(|_| lets.send(()).unwrap());
    // The last one first: nobody has to wait in the order of the calls.
    for (number, call) in open.into_iter().enumerate().rev() {
        assert_eq!(call.wait().unwrap(), u64::try_from(number).unwrap());
    }
    assert_eq!((client.in_flight(), client.stats().calls.ok), (0, 100));
}

#[test]
fn one_that_is_dropped_leaves_no_slot() {
    let broker = MemoryBroker::new();
    let (router, lets) = held();
    let _server = serve(&broker, router);
    let client = client(&broker);
    drop(begin(&client, PATIENCE, 1));
    assert_eq!(client.in_flight(), 0);
    assert_eq!(client.stats().calls.given_up, 1);
    lets.send(()).unwrap();
    lets.send(()).unwrap();
    assert_eq!(begin(&client, PATIENCE, 2).wait().unwrap(), 2);
}

#[test]
fn its_time_runs_from_its_beginning() {
    let broker = MemoryBroker::new();
    let (router, _lets) = held();
    let _server = serve(&broker, router);
    let client = client(&broker);
    let since = Instant::now();
    let call = begin(&client, SOON, 1);
    eventually("its time is over", || since.elapsed() > SOON);
    let waits = Instant::now();
    let error = call.wait().unwrap_err();
    assert!(waits.elapsed() < PATIENCE / 2, "{:?}", waits.elapsed());
    assert_eq!(error.reason(), Reason::Unanswered, "{error:?}");
    assert_eq!(error.certainty(), Certainty::MaybeExecuted);
    assert_eq!(client.in_flight(), 0);
}

#[test]
fn an_answer_in_time_is_there_for_who_waits_too_late() {
    let broker = MemoryBroker::new();
    let (router, lets) = held();
    let _server = serve(&broker, router);
    let client = client(&broker);
    let mut timeout = SOON;
    loop {
        let (since, answered) = (Instant::now(), client.stats().attempts.ok + 1);
        let call = begin(&client, timeout, 7);
        lets.send(()).unwrap();
        let is_answered = || client.stats().attempts.ok == answered;
        eventually("it is answered, or too late", || {
            is_answered() || since.elapsed() > timeout
        });
        let in_time = is_answered();
        eventually("its time is over", || since.elapsed() > timeout);
        if in_time {
            assert_eq!(call.wait().unwrap(), 7);
            return;
        }
        // A busy machine: with more time.
        timeout *= 2;
        assert!(timeout < PATIENCE, "never answered in time");
    }
}

#[test]
fn what_fails_at_first_is_tried_again_by_who_waits() {
    let broker = MemoryBroker::new();
    let client = client(&broker);
    let options = CallOptions::timeout(PATIENCE).with_wait_for_ready(true);
    // Nobody listens yet.
    let call: PendingCall<'_, u64, _> = client.begin_with(options, "echo", &3_u64).unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| call.wait());
        eventually("it was tried", || client.stats().attempts.started > 0);
        let (router, lets) = held();
        let _server = serve(&broker, router);
        lets.send(()).unwrap();
        assert_eq!(waits.join().unwrap().unwrap(), 3);
    });
    assert!(client.stats().attempts.started > 1);
}

#[test]
fn closing_ends_those_that_nobody_waits_for_yet() {
    let broker = MemoryBroker::new();
    let (router, _lets) = held();
    let _server = serve(&broker, router);
    let client = client(&broker);
    let call = begin(&client, PATIENCE, 1);
    client.close();
    assert_eq!(call.wait().unwrap_err().reason(), Reason::ClientClosed);
}
