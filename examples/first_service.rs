//! A first service: server and client in one process, with no broker at all.

use std::sync::Arc;

use rpc_core::{Client, ClientOptions, QueueSpec, Router, Server, ServerOptions};
use rpc_core::{ShortString, Status};
use transport_memory::MemoryTransport;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let queue = ShortString::from_static("numbers");
    let transport = Arc::new(MemoryTransport::new());

    let router = Router::new().handle("square_root", |n: f64| {
        if n < 0.0 {
            Err(Status::out_of_range("below zero"))
        } else {
            Ok(n.sqrt())
        }
    });
    let spec = QueueSpec::durable(queue.clone());
    let _server = Server::start(Arc::clone(&transport), router, ServerOptions::new(spec)).await?;

    let client = Client::new(transport, ClientOptions::new(queue)).await?;
    let root: f64 = client.call("square_root", &2.0).await?;
    println!("the square root of 2 is {root}");

    if let Err(error) = client.call::<_, f64>("square_root", &-1.0).await {
        println!("of -1: {} ({}): {error}", error.code(), error.certainty());
    }
    Ok(())
}
