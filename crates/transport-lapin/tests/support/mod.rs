//! What the tests share: the broker's URL, waits that end, a count of threads, a proxy to break.
#![allow(dead_code, reason = "neither binary uses all of it")]

use std::error::Error;
use std::num::NonZeroU16;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fault_proxy::{Direction, End};
use lapin::options::QueueDeleteOptions;
use rpc_core::park::block_on_until;
use rpc_core::{
    Address, Confirm, ConsumeOptions, Consumer, Delivery, Message, QueueKind, QueueSpec,
    ShortString, Transport, TransportError,
};
use transport_lapin::{AmqpUrl, LapinConfig, LapinTransport};

/// Threads are counted over the whole process, so one test runs at a time.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn broker() -> String {
    std::env::var("RPC_AMQP_URL").expect("RPC_AMQP_URL is not set: run cargo xtask test")
}

pub(crate) fn url() -> AmqpUrl {
    broker().parse().unwrap()
}

/// The broker's URL with another host and port, user info, and path.
pub(crate) fn other_url(authority: &str, path: &str) -> AmqpUrl {
    format!("amqp://{authority}{path}").parse().unwrap()
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    block_on_until(pin!(future), soon()).expect("it did not end in ten seconds")
}

pub(crate) fn connect(config: LapinConfig) -> LapinTransport {
    wait(LapinTransport::connect(config)).unwrap()
}

pub(crate) fn connected() -> LapinTransport {
    connect(LapinConfig::new(url()))
}

pub(crate) fn name(prefix: &str) -> ShortString {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    ShortString::new(format!("{prefix}-{}-{number}", std::process::id())).unwrap()
}

pub(crate) fn queue(transport: &LapinTransport) -> ShortString {
    let name = name("lapin-test");
    wait(transport.declare(&QueueSpec::new(name.clone(), QueueKind::Transient))).unwrap();
    name
}

pub(crate) fn consume(
    transport: &LapinTransport,
    queue: &ShortString,
    prefetch: u16,
) -> Box<dyn Consumer> {
    let prefetch = NonZeroU16::new(prefetch).unwrap();
    wait(transport.consume(ConsumeOptions::queue(queue.clone(), prefetch))).unwrap()
}

pub(crate) fn publish(transport: &LapinTransport, to: &ShortString, body: &str) -> Confirm {
    let to = Address::queue(to.clone());
    wait(transport.publish(&to, Message::new(body.to_owned()), soon())).unwrap()
}

pub(crate) fn recv(consumer: &mut dyn Consumer) -> Delivery {
    wait(consumer.recv()).unwrap().expect("a delivery")
}

pub(crate) fn numbered(number: usize) -> Message {
    let mut message = Message::new("x");
    message.correlation_id = ShortString::new(number.to_string()).ok();
    message
}

pub(crate) fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let mut names: Vec<String> = tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| {
            ["lapin", "transport", "amqp", "tokio-r"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        })
        .collect();
    names.sort();
    names
}

/// A thread that has returned may be listed a little longer.
pub(crate) fn assert_no_threads() {
    let deadline = Instant::now() + Duration::from_secs(1);
    while !threads().is_empty() && Instant::now() < deadline {
        thread::yield_now();
    }
    assert_eq!(threads(), Vec::<String>::new());
}

pub(crate) fn whole_text(error: &TransportError) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(" {error} {error:?}"));
        source = error.source();
    }
    text
}

pub(crate) fn delete_queue(queue: &ShortString) {
    let queue = queue.clone();
    by_hand(async move |channel| {
        let options = QueueDeleteOptions::default();
        channel
            .queue_delete(queue.as_str().into(), options)
            .await
            .unwrap();
    });
}

/// Speaks to the broker through lapin itself, for what no transport offers.
pub(crate) fn by_hand(say: impl AsyncFnOnce(&lapin::Channel)) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let properties = lapin::ConnectionProperties::default();
        let connection = lapin::Connection::connect(&broker(), properties)
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        say(&channel).await;
        connection.close(200, "bye".into()).await.unwrap();
    });
}

/// The broker seen through the fault proxy, in the words of these tests.
pub(crate) struct Proxy(fault_proxy::Proxy);

impl Proxy {
    pub(crate) fn start() -> Self {
        let url = url();
        Self(fault_proxy::Proxy::to((url.host(), url.port())).unwrap())
    }

    pub(crate) fn url(&self) -> AmqpUrl {
        let url = url();
        let user = format!("{}:{}", url.username(), url.expose_password());
        other_url(&format!("{user}@127.0.0.1:{}", self.0.port()), "/")
    }

    /// What the broker says from now on is lost.
    pub(crate) fn hole(&self) {
        self.0.swallow(Direction::Down);
    }

    /// The broker reads nothing any more, or goes on reading.
    pub(crate) fn set_deaf(&self, deaf: bool) {
        if deaf {
            self.0.pause(Direction::Up);
        } else {
            self.0.resume(Direction::Up);
        }
    }

    /// Says something to the client, as if the broker had.
    pub(crate) fn say(&self, number: usize, bytes: &[u8]) {
        self.0.say(number, bytes).unwrap();
    }

    pub(crate) fn cut(&self, number: usize) {
        assert!(self.0.end(number, End::Cut), "there is no such connection");
    }
}
