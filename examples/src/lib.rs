//! What the examples share: where the broker is.

use amqp_broker::AmqpUrl;

/// The broker named by `RPC_AMQP_URL` or `AMQP_URL`, or the one of this machine.
///
/// # Errors
///
/// The variable is set, and is no URL of a broker.
pub fn broker_url() -> anyhow::Result<AmqpUrl> {
    let given = ["RPC_AMQP_URL", "AMQP_URL"]
        .iter()
        .find_map(|name| std::env::var(name).ok());
    Ok(given
        .as_deref()
        .unwrap_or("amqp://guest:guest@127.0.0.1:5672/%2f")
        .parse()?)
}
