//! What a client counts: calls as their callers see them, and the attempts at them.

#![cfg(all(feature = "tokio", feature = "blocking", feature = "json"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rpc_core::{
    CallEvent, CallOptions, Client, ClientOptions, ClientStats, ConnectWith, Observer, QueueSpec,
    Reason, Router, Server, ServerOptions, ShortString, Status, Transport, TransportError,
    blocking,
};
use tokio::time::timeout;
use transport_memory::{MemoryBroker, MemoryTransport};

const QUEUE: ShortString = ShortString::from_static("words");

fn words() -> Router {
    Router::new().handle("echo", |word: String| Ok::<_, Status>(word))
}

#[derive(Default)]
struct Failed(AtomicUsize);

impl Observer for Failed {
    fn call_ended(&self, call: &CallEvent<'_>) {
        self.0
            .fetch_add(call.error.is_some().into(), Ordering::SeqCst);
    }
}

fn check(stats: ClientStats, failed: &Failed) {
    assert_eq!((stats.calls.started, stats.calls.ok), (2, 1), "{stats:?}");
    assert_eq!((stats.calls.failed, stats.calls.given_up), (1, 0));
    assert_eq!((stats.attempts.started, stats.attempts.ok), (2, 2));
    assert_eq!(failed.0.load(Ordering::SeqCst), 1, "its observer is told");
}

#[tokio::test]
async fn a_reply_that_does_not_decode_is_a_failed_call_and_an_attempt_that_was_answered() {
    let broker = MemoryBroker::new();
    let server = ServerOptions::new(QueueSpec::durable(QUEUE));
    let _server = Server::start(broker.connect(), words(), server)
        .await
        .unwrap();

    let failed = Arc::new(Failed::default());
    let options = ClientOptions::new(QUEUE).with_observer(Arc::clone(&failed));
    let client = Client::new(broker.connect(), options).await.unwrap();
    client.call::<_, String>("echo", "word").await.unwrap();
    let error = client.call::<_, u64>("echo", "word").await.unwrap_err();
    assert_eq!(error.reason(), Reason::ReplyUndecodable);
    check(client.stats(), &failed);
}

#[test]
fn on_threads_a_reply_that_does_not_decode_is_a_failed_call_too() {
    let broker = MemoryBroker::new();
    let server = ServerOptions::new(QueueSpec::durable(QUEUE));
    let _server = blocking::Server::start(broker.connect(), words(), server).unwrap();

    let failed = Arc::new(Failed::default());
    let options = ClientOptions::new(QUEUE).with_observer(Arc::clone(&failed));
    let client = blocking::Client::new(broker.connect(), options).unwrap();
    client.call::<_, String>("echo", "word").unwrap();
    let error = client.call::<_, u64>("echo", "word").unwrap_err();
    assert_eq!(error.reason(), Reason::ReplyUndecodable);
    check(client.stats(), &failed);
}

#[tokio::test]
async fn calls_that_find_no_connection_or_are_given_up_are_calls() {
    let broker = MemoryBroker::new();
    let transport = broker.connect();
    Transport::declare(&transport, &QueueSpec::durable(QUEUE))
        .await
        .unwrap();

    let connector = ConnectWith::new(1, |_| {
        std::future::pending::<Result<MemoryTransport, TransportError>>()
    });
    let down = Client::connect(connector, ClientOptions::new(QUEUE));
    down.call::<_, String>("echo", "word").await.unwrap_err();
    let stats = down.stats();
    assert_eq!((stats.calls.started, stats.calls.failed), (1, 1));
    assert_eq!(stats.attempts.started, 0);

    let client = Client::new(transport, ClientOptions::new(QUEUE))
        .await
        .unwrap();
    let options = CallOptions::timeout(Duration::from_secs(60));
    tokio::select! {
        biased;
        ended = client.call_with::<_, String>(options, "echo", "word") => panic!("{ended:?}"),
        () = sent(&broker) => {}
    }
    let stats = client.stats();
    assert_eq!((stats.calls.started, stats.calls.given_up), (1, 1));
    assert_eq!((stats.attempts.started, stats.attempts.cancelled), (1, 1));
}

/// Waits until a request is in the queue, where nobody takes it.
async fn sent(broker: &MemoryBroker) {
    let there = async {
        while broker.queue_len("words") != Some(1) {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), there).await.unwrap();
}
