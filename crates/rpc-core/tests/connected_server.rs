//! A server that makes its own connections, on both faces: it comes back, and it ends.

#![cfg(all(feature = "tokio", feature = "blocking", feature = "json"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rpc_core::proto::server::{MemoryDedup, Policy, Stats};
use rpc_core::{
    Backoff, CallOptions, ClientOptions, DrainReport, ErrorKind, LinkState, Observer, QueueSpec,
    RequestEvent, Router, Server, ServerOptions, ShortString, TransportError, blocking,
};
use tokio::runtime::Runtime;
use transport_memory::{MemoryBroker, MemoryTransport};

const QUEUE: ShortString = ShortString::from_static("work");
const PATIENCE: Duration = Duration::from_secs(10);

/// A server, on either face.
enum Serving {
    Tasks(Runtime, Option<Server<MemoryTransport, Router>>),
    Threads(Option<blocking::Server<MemoryTransport, Router>>),
}

impl Serving {
    fn on_tasks(broker: &MemoryBroker, router: Router, options: ServerOptions) -> Self {
        let runtime = Runtime::new().unwrap();
        let _entered = runtime.enter();
        let server = Server::connect(broker.clone(), router, options);
        drop(_entered);
        Self::Tasks(runtime, Some(server))
    }

    fn on_threads(broker: &MemoryBroker, router: Router, options: ServerOptions) -> Self {
        let server = blocking::Server::connect(broker.clone(), router, options);
        Self::Threads(Some(server))
    }

    fn ready(&self, limit: Duration) -> Result<(), TransportError> {
        match self {
            Self::Tasks(runtime, server) => runtime.block_on(server.as_ref().unwrap().ready(limit)),
            Self::Threads(server) => server.as_ref().unwrap().ready(limit),
        }
    }

    fn state(&self) -> LinkState {
        match self {
            Self::Tasks(_, server) => server.as_ref().unwrap().link_state(),
            Self::Threads(server) => server.as_ref().unwrap().link_state(),
        }
    }

    fn stats(&self) -> Stats {
        match self {
            Self::Tasks(_, server) => server.as_ref().unwrap().stats(),
            Self::Threads(server) => server.as_ref().unwrap().stats(),
        }
    }

    fn drain(&mut self, limit: Duration) -> DrainReport {
        match self {
            Self::Tasks(runtime, server) => runtime.block_on(server.take().unwrap().drain(limit)),
            Self::Threads(server) => server.take().unwrap().drain(limit),
        }
    }

    /// Waits for the connection after that one.
    fn up_again(&self, number: u64) {
        eventually(
            || matches!(self.state(), LinkState::Up(generation) if generation.number() > number),
        );
    }
}

type Start = fn(&MemoryBroker, Router, ServerOptions) -> Serving;

/// Makes a test of each scenario on each face.
macro_rules! scenarios {
    ($($scenario:ident,)+) => {
        mod on_tasks {
            $(#[test]
            fn $scenario() {
                super::$scenario(super::Serving::on_tasks);
            })+
        }
        mod on_threads {
            $(#[test]
            fn $scenario() {
                super::$scenario(super::Serving::on_threads);
            })+
        }
    };
}

scenarios! {
    it_comes_back_after_a_crash_of_the_broker,
    it_declares_its_queue_again_when_that_is_deleted,
    it_may_start_before_its_broker,
    what_had_begun_is_not_run_again,
    a_reply_waits_for_a_broker_that_blocks_publishers,
    a_drain_closes_the_connection_that_it_made,
    a_drain_without_a_connection_returns,
    a_drain_under_load_loses_nothing_and_runs_nothing_twice,
    an_observer_is_told_how_requests_went,
}

fn eventually(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn options() -> ServerOptions {
    let mut backoff = Backoff::default();
    backoff.first = Duration::from_millis(5);
    ServerOptions::new(QueueSpec::durable(QUEUE)).with_backoff(backoff)
}

fn echo() -> Router {
    Router::new().handle("echo", |n: u64| Ok(n))
}

fn client(broker: &MemoryBroker) -> blocking::Client<MemoryTransport> {
    let mut options = ClientOptions::new(QUEUE).with_timeout(PATIENCE);
    options.backoff.first = Duration::from_millis(5);
    options.wait_for_ready = true;
    let client = blocking::Client::connect(broker.clone(), options);
    client.ready(PATIENCE).unwrap();
    client
}

fn idempotent() -> CallOptions {
    CallOptions::timeout(PATIENCE).with_idempotent(true)
}

fn it_comes_back_after_a_crash_of_the_broker(start: Start) {
    let broker = MemoryBroker::new();
    let server = start(&broker, echo(), options());
    server.ready(PATIENCE).unwrap();
    let client = client(&broker);
    for round in 0..5 {
        let answer: u64 = client.call_with(idempotent(), "echo", &round).unwrap();
        assert_eq!(answer, round);
        broker.crash();
        server.up_again(round + 1);
    }
}

fn it_declares_its_queue_again_when_that_is_deleted(start: Start) {
    let broker = MemoryBroker::new();
    let server = start(&broker, echo(), options());
    server.ready(PATIENCE).unwrap();
    let client = client(&broker);
    assert!(broker.delete_queue("work"));
    let answer: u64 = client.call_with(idempotent(), "echo", &7).unwrap();
    assert_eq!(answer, 7);
    server.up_again(1);
}

fn it_may_start_before_its_broker(start: Start) {
    let broker = MemoryBroker::new();
    broker.stop();
    let server = start(&broker, echo(), options());
    let why = server.ready(Duration::from_millis(50)).unwrap_err();
    assert_eq!(why.kind(), ErrorKind::Connect);
    broker.start();
    server.ready(PATIENCE).unwrap();
    assert!(matches!(server.state(), LinkState::Up(_)));
}

/// Holds handlers until it is opened; it counts who has come.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar, AtomicUsize)>);

impl Gate {
    fn pass(&self) {
        let (open, opened, come) = &*self.0;
        come.fetch_add(1, Ordering::SeqCst);
        let open = open.lock().unwrap();
        drop(opened.wait_timeout_while(open, PATIENCE, |open| !*open));
    }

    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn come(&self) -> usize {
        self.0.2.load(Ordering::SeqCst)
    }
}

fn what_had_begun_is_not_run_again(start: Start) {
    let broker = MemoryBroker::new();
    let gate = Gate::default();
    let waits = gate.clone();
    let router = echo().handle_blocking("wait", move |n: u64| {
        waits.pass();
        Ok(n)
    });
    let mut policy = Policy::new(QUEUE);
    policy.dedup = Some(Arc::new(MemoryDedup::default()));
    let server = start(&broker, router, options().with_policy(policy));
    server.ready(PATIENCE).unwrap();
    let client = client(&broker);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| client.call_with::<_, u64>(idempotent(), "wait", &7));
        eventually(|| gate.come() == 1);
        broker.crash();
        // The request comes again, and so does the second attempt of its caller.
        eventually(|| server.stats().joined == 2);
        gate.open();
        assert_eq!(call.join().unwrap().unwrap(), 7);
    });
    assert_eq!(gate.come(), 1);
}

