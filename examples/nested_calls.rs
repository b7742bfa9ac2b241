//! A service that calls another one, within the time that its own caller has left.
//!
//! The order takes the context of its request along: the price has no more time than the order has,
//! is cancelled with it, carries the same trace, and the two can call each other in a circle only so
//! often.

use std::time::Duration;

use rpc_core::{CallOptions, Client, ClientOptions, Context, QueueSpec, Router, Server};
use rpc_core::{ServerOptions, ShortString};
use transport_memory::MemoryBroker;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let broker = MemoryBroker::new();
    let (prices, orders) = (
        ShortString::from_static("example.prices"),
        ShortString::from_static("example.orders"),
    );

    let price = Router::new().handle_async_with("price", async |context: Context, item: String| {
        println!(
            "price of {item}: {} ms are left",
            context.remaining().as_millis()
        );
        if item == "moon" {
            // Nobody waits for this as long as it would take.
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        Ok(item.len() as u64)
    });
    let pricing = Server::connect(
        broker.clone(),
        price,
        ServerOptions::new(QueueSpec::durable(prices.clone())),
    );

    let caller = Client::connect(
        broker.clone(),
        ClientOptions::new(prices).with_wait_for_ready(true),
    );
    let order = Router::new().handle_async_with("order", move |context: Context, item: String| {
        let caller = caller.clone();
        async move {
            let options = CallOptions::within(&context);
            let price: u64 = caller.call_with(options, "price", &item).await?;
            Ok(format!("{item} for {price}"))
        }
    });
    let ordering = Server::connect(
        broker.clone(),
        order,
        ServerOptions::new(QueueSpec::durable(orders.clone())),
    );

    let client = Client::connect(broker, ClientOptions::new(orders).with_wait_for_ready(true));
    let bought: String = client.call("order", "a hat").await?;
    println!("{bought}");

    let soon = CallOptions::timeout(Duration::from_millis(300));
    let error = client
        .call_with::<_, String>(soon, "order", "moon")
        .await
        .expect_err("the moon takes a minute");
    println!("{} ({}): {error}", error.code(), error.certainty());

    client.close().await;
    ordering.drain(Duration::from_secs(1)).await;
    pricing.drain(Duration::from_secs(1)).await;
    Ok(())
}
