//! A client and a worker that outlive their connections and their broker.
//!
//! The broker is the one in this process, which can be crashed and stopped at will. On RabbitMQ only
//! the connector differs: `LapinConnector::new(url)` in place of the broker.

use std::sync::Arc;
use std::time::Duration;

use rpc_core::proto::server::MemoryDedup;
use rpc_core::{Client, ClientOptions, LinkState, Observer, QueueSpec, Router, Server};
use rpc_core::{ServerOptions, ShortString};
use transport_memory::MemoryBroker;

/// Prints how the connection fares; metrics go the same way.
struct Print(&'static str);

impl Observer for Print {
    fn link_changed(&self, state: &LinkState) {
        match state {
            LinkState::Up(generation) => println!("{}: connected, generation {generation}", self.0),
            LinkState::Connecting { failed: 0, .. } => println!("{}: lost the connection", self.0),
            _ => {}
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let broker = MemoryBroker::new();
    let queue = ShortString::from_static("example.survive");

    let router = Router::new().handle("double", |n: u64| Ok(n * 2));
    let mut options = ServerOptions::new(QueueSpec::durable(queue.clone()))
        .with_observer(Arc::new(Print("worker")));
    // A request that comes again gets the answer that was given before; it does not run again.
    options.policy.dedup = Some(Arc::new(MemoryDedup::default()));
    let server = Server::connect(broker.clone(), router, options);

    let options = ClientOptions::new(queue)
        .with_observer(Arc::new(Print("client")))
        // Calls wait, within their deadlines, for a connection and for a worker.
        .with_wait_for_ready(true)
        // To double a number twice does no harm, so a call that may have run is made again.
        .with_idempotent(["double"]);
    let client = Client::connect(broker.clone(), options);

    for n in 0..4 {
        if n == 1 {
            println!("the broker crashes and is back at once");
            broker.crash();
        }
        if n == 2 {
            println!("the broker is gone for a while");
            broker.stop();
            let broker = broker.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(300)).await;
                broker.start();
            });
        }
        let doubled: u64 = client.call("double", &n).await?;
        println!("twice {n} is {doubled}");
    }

    client.close().await;
    let report = server.drain(Duration::from_secs(5)).await;
    println!(
        "{} answered, {} left behind",
        report.stats.ok, report.unfinished
    );
    Ok(())
}
