//! What the async face adds to the broker: waiting, giving up, being woken.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::num::NonZeroU16;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use rpc_core::{
    Address, Certainty, Connector, ConsumeOptions, Consumer, DeliveryMode, ErrorKind, Fate, Inbox,
    Message, QueueKind, QueueSpec, ShortString, Transport, park,
};
use tokio::time::timeout;
use transport_memory::{MemoryBroker, MemoryTransport};

const WORK: ShortString = ShortString::from_static("work");
const PATIENCE: Duration = Duration::from_secs(5);

async fn with_queue() -> MemoryTransport {
    let transport = MemoryTransport::new();
    let spec = QueueSpec::new(WORK, QueueKind::Durable);
    transport.declare(&spec).await.unwrap();
    transport
}

async fn publish(transport: &MemoryTransport, to: &Address, body: String) {
    let deadline = Instant::now() + PATIENCE;
    let confirm = transport.publish(to, Message::new(body), deadline).await;
    confirm.unwrap().await.unwrap();
}

async fn consume(transport: &MemoryTransport, prefetch: u16) -> Box<dyn Consumer> {
    let prefetch = NonZeroU16::new(prefetch).unwrap();
    let options = ConsumeOptions::queue(WORK, prefetch);
    transport.consume(options).await.unwrap()
}

