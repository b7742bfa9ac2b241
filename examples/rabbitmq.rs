//! The first service on RabbitMQ: only the line that makes the transport differs.

use std::sync::Arc;
use std::time::Duration;

use rpc_core::{Client, ClientOptions, QueueSpec, Router, Server, ServerOptions};
use rpc_core::{ShortString, Status, Transport};
use transport_lapin::{LapinConfig, LapinTransport};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let queue = ShortString::from_static("example.numbers");
    let config = LapinConfig::new(rpc_examples::broker_url()?);
    let transport = Arc::new(LapinTransport::connect(config).await?);

    let router = Router::new().handle("square_root", |n: f64| {
        if n < 0.0 {
            Err(Status::out_of_range("below zero"))
        } else {
            Ok(n.sqrt())
        }
    });
    let spec = QueueSpec::durable(queue.clone());
    let server = Server::start(Arc::clone(&transport), router, ServerOptions::new(spec)).await?;

    let client = Client::new(Arc::clone(&transport), ClientOptions::new(queue)).await?;
    let root: f64 = client.call("square_root", &2.0).await?;
    println!("the square root of 2 is {root}");

    let report = server.drain(Duration::from_secs(5)).await;
    println!("served {} requests", report.stats.received);
    transport.close().await?;
    Ok(())
}
