//! What a server does at its edges: where it does not start, and where its runtime is late.

#![cfg(all(feature = "tokio", feature = "json"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rpc_core::proto::server::Request;
use rpc_core::{
    CallOptions, Certainty, Client, ClientOptions, ErrorKind, QueueSpec, Router, Server,
    ServerOptions, Service, ShortString, Status, Work,
};
use transport_memory::MemoryBroker;

const QUEUE: ShortString = ShortString::from_static("edges");
const PATIENCE: Duration = Duration::from_secs(10);

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_server_that_does_not_start_lets_go_of_its_service() {
    let broker = MemoryBroker::new();
    // Another one has declared the queue otherwise.
    let _other = Server::start(
        broker.connect(),
        Router::new(),
        ServerOptions::new(QueueSpec::durable(QUEUE)),
    )
    .await
    .unwrap();
    let held = Arc::new(());
    let holds = Arc::clone(&held);
    let router = Router::new().handle("hold", move |()| {
        let _ = &holds;
        Ok(())
    });
    let options = ServerOptions::new(QueueSpec::transient(QUEUE));
    let error = Server::start(broker.connect(), router, options)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    eventually("nothing holds the service", || {
        Arc::strong_count(&held) == 1
    })
    .await;
}

/// Keeps its thread until the request's time is over, and then has something to await.
struct Late(Arc<AtomicUsize>);

impl Service for Late {
    fn call(&self, request: Request) -> Work {
        while Instant::now() < request.deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        let ran = Arc::clone(&self.0);
        Work::Async(Box::pin(async move {
            ran.fetch_add(1, Ordering::SeqCst);
            Err(Status::of_handler(Status::new(
                rpc_core::Code::Internal,
                "it ran",
            )))
        }))
    }
}

#[tokio::test]
async fn an_async_handler_that_was_never_looked_at_in_time_has_not_begun() {
    let broker = MemoryBroker::new();
    let ran = Arc::new(AtomicUsize::new(0));
    let server = Server::start(
        broker.connect(),
        Late(Arc::clone(&ran)),
        ServerOptions::new(QueueSpec::durable(QUEUE)),
    )
    .await
    .unwrap();
    let client = Client::new(broker.connect(), ClientOptions::new(QUEUE))
        .await
        .unwrap();
    let options = CallOptions::timeout(Duration::from_millis(50));
    let error = client
        .call_with::<_, ()>(options, "late", &())
        .await
        .unwrap_err();
    eventually("it is refused", || server.stats().expired == 1).await;
    assert_eq!(ran.load(Ordering::SeqCst), 0);
    // Whether its caller was there to be told or not, who shares this runtime.
    assert_ne!(error.certainty(), Certainty::Executed, "{error:?}");
}
