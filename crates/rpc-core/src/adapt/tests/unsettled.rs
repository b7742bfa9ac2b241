//! Servers whose transport never comes back from an acknowledgement.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rpc_proto::server::{Guarantee, Stats};
use tokio::runtime::Runtime;

use super::never::Pending;
use super::{QUEUE, until};
use crate::adapt::{BlockOn, lock};
use crate::{
    ConnectWith, LinkState, Observer, QueueSpec, RequestEvent, Router, Server, ServerOptions,
    TransportError, blocking,
};

/// How long an acknowledgement may take.
const LIMIT: Duration = Duration::from_millis(50);

/// The transports that were made, in turn.
type Made = Arc<Mutex<Vec<Pending>>>;

/// A server, on either face.
enum Serving {
    Tasks {
        server: Server<Pending, Router>,
        _runtime: Runtime,
    },
    Threads(blocking::Server<BlockOn<Pending>, Router>),
}

impl Serving {
    fn on_tasks(hangs: &'static str, made: &Made, options: ServerOptions) -> Self {
        let made = Arc::clone(made);
        let connector = ConnectWith::new(1, move |_| {
            let transport = make(hangs, &made);
            async { Ok::<_, TransportError>(transport) }
        });
        let runtime = Runtime::new().unwrap();
        let entered = runtime.enter();
        let server = Server::connect(connector, Router::new(), options);
        drop(entered);
        Self::Tasks {
            server,
            _runtime: runtime,
        }
    }

    fn on_threads(hangs: &'static str, made: &Made, options: ServerOptions) -> Self {
        let made = Arc::clone(made);
        let connector = blocking::ConnectWith::new(1, move |_| {
            let transport = make(hangs, &made);
            let adapted = BlockOn::with_runtime(|| async { Ok::<_, TransportError>(transport) })?;
            Ok::<_, TransportError>(adapted.with_limit(LIMIT))
        });
        Self::Threads(blocking::Server::connect(connector, Router::new(), options))
    }

    fn state(&self) -> LinkState {
        match self {
            Self::Tasks { server, .. } => server.link_state(),
            Self::Threads(server) => server.link_state(),
        }
    }

    fn stats(&self) -> Stats {
        match self {
            Self::Tasks { server, .. } => server.stats(),
            Self::Threads(server) => server.stats(),
        }
    }

    fn is_up_as(&self, number: u64) -> bool {
        matches!(self.state(), LinkState::Up(generation) if generation.number() == number)
    }
}

type Start = fn(&'static str, &Made, ServerOptions) -> Serving;

const FACES: [Start; 2] = [Serving::on_tasks, Serving::on_threads];

fn make(hangs: &'static str, made: &Made) -> Pending {
    let transport = Pending::at(hangs);
    lock(made).push(transport.clone());
    transport
}

fn options() -> ServerOptions {
    let mut options = ServerOptions::new(QueueSpec::durable(QUEUE));
    // One consumer, so that it is plain where the request goes.
    options.notices = false;
    options.settle_timeout = LIMIT;
    options.backoff.first = Duration::from_millis(5);
    options
}

/// Requests come by the latest transport, and nobody awaits an answer.
fn deliver(made: &Made, tags: std::ops::Range<u64>) {
    let transport = lock(made).last().unwrap().clone();
    let script = transport.script.inner();
    let consumer = *lock(&script.feeds).keys().next().unwrap();
    script.deliver(consumer, tags);
}

fn closes(made: &Made, place: usize) -> usize {
    lock(made)[place]
        .script
        .inner()
        .closes
        .load(Ordering::SeqCst)
}

#[test]
fn a_server_gives_a_transport_up_that_does_not_acknowledge_and_makes_the_next() {
    for start in FACES {
        let made = Made::default();
        let server = start("ack", &made, options());
        until("it is up", || server.is_up_as(1));
        deliver(&made, 0..3);
        until("it is up again", || server.is_up_as(2));
        until("the first one is closed", || closes(&made, 0) > 0);
        assert_eq!(lock(&made).len(), 2);
        assert_eq!(closes(&made, 1), 0);
        // The next one is served, and given up in its turn.
        deliver(&made, 3..4);
        until("it is up for the third time", || server.is_up_as(3));
        assert_eq!(server.stats().received, 4);
    }
}

#[test]
fn an_async_server_needs_no_close_to_give_a_transport_up() {
    let made = Made::default();
    let server = Serving::on_tasks("ack close", &made, options());
    until("it is up", || server.is_up_as(1));
    deliver(&made, 0..1);
    until("it is up again", || server.is_up_as(2));
}

#[derive(Default)]
struct Told(Mutex<Vec<bool>>);

impl Observer for Told {
    fn request_ended(&self, request: &RequestEvent<'_>) {
        assert!(request.status.is_none());
        lock(&self.0).push(request.ran);
    }
}

#[test]
fn an_observer_is_told_of_what_did_not_run_because_it_could_not_be_acknowledged() {
    for start in FACES {
        let (made, told) = (Made::default(), Arc::new(Told::default()));
        let mut options = options().with_observer(Arc::clone(&told));
        options.policy.guarantee = Guarantee::AtMostOnce;
        let server = start("ack", &made, options);
        until("it is up", || server.is_up_as(1));
        deliver(&made, 0..1);
        until("it is up again", || server.is_up_as(2));
        until("the observer is told", || !lock(&told.0).is_empty());
        assert_eq!(*lock(&told.0), [false]);
        assert_eq!(server.stats().unacknowledged, 1);
    }
}
