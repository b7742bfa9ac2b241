//! One program, three transports, chosen by an argument: `memory`, `lapin` or `amiquip`.
//!
//! Without an argument it runs all three in turn.

use std::sync::Arc;
use std::time::Duration;

use rpc_core::adapt::Offload;
use rpc_core::{Client, ClientOptions, QueueKind, QueueSpec, Router, Server, ServerOptions};
use rpc_core::{ShortString, Transport};
use transport_amiquip::{AmiquipConfig, AmiquipTransport};
use transport_lapin::{LapinConfig, LapinTransport};
use transport_memory::MemoryTransport;

async fn connect(name: &str) -> anyhow::Result<Arc<dyn Transport>> {
    Ok(match name {
        "memory" => Arc::new(MemoryTransport::new()),
        "lapin" => {
            let config = LapinConfig::new(rpc_examples::broker_url()?);
            Arc::new(LapinTransport::connect(config).await?)
        }
        "amiquip" => {
            // amiquip blocks, so it connects on a thread that may, and an adapter gives it the
            // async face.
            let config = AmiquipConfig::new(rpc_examples::broker_url()?);
            let connect = move || AmiquipTransport::connect(config);
            Arc::new(Offload::new(tokio::task::spawn_blocking(connect).await??)?)
        }
        other => anyhow::bail!("no transport {other:?}: memory, lapin or amiquip"),
    })
}

async fn shout_over(transport: Arc<dyn Transport>) -> anyhow::Result<()> {
    let queue = ShortString::from_static("example.shout");
    let router = Router::new().handle("shout", |words: String| Ok(words.to_uppercase()));
    let spec = QueueSpec::new(queue.clone(), QueueKind::Durable);
    let server = Server::start(Arc::clone(&transport), router, ServerOptions::new(spec)).await?;

    let client = Client::new(Arc::clone(&transport), ClientOptions::new(queue)).await?;
    let shouted: String = client.call("shout", "any broker will do").await?;
    println!("{}: {shouted}", transport.name());

    server.drain(Duration::from_secs(5)).await;
    transport.close().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let names = if asked.is_empty() {
        vec!["memory", "lapin", "amiquip"]
    } else {
        vec![]
    };
    for name in names.into_iter().chain(asked.iter().map(String::as_str)) {
        shout_over(connect(name).await?).await?;
    }
    Ok(())
}
