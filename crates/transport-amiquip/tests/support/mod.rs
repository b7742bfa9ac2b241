//! What the tests against a broker share.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod proxy;

use std::env;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rpc_core::blocking::{Consumer, Transport};
use rpc_core::{
    Address, ConsumeOptions, Delivery, Message, QueueKind, QueueSpec, ShortString, TransportError,
};
use transport_amiquip::{AmiquipConfig, AmiquipTransport, AmqpUrl};

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn url() -> AmqpUrl {
    env::var("RPC_AMQP_URL")
        .expect("RPC_AMQP_URL names the broker to test against: run cargo xtask test")
        .parse()
        .expect("RPC_AMQP_URL is the URL of a broker")
}

/// The same broker, seen through another port.
pub(crate) fn url_at_port(port: u16, query: &str) -> AmqpUrl {
    let url = url();
    let address = format!("127.0.0.1:{port}");
    parse(&url, url.expose_password(), &address, query)
}

/// The same broker and user with another password.
pub(crate) fn url_with_password(url: &AmqpUrl, password: &str) -> AmqpUrl {
    let address = format!("{}:{}", url.host(), url.port());
    parse(url, password, &address, "")
}

fn parse(url: &AmqpUrl, password: &str, address: &str, query: &str) -> AmqpUrl {
    let vhost = url.vhost().replace('/', "%2f");
    let user = url.username();
    format!("amqp://{user}:{password}@{address}/{vhost}{query}")
        .parse()
        .unwrap()
}

pub(crate) fn connect() -> AmiquipTransport {
    AmiquipTransport::connect(AmiquipConfig::new(url())).unwrap()
}

pub(crate) fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// A name that no other test and no other run uses.
pub(crate) fn unique(what: &str) -> ShortString {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    ShortString::new(format!("test.{what}.{}.{number}", now.as_nanos())).unwrap()
}

/// A new durable queue.
pub(crate) fn queue(transport: &AmiquipTransport, what: &str) -> ShortString {
    let name = unique(what);
    transport
        .declare(&QueueSpec::new(name.clone(), QueueKind::Durable))
        .unwrap();
    name
}

pub(crate) fn work(queue: &ShortString, prefetch: u16) -> ConsumeOptions {
    ConsumeOptions::queue(queue.clone(), NonZeroU16::new(prefetch).unwrap())
}

/// Publishes and waits for the verdict.
pub(crate) fn send(
    transport: &AmiquipTransport,
    to: &ShortString,
    message: Message,
) -> Result<(), TransportError> {
    transport
        .publish(&Address::queue(to.clone()), message, soon())?
        .wait(soon())
}

pub(crate) fn next(consumer: &mut dyn Consumer) -> Delivery {
    consumer.recv().unwrap().expect("a delivery")
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = soon();
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// The names of this process's threads.
pub(crate) fn threads() -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect();
    names.sort();
    names
}
