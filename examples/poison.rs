//! One request ends each process that takes it. Its caller is told, all others are answered, and it
//! lies among the dead letters.
//!
//! Nothing is to be switched on for that: a server of a quorum queue does it. The broker is the one in
//! this process, and so are the workers: one that dies drops all it has and loses its connection, as
//! a process does whose memory has run out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rpc_core::{Client, ClientOptions, ConsumeOptions, QueueSpec, Router, Server, ServerOptions};
use rpc_core::{ShortString, Transport};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use transport_memory::MemoryBroker;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let broker = MemoryBroker::new();
    let spec = QueueSpec::quorum(ShortString::from_static("example.thumbnails"));
    let deaths = Arc::new(AtomicU32::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..2 {
        workers.spawn(work(broker.clone(), spec.clone(), Arc::clone(&deaths)));
    }

    let options = ClientOptions::new(spec.name.clone()).with_wait_for_ready(true);
    let client = Client::connect(broker.clone(), options);
    let mut calls = JoinSet::new();
    for n in 0..40 {
        let picture = if n == 7 {
            "bomb".to_owned()
        } else {
            format!("picture {n}")
        };
        let client = client.clone();
        calls.spawn(async move {
            let drawn = client.call::<_, String>("thumbnail", &picture).await;
            (picture, drawn)
        });
    }
    let mut answered = 0;
    while let Some(call) = calls.join_next().await {
        match call? {
            (_, Ok(_)) => answered += 1,
            (picture, Err(error)) => println!(
                "{picture}: {} ({}): {error}",
                error.code(),
                error.certainty()
            ),
        }
    }
    let died = deaths.load(Ordering::Relaxed);
    println!("{answered} others were answered, and {died} workers have died");
    anyhow::ensure!(answered == 39, "the others had nothing to do with it");

    let Some(dead) = spec.dead_letter_queue()? else {
        anyhow::bail!("a quorum queue has one");
    };
    let look = broker.connect();
    let one = std::num::NonZeroU16::MIN;
    let mut letters = look.consume(ConsumeOptions::queue(dead.name, one)).await?;
    let letter = tokio::time::timeout(Duration::from_secs(5), letters.recv()).await??;
    let Some(letter) = letter else {
        anyhow::bail!("the queue for dead letters is gone");
    };
    let header = |name: &str| {
        letter
            .message
            .headers
            .get(name)
            .and_then(|value| value.as_text())
    };
    println!(
        "{:?} is a dead letter: {} from {}",
        letter.message.body,
        header("x-first-death-reason").unwrap_or("no reason"),
        header("x-first-death-queue").unwrap_or("nowhere"),
    );
    client.close().await;
    workers.shutdown().await;
    Ok(())
}

/// What keeps a worker up in production: the next one, when one has died.
async fn work(broker: MemoryBroker, spec: QueueSpec, deaths: Arc<AtomicU32>) -> anyhow::Result<()> {
    loop {
        let dies = Arc::new(Notify::new());
        let died = Arc::clone(&dies);
        let router = Router::new().handle_async("thumbnail", move |picture: String| {
            let dies = Arc::clone(&died);
            async move {
                if picture == "bomb" {
                    dies.notify_one();
                    std::future::pending::<()>().await;
                }
                Ok(format!("small {picture}"))
            }
        });
        let transport = Arc::new(broker.connect());
        let options = ServerOptions::new(spec.clone());
        let server = Server::start(Arc::clone(&transport), router, options).await?;
        dies.notified().await;
        deaths.fetch_add(1, Ordering::Relaxed);
        drop(server);
        transport.close().await?;
    }
}
