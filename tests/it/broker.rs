//! The broker that tests run on, as the environment names it.

use rpc_core::ShortString;

/// The URL of the broker.
///
/// # Panics
///
/// When `RPC_AMQP_URL` is not set: whoever asks for a test that needs a broker gets it or an error.
#[must_use]
pub(crate) fn url() -> String {
    std::env::var("RPC_AMQP_URL").unwrap_or_else(|_| {
        panic!(
            "RPC_AMQP_URL is not set: run `cargo xtask test`, or name a broker that may be thrown \
             away, such as amqp://guest:guest@127.0.0.1:5672"
        )
    })
}

/// A queue name that begins with `about` and is used by nobody else.
#[must_use]
pub(crate) fn queue(about: &str) -> ShortString {
    let unique = uuid::Uuid::new_v4().simple();
    ShortString::new(format!("test-{about}-{unique}")).expect("it is short")
}
