//! A client and a worker in plain threads, on RabbitMQ, with no async runtime anywhere.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rpc_core::blocking::{Client, Server, Transport};
use rpc_core::{ClientOptions, QueueSpec, Router, ServerOptions, ShortString};
use transport_amiquip::{AmiquipConfig, AmiquipTransport};

fn main() -> anyhow::Result<()> {
    let queue = ShortString::from_static("example.blocking");
    let config = AmiquipConfig::new(rpc_examples::broker_url()?);
    let transport = Arc::new(AmiquipTransport::connect(config)?);

    let router = Router::new().handle("add", |(a, b): (u64, u64)| Ok(a + b));
    let spec = QueueSpec::durable(queue.clone());
    let server = Server::start(Arc::clone(&transport), router, ServerOptions::new(spec))?;

    let client = Client::new(Arc::clone(&transport), ClientOptions::new(queue))?;
    let callers = (0..4u64).map(|n| {
        let client = client.clone();
        thread::spawn(move || client.call::<_, u64>("add", &(n, n)))
    });
    for (n, caller) in callers.collect::<Vec<_>>().into_iter().enumerate() {
        let sum = caller
            .join()
            .map_err(|_| anyhow::anyhow!("a caller panicked"))??;
        println!("{n} + {n} = {sum}");
    }

    // One thread is enough to have many calls open.
    let open = (0..4u64)
        .map(|n| client.begin::<_, u64>("add", &(n, 10)))
        .collect::<Result<Vec<_>, _>>()?;
    for (n, call) in open.into_iter().enumerate() {
        println!("{n} + 10 = {}", call.wait()?);
    }

    server.drain(Duration::from_secs(5));
    transport.close()?;
    Ok(())
}
