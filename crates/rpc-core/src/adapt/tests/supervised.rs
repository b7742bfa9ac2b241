//! Clients that make their transports themselves, from connectors and on transports that do not do
//! their part.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::never::{Never, Pending};
use super::{QUEUE, until};
use crate::adapt::Guarded;
use crate::{
    CallError, CallEvent, CallOptions, Cancellation, Client, ClientOptions, ConnectWith, ErrorKind,
    LinkState, Observer, QueueSpec, Reason, Router, Server, ServerOptions, TransportError,
    blocking,
};

/// What takes no time takes less than this, even on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(1);

fn patient(limit: Duration) -> CallOptions {
    CallOptions::timeout(limit).with_wait_for_ready(true)
}

fn is_down(called: Result<String, CallError>) {
    assert_eq!(called.unwrap_err().reason(), Reason::BrokerDown);
}

fn at_once<R>(work: impl FnOnce() -> R) -> R {
    let begun = Instant::now();
    let result = work();
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    result
}

/// Waits until a message to ourselves was missed; it must not count as connected before.
fn deaf(state: impl Fn() -> LinkState) {
    until("it is not heard", || match state() {
        LinkState::Connecting { cause, .. } => {
            cause.is_some_and(|cause| cause.to_string().contains("message to ourselves"))
        }
        other => panic!("{other:?}"),
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_to_connect_that_never_ends_holds_nobody_up() {
    let connector = ConnectWith::new(1, |_| pending::<Result<Pending, TransportError>>());
    let client = Client::connect(connector, ClientOptions::new(QUEUE));
    let begun = Instant::now();
    is_down(client.call("echo", "x").await);
    let limit = Duration::from_millis(50);
    is_down(client.call_with(patient(limit), "echo", "x").await);
    client.ready(limit).await.unwrap_err();
    client.close().await;
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

#[test]
fn an_attempt_to_connect_that_never_returns_holds_nobody_up() {
    let connector = blocking::ConnectWith::new(1, |_| -> Result<Never, TransportError> {
        loop {
            thread::park();
        }
    });
    let client = blocking::Client::connect(connector, ClientOptions::new(QUEUE));
    at_once(|| is_down(client.call("echo", "x")));
    let limit = Duration::from_millis(50);
    at_once(|| is_down(client.call_with(patient(limit), "echo", "x")));
    at_once(|| client.ready(limit).unwrap_err());
    at_once(|| client.close());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_async_client_that_does_not_hear_itself_is_not_connected() {
    for verb in ["nothing", "publish"] {
        let connector = ConnectWith::new(1, move |_| async move {
            Ok::<_, TransportError>(Pending::at(verb))
        });
        let client = Client::connect(connector, ClientOptions::new(QUEUE));
        deaf(|| client.link_state());
        client.close().await;
    }
}

#[test]
fn a_blocking_client_that_does_not_hear_itself_is_not_connected() {
    let connector = blocking::ConnectWith::new(1, |_| Guarded::new(Never::at("")));
    let client = blocking::Client::connect(connector, ClientOptions::new(QUEUE));
    deaf(|| client.link_state());
    at_once(|| client.close());
}

/// What a broker says to a wrong password.
fn refused() -> TransportError {
    TransportError::new(ErrorKind::Unauthenticated, "test", "connect")
}

/// Longer than anybody waits for nothing.
const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn nobody_waits_in_tasks_for_what_only_an_operator_can_mend() {
    let connector = ConnectWith::new(2, |_| async { Err::<Pending, _>(refused()) });
    let begun = Instant::now();
    let client = Client::connect(connector.clone(), ClientOptions::new(QUEUE));
    let cause = client.ready(LONG).await.unwrap_err();
    assert_eq!(cause.kind(), ErrorKind::Unauthenticated);
    let options = ServerOptions::new(QueueSpec::durable(QUEUE));
    let server = Server::connect(connector, Router::new(), options);
    let cause = server.ready(LONG).await.unwrap_err();
    assert_eq!(cause.kind(), ErrorKind::Unauthenticated);
    client.close().await;
    server.drain(Duration::ZERO).await;
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
}

#[test]
fn nobody_waits_in_threads_for_what_only_an_operator_can_mend() {
    let refuse = || blocking::ConnectWith::new(2, |_| Err::<Never, _>(refused()));
    let begun = Instant::now();
    let client = blocking::Client::connect(refuse(), ClientOptions::new(QUEUE));
    let cause = client.ready(LONG).unwrap_err();
    assert_eq!(cause.kind(), ErrorKind::Unauthenticated);
    let options = ServerOptions::new(QueueSpec::durable(QUEUE));
    let server = blocking::Server::connect(refuse(), Router::new(), options);
    let cause = server.ready(LONG).unwrap_err();
    assert_eq!(cause.kind(), ErrorKind::Unauthenticated);
    client.close();
    server.drain(Duration::ZERO);
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
}

#[test]
fn a_thread_that_calls_can_be_told_by_another_to_give_up() {
    let connector = blocking::ConnectWith::new(1, |_| Err::<Never, _>(refused()));
    let client = blocking::Client::connect(connector, ClientOptions::new(QUEUE));
    let stop = Cancellation::new();
    let options = patient(LONG).with_cancellation(stop.clone());
    let called = thread::scope(|scope| {
        let called = scope.spawn(|| client.call_with::<_, String>(options, "echo", "x"));
        until("it waits", || client.in_flight() > 0);
        stop.cancel();
        called.join().unwrap()
    });
    assert_eq!(called.unwrap_err().reason(), Reason::GivenUp);
}

/// Counts what it is told.
#[derive(Default)]
struct Count {
    ended: AtomicUsize,
    failed: AtomicUsize,
    given_up: AtomicUsize,
    up: AtomicUsize,
}

impl Observer for Count {
    fn link_changed(&self, state: &LinkState) {
        let up = matches!(state, LinkState::Up(_));
        self.up.fetch_add(up.into(), Ordering::SeqCst);
    }

    fn call_ended(&self, call: &CallEvent<'_>) {
        assert_eq!((call.method, call.attempts), ("echo", 1));
        self.ended.fetch_add(1, Ordering::SeqCst);
        self.failed
            .fetch_add(call.error.is_some().into(), Ordering::SeqCst);
        self.given_up
            .fetch_add(call.given_up.into(), Ordering::SeqCst);
    }
}

#[tokio::test]
async fn an_observer_is_told_of_connections_and_of_every_call_once() {
    let count = Arc::new(Count::default());
    let connector = ConnectWith::new(1, |_| async {
        Ok::<_, TransportError>(Pending::at("nothing"))
    });
    let options = ClientOptions::new(QUEUE)
        .with_self_check(false)
        .with_observer(Arc::clone(&count));
    let client = Client::connect(connector, options);
    client.ready(Duration::from_secs(10)).await.unwrap();
    let limit = CallOptions::timeout(Duration::from_millis(50));
    let failed = client.call_with::<_, String>(limit, "echo", "x").await;
    failed.unwrap_err();
    let given_up = client.call::<_, String>("echo", "x");
    let _ = tokio::time::timeout(Duration::from_millis(50), given_up).await;
    client.close().await;
    let told = |count: &AtomicUsize| count.load(Ordering::SeqCst);
    assert_eq!(told(&count.up), 1);
    assert_eq!(told(&count.ended), 2);
    assert_eq!(told(&count.failed), 1);
    assert_eq!(told(&count.given_up), 1);
}
