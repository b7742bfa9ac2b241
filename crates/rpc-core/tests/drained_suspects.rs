//! Suspects that wait for their turn when their server stops: they stay where they are.

#![cfg(all(feature = "blocking", feature = "json"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::num::{NonZeroU16, NonZeroUsize};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use rpc_core::blocking::{Client, Consumer, Server, Transport};
use rpc_core::{
    AckToken, Address, ClientOptions, Confirm, ConsumeOptions, ConsumerId, Fate, Message,
    QueueSpec, Router, ServerOptions, ShortString, Source, TransportError,
};
use transport_memory::{MemoryBroker, MemoryTransport};

const QUEUE: ShortString = ShortString::from_static("work");
const PATIENCE: Duration = Duration::from_secs(10);

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn send(by: &MemoryTransport, queue: ShortString, body: &'static str) {
    let until = Instant::now() + PATIENCE;
    let to = Address::queue(queue);
    let confirm = Transport::publish(by, &to, Message::new(body), until).unwrap();
    confirm.wait(until).unwrap();
}

/// A handler that tells when it begins, and ends when it is told to.
fn held() -> (Router, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (begins, begun) = mpsc::channel();
    let (ends, end) = mpsc::channel();
    let end = Mutex::new(end);
    let router = Router::new().handle_blocking("wait", move |()| {
        begins.send(()).unwrap();
        let _ = end.lock().unwrap().recv_timeout(PATIENCE);
        Ok(())
    });
    (router, begun, ends)
}

fn client(broker: &MemoryBroker) -> Client<MemoryTransport> {
    let options = ClientOptions::new(QUEUE).with_timeout(PATIENCE);
    let client = Client::connect(broker.clone(), options);
    client.ready(PATIENCE).unwrap();
    client
}

#[test]
fn a_blocking_server_that_drains_passes_nothing_on_before_its_turn() {
    let broker = MemoryBroker::new();
    let spec = QueueSpec::quorum(QUEUE);
    // Two requests that another worker has taken, and will not answer.
    let other = broker.connect();
    Transport::declare(&other, &spec).unwrap();
    for body in ["one", "two"] {
        send(&other, QUEUE, body);
    }
    let two = ConsumeOptions::queue(QUEUE, NonZeroU16::new(2).unwrap());
    let taken = Transport::consume(&other, two).unwrap();
    eventually("they are taken", || broker.unsettled("work") == Some(2));

    let (router, begun, ends) = held();
    let options = ServerOptions::new(spec).with_concurrency(NonZeroUsize::new(2).unwrap());
    let server = Server::connect(broker.clone(), router, options);
    server.ready(PATIENCE).unwrap();
    let client = Client::connect(
        broker.clone(),
        ClientOptions::new(QUEUE).with_timeout(PATIENCE),
    );
    client.ready(PATIENCE).unwrap();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| client.call::<_, ()>("wait", &()));
        begun.recv_timeout(PATIENCE).unwrap();
        drop(taken);
        Transport::close(&other).unwrap();
        eventually("they come again", || server.stats().received == 3);
        let drain = scope.spawn(|| server.drain(PATIENCE));
        // One of them may be on its way already, after a second beside the handler.
        eventually("one goes back", || broker.queue_len("work") >= Some(1));
        ends.send(()).unwrap();
        call.join().unwrap().unwrap();
        let report = drain.join().unwrap();
        assert_eq!((report.unfinished, report.stats.ok), (0, 1), "{report:?}");
    });
    let left = ["work", "work.quarantine"].map(|queue| broker.queue_len(queue).unwrap());
    assert_eq!(left.iter().sum::<usize>(), 2, "{left:?}");
}

/// A transport that is slow to cancel the consumer of the quarantine queue.
#[derive(Debug)]
struct Slow {
    inner: MemoryTransport,
    quarantine: OnceLock<ConsumerId>,
    /// How many deliveries were put back.
    requeued: AtomicUsize,
}

impl Transport for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn declare(&self, queue: &QueueSpec) -> Result<(), TransportError> {
        Transport::declare(&self.inner, queue)
    }

    fn publish(
        &self,
        to: &Address,
        message: Message,
        deadline: Instant,
    ) -> Result<Confirm, TransportError> {
        Transport::publish(&self.inner, to, message, deadline)
    }

    fn is_blocked(&self) -> bool {
        Transport::is_blocked(&self.inner)
    }

    fn consume(&self, options: ConsumeOptions) -> Result<Box<dyn Consumer>, TransportError> {
        let suspects =
            matches!(&options.source, Source::Queue(name) if name.as_str() == "work.quarantine");
        let consumer = Transport::consume(&self.inner, options)?;
        if suspects {
            self.quarantine.set(consumer.id()).unwrap();
        }
        Ok(consumer)
    }

    fn ack(&self, token: AckToken) -> Result<(), TransportError> {
        Transport::ack(&self.inner, token)
    }

    fn reject(&self, token: AckToken, fate: Fate) -> Result<(), TransportError> {
        let rejected = Transport::reject(&self.inner, token, fate);
        self.requeued.fetch_add(1, Ordering::SeqCst);
        rejected
    }

    /// As long as something would come back that is put back too soon, to see that nothing is.
    fn cancel(&self, consumer: ConsumerId) -> Result<(), TransportError> {
        if self.quarantine.get() == Some(&consumer) {
            let until = Instant::now() + MOMENT;
            while Instant::now() < until && self.requeued.load(Ordering::SeqCst) < 3 {
                std::thread::yield_now();
            }
        }
        Transport::cancel(&self.inner, consumer)
    }

    fn close(&self) -> Result<(), TransportError> {
        Transport::close(&self.inner)
    }
}

/// How long it is slow.
const MOMENT: Duration = Duration::from_millis(200);

#[test]
fn a_blocking_server_that_drains_hands_a_suspect_back_once() {
    let broker = MemoryBroker::new();
    let (router, begun, ends) = held();
    let options = ServerOptions::new(QueueSpec::quorum(QUEUE))
        .with_concurrency(NonZeroUsize::new(2).unwrap());
    let slow = Slow {
        inner: broker.connect(),
        quarantine: OnceLock::new(),
        requeued: AtomicUsize::new(0),
    };
    let server = Server::start(slow, router, options).unwrap();
    let client = client(&broker);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| client.call::<_, ()>("wait", &()));
        begun.recv_timeout(PATIENCE).unwrap();
        let quarantine = ShortString::from_static("work.quarantine");
        send(&broker.connect(), quarantine, "suspect");
        eventually("it is taken in", || server.stats().received == 2);
        let drain = scope.spawn(|| server.drain(PATIENCE));
        eventually("it goes back", || {
            broker.queue_len("work.quarantine") == Some(1)
        });
        ends.send(()).unwrap();
        call.join().unwrap().unwrap();
        let stats = drain.join().unwrap().stats;
        assert_eq!((stats.requeued, stats.poisoned), (1, 0), "{stats:?}");
    });
    assert_eq!(broker.queue_len("work.quarantine"), Some(1));
}
