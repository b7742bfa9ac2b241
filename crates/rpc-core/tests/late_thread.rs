//! Blocking work on the async face waits for a thread, and not for longer than its caller does.

#![cfg(all(feature = "tokio", feature = "json"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rpc_core::{
    CallOptions, Client, ClientOptions, QueueSpec, Router, Server, ServerOptions, ShortString,
};
use tokio::runtime::Builder;
use tokio::sync::Notify;
use transport_memory::MemoryBroker;

const QUEUE: ShortString = ShortString::from_static("work");
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn what_gets_its_thread_after_its_deadline_does_not_run() {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_time()
        .build()
        .unwrap();
    let (holds, ran) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (held, counted) = (Arc::clone(&holds), Arc::clone(&ran));
    let router = Router::new()
        // Gives the only thread back in the moment after the deadline of the other one.
        .handle_blocking("hold", move |millis: u64| {
            held.notify_one();
            std::thread::sleep(Duration::from_millis(millis));
            Ok(())
        })
        .handle_blocking("count", move |()| {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
    runtime.block_on(async {
        let broker = MemoryBroker::new();
        let options = ServerOptions::new(QueueSpec::transient(QUEUE))
            .with_concurrency(NonZeroUsize::new(2).unwrap());
        let server = Server::connect(broker.clone(), router, options);
        server.ready(PATIENCE).await.unwrap();
        let client = Client::connect(broker.clone(), ClientOptions::new(QUEUE));
        client.ready(PATIENCE).await.unwrap();
        let hold = client.call::<_, ()>("hold", &120_u64);
        let count = async {
            holds.notified().await;
            let options = CallOptions::timeout(Duration::from_millis(100));
            client.call_with::<_, ()>(options, "count", &()).await
        };
        let (hold, count) = tokio::join!(hold, count);
        hold.unwrap();
        assert!(count.is_err());
        server.drain(PATIENCE).await;
    });
    assert_eq!(ran.load(Ordering::SeqCst), 0);
}
