//! A program in plain threads over the async client library: `BlockOnConnector` brings a runtime of its
//! own for each connection, and nothing in the program awaits.

use std::thread;
use std::time::Duration;

use rpc_core::adapt::BlockOnConnector;
use rpc_core::blocking::{Client, Server};
use rpc_core::{
    CallOptions, Cancellation, ClientOptions, Context, QueueSpec, Reason, Router, ServerOptions,
    ShortString, Status,
};
use transport_lapin::LapinConnector;

fn main() -> anyhow::Result<()> {
    let queue = ShortString::from_static("example.blocking_over_lapin");
    let connector = BlockOnConnector::new(LapinConnector::new(rpc_examples::broker_url()?));

    let router = Router::new()
        .handle("add", |(a, b): (u64, u64)| Ok(a + b))
        .handle_blocking_with("wait", |context: Context, (): ()| -> Result<(), Status> {
            while !context.is_cancelled() {
                thread::sleep(Duration::from_millis(10));
            }
            Err(Status::cancelled("nobody waits any more"))
        });
    let options = ServerOptions::new(QueueSpec::durable(queue.clone()));
    let server = Server::connect(connector.clone(), router, options);
    // It returns at once where waiting is of no use: for a wrong password, say.
    server.ready(Duration::from_secs(20))?;

    let client = Client::connect(connector, ClientOptions::new(queue));
    client.ready(Duration::from_secs(20))?;
    let sum: u64 = client.call("add", &(20, 22))?;
    println!("20 + 22 = {sum}");

    // A thread that waits for an answer can be told by another one to stop waiting.
    let stop = Cancellation::new();
    let options = CallOptions::default().with_cancellation(stop.clone());
    let waiting = {
        let client = client.clone();
        thread::spawn(move || client.call_with::<_, ()>(options, "wait", &()))
    };
    stop.cancel();
    let ended = waiting
        .join()
        .map_err(|_| anyhow::anyhow!("the caller panicked"))?;
    let error = ended
        .err()
        .ok_or_else(|| anyhow::anyhow!("it was given up"))?;
    anyhow::ensure!(error.reason() == Reason::GivenUp, "{error}");
    println!("a call was given up: {error} ({})", error.certainty());

    client.close();
    server.drain(Duration::from_secs(5));
    Ok(())
}