fn a_reply_waits_for_a_broker_that_blocks_publishers(start: Start) {
    let broker = MemoryBroker::new();
    let gate = Gate::default();
    let waits = gate.clone();
    let router = echo().handle_blocking("wait", move |n: u64| {
        waits.pass();
        Ok(n)
    });
    let mut options = options();
    options.settle_timeout = Duration::from_millis(20);
    let server = start(&broker, router, options);
    server.ready(PATIENCE).unwrap();
    let client = client(&broker);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| client.call::<_, u64>("wait", &7));
        eventually(|| gate.come() == 1);
        broker.block_publishers(true);
        gate.open();
        eventually(|| server.stats().ok == 1);
        let finished = Instant::now();
        eventually(|| finished.elapsed() > Duration::from_millis(200));
        broker.block_publishers(false);
        assert_eq!(call.join().unwrap().unwrap(), 7);
    });
    assert_eq!((gate.come(), server.stats().requeued), (1, 0));
}

fn a_drain_closes_the_connection_that_it_made(start: Start) {
    let broker = MemoryBroker::new();
    let mut server = start(&broker, echo(), options());
    server.ready(PATIENCE).unwrap();
    assert_eq!(broker.connections(), 1);
    let report = server.drain(PATIENCE);
    assert_eq!(report.unfinished, 0);
    assert_eq!(broker.connections(), 0);
}

fn a_drain_without_a_connection_returns(start: Start) {
    let broker = MemoryBroker::new();
    broker.stop();
    let mut server = start(&broker, echo(), options());
    let begun = Instant::now();
    server.drain(PATIENCE);
    assert!(begun.elapsed() < PATIENCE);
    broker.start();
    assert_eq!(broker.connections(), 0);
}

fn a_drain_under_load_loses_nothing_and_runs_nothing_twice(start: Start) {
    let broker = MemoryBroker::new();
    let runs = Arc::new(AtomicUsize::new(0));
    let serve = || {
        let counts = Arc::clone(&runs);
        let router = Router::new().handle_blocking("work", move |n: u64| {
            counts.fetch_add(1, Ordering::SeqCst);
            std::thread::yield_now();
            Ok(n)
        });
        let server = start(&broker, router, options());
        server.ready(PATIENCE).unwrap();
        server
    };
    let mut server = serve();
    let client = client(&broker);
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for n in 0..200 {
                        let answer: u64 = client.call("work", &n).unwrap();
                        assert_eq!(answer, n);
                    }
                })
            })
            .collect();
        while callers.iter().any(|caller| !caller.is_finished()) {
            let next = serve();
            let report = server.drain(PATIENCE);
            assert_eq!(report.unfinished, 0, "{report:?}");
            server = next;
        }
    });
    assert_eq!(runs.load(Ordering::SeqCst), 800);
}

#[derive(Default)]
struct Told(Mutex<Vec<(String, bool, bool)>>);

impl Observer for Told {
    fn request_ended(&self, request: &RequestEvent<'_>) {
        let told = (
            request.method.to_owned(),
            request.ran,
            request.status.is_some(),
        );
        self.0.lock().unwrap().push(told);
    }
}

fn an_observer_is_told_how_requests_went(start: Start) {
    let broker = MemoryBroker::new();
    let told = Arc::new(Told::default());
    let server = start(&broker, echo(), options().with_observer(Arc::clone(&told)));
    server.ready(PATIENCE).unwrap();
    let client = client(&broker);
    client.call::<_, u64>("echo", &7).unwrap();
    client.call::<_, u64>("echo", "no number").unwrap_err();
    let all = || told.0.lock().unwrap().len() == 2;
    eventually(all);
    let mut told = told.0.lock().unwrap();
    // What is settled first may be told of last.
    told.sort();
    let echo = |ran, failed| ("echo".to_owned(), ran, failed);
    assert_eq!(*told, [echo(false, true), echo(true, false)]);
}
