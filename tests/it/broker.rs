//! The broker that tests run on, as the environment names it.

use fault_proxy::Proxy;
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

/// The same broker through a proxy, and its URL that way.
#[must_use]
pub(crate) fn proxied(url: &str) -> (Proxy, String) {
    let mut url = url::Url::parse(url).expect("it is a URL");
    let host = url.host_str().expect("it names a host").to_owned();
    let proxy = Proxy::to((host.as_str(), url.port().unwrap_or(5672))).expect("there is a port");
    url.set_ip_host(proxy.address().ip())
        .expect("amqp has hosts");
    url.set_port(Some(proxy.port())).expect("amqp has ports");
    (proxy, url.into())
}