#[tokio::test]
async fn a_recv_that_is_dropped_a_hundred_times_loses_nothing() {
    let transport = with_queue().await;
    let mut consumer = consume(&transport, 64).await;
    let to = Address::queue(WORK);
    for number in 0..100 {
        // Polled once while there is nothing, so that a waker is in place, and dropped.
        let given_up = timeout(Duration::ZERO, consumer.recv()).await;
        assert!(given_up.is_err());
        publish(&transport, &to, number.to_string()).await;
        // Dropped before it was polled, while there is something.
        drop(consumer.recv());
        let delivery = timeout(PATIENCE, consumer.recv()).await.unwrap();
        let delivery = delivery.unwrap().unwrap();
        assert_eq!(delivery.message.body, number.to_string());
        assert!(!delivery.redelivered);
        transport.ack(delivery.token.unwrap()).await.unwrap();
    }
    assert_eq!(transport.broker().queue_len("work"), Some(0));
    assert_eq!(transport.broker().unsettled("work"), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_race_of_many_producers_and_consumers_loses_nothing() {
    let broker = MemoryBroker::new();
    let transport = broker.connect();
    let spec = QueueSpec::new(WORK, QueueKind::Durable);
    transport.declare(&spec).await.unwrap();

    let done = Arc::new(AtomicUsize::new(0));
    let mut workers = Vec::new();
    for _ in 0..4 {
        let (broker, done) = (broker.clone(), done.clone());
        let transport = broker.connect();
        let mut consumer = consume(&transport, 3).await;
        workers.push(tokio::spawn(async move {
            // Until the queue is deleted, which the last message brings about.
            while let Ok(Some(delivery)) = consumer.recv().await {
                transport.ack(delivery.token.unwrap()).await.unwrap();
                if done.fetch_add(1, Ordering::Relaxed) + 1 == 10_000 {
                    broker.delete_queue("work");
                }
            }
        }));
    }
    for _ in 0..4 {
        let transport = broker.connect();
        workers.push(tokio::spawn(async move {
            for number in 0..2_500 {
                publish(&transport, &Address::queue(WORK), number.to_string()).await;
            }
        }));
    }
    for worker in workers {
        timeout(PATIENCE * 4, worker).await.unwrap().unwrap();
    }
    assert_eq!(done.load(Ordering::Relaxed), 10_000);
}

#[tokio::test]
async fn cancel_wakes_a_recv_that_waits() {
    let transport = with_queue().await;
    let mut consumer = consume(&transport, 1).await;
    let id = consumer.id();
    let (received, cancelled) = tokio::join!(
        timeout(PATIENCE, consumer.recv()),
        // Joined in this order, it runs when the other waits already.
        transport.cancel(id)
    );
    cancelled.unwrap();
    assert!(received.unwrap().unwrap().is_none());
    assert!(consumer.recv().await.unwrap().is_none());
    transport.cancel(id).await.unwrap();
}

#[tokio::test]
async fn sever_wakes_a_recv_with_the_cause_and_ends_every_verb() {
    let transport = with_queue().await;
    let mut consumer = consume(&transport, 1).await;
    let inbox = transport.consume(ConsumeOptions::inbox(Inbox::Exclusive));
    let mut inbox = inbox.await.unwrap();
    let (received, ()) = tokio::join!(timeout(PATIENCE, consumer.recv()), async {
        transport.sever();
    });
    assert_eq!(received.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert!(consumer.recv().await.unwrap().is_none());
    assert_eq!(inbox.recv().await.unwrap_err().kind(), ErrorKind::Closed);
    assert!(inbox.recv().await.unwrap().is_none());

    let deadline = Instant::now() + PATIENCE;
    let to = Address::queue(WORK);
    let late = transport.publish(&to, Message::default(), deadline);
    let error = late.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(error.certainty(), Certainty::NotExecuted);
    transport.cancel(consumer.id()).await.unwrap();
    transport.close().await.unwrap();
}

#[tokio::test]
async fn what_a_lost_connection_held_comes_again_elsewhere() {
    let transport = with_queue().await;
    let other = transport.broker().connect();
    let mut lost = consume(&transport, 2).await;
    for body in ["0", "1"] {
        publish(&other, &Address::queue(WORK), body.to_owned()).await;
    }
    let token = lost.recv().await.unwrap().unwrap().token.unwrap();
    let mut survivor = consume(&other, 2).await;
    transport.sever();
    for body in ["0", "1"] {
        let delivery = timeout(PATIENCE, survivor.recv()).await.unwrap();
        let delivery = delivery.unwrap().unwrap();
        assert_eq!(delivery.message.body, body);
        assert!(delivery.redelivered);
        let foreign = transport.ack(delivery.token.unwrap()).await.unwrap_err();
        assert_eq!(foreign.kind(), ErrorKind::Misuse);
    }
    let stale = transport.reject(token, Fate::Requeue).await.unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn dropping_a_consumer_gives_back_what_it_did_not_receive() {
    let transport = with_queue().await;
    let consumer = consume(&transport, 8).await;
    publish(&transport, &Address::queue(WORK), "x".to_owned()).await;
    assert_eq!(transport.broker().unsettled("work"), Some(1));
    drop(consumer);
    assert_eq!(transport.broker().unsettled("work"), Some(0));
    assert_eq!(transport.broker().queue_len("work"), Some(1));
}

/// A waker that owns a consumer, as the last hold on a task may.
struct Owner(#[expect(dead_code, reason = "only dropped")] Mutex<Box<dyn Consumer>>);

impl Wake for Owner {
    fn wake(self: Arc<Self>) {}
}

#[tokio::test]
async fn a_waker_that_owns_a_consumer_is_not_dropped_under_the_lock() {
    let transport = with_queue().await;
    let mut waiting = consume(&transport, 1).await;
    let owned = consume(&transport, 1).await;
    // In a thread, for it would not come back.
    let (sender, finished) = mpsc::channel();
    thread::spawn(move || {
        let owner = Waker::from(Arc::new(Owner(Mutex::new(owned))));
        for waker in [owner, Waker::noop().clone()] {
            let mut context = Context::from_waker(&waker);
            assert!(waiting.recv().as_mut().poll(&mut context).is_pending());
        }
        sender.send(waiting).unwrap();
    });
    finished.recv_timeout(PATIENCE).unwrap();
}

#[tokio::test]
async fn a_crash_ends_every_transport_and_a_connector_finds_the_broker_once_it_is_back() {
    let transport = with_queue().await;
    let broker = transport.broker().clone();
    let other = broker.connect();
    let to = Address::queue(WORK);
    let kept = Message {
        delivery_mode: DeliveryMode::Persistent,
        ..Message::new("kept")
    };
    for message in [kept, Message::new("lost")] {
        let confirm = other.publish(&to, message, Instant::now() + PATIENCE);
        confirm.await.unwrap().await.unwrap();
    }
    let mut inbox = other
        .consume(ConsumeOptions::inbox(Inbox::Exclusive))
        .await
        .unwrap();
    assert_eq!(broker.connections(), 2);

    broker.stop();
    assert_eq!(broker.connections(), 0);
    let cause = timeout(PATIENCE, inbox.recv()).await.unwrap().unwrap_err();
    assert_eq!(cause.kind(), ErrorKind::Closed);
    let refused = Connector::connect(&broker, 0).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Connect);

    broker.start();
    let transport = Connector::connect(&broker, 0).await.unwrap();
    let mut consumer = consume(&transport, 8).await;
    let delivery = timeout(PATIENCE, consumer.recv()).await.unwrap();
    assert_eq!(delivery.unwrap().unwrap().message.body, "kept");
    assert_eq!(broker.queue_len("work"), Some(0));
}

#[tokio::test]
async fn a_blocked_publish_ends_with_its_transport_or_its_deadline_and_is_not_sent() {
    let transport = with_queue().await;
    let broker = transport.broker().clone();
    let other = broker.connect();
    broker.block_publishers(true);
    let to = Address::queue(WORK);
    let by = |patience| Instant::now() + patience;
    let publish = |transport: &MemoryTransport, deadline| {
        let published = transport.publish(&to, Message::new("x"), deadline);
        park::block_on(published).unwrap()
    };
    let hasty = publish(&transport, by(Duration::from_millis(20)));
    let lost = publish(&other, by(PATIENCE));
    let patient = publish(&transport, by(PATIENCE));
    other.sever();
    for (confirm, kind) in [(hasty, ErrorKind::Timeout), (lost, ErrorKind::Closed)] {
        let error = timeout(PATIENCE, confirm).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(error.certainty(), Certainty::NotExecuted);
    }
    assert_eq!(broker.queue_len("work"), Some(0));
    broker.block_publishers(false);
    timeout(PATIENCE, patient).await.unwrap().unwrap();
    assert_eq!(broker.queue_len("work"), Some(1));
}
