//! `BlockOn`: the runtime is at hand, and its threads are never blocked.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::{QUEUE, declare, four, kind, offload, soon, to, wait};
use crate::adapt::{BlockOn, lock};
use crate::blocking::Transport as _;
use crate::{
    AckToken, Address, Certainty, Confirm, ConsumeOptions, Consumer, ConsumerId, Delivery,
    ErrorKind, Fate, Message, QueueSpec, ShortString, Transport, TransportError,
};

/// An async transport that needs its runtime for everything.
#[derive(Debug, Default)]
struct Timers {
    ended: Arc<Notify>,
    farewell: Arc<AtomicBool>,
}

impl Drop for Timers {
    fn drop(&mut self) {
        // Panics without a runtime at hand.
        drop(tokio::spawn(pending::<()>()));
        self.farewell.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl Transport for Timers {
    fn name(&self) -> &'static str {
        "timers"
    }

    async fn declare(&self, _: &QueueSpec) -> Result<(), TransportError> {
        let task = tokio::spawn(tokio::time::sleep(Duration::from_millis(1)));
        task.await.map_err(|error| {
            TransportError::new(ErrorKind::Other, "timers", "declare").with_source(error)
        })
    }

    async fn publish(
        &self,
        _: &Address,
        _: Message,
        _: Instant,
    ) -> Result<Confirm, TransportError> {
        pending().await
    }

    fn is_blocked(&self) -> bool {
        false
    }

    async fn consume(&self, _: ConsumeOptions) -> Result<Box<dyn Consumer>, TransportError> {
        Ok(Box::new(TimersConsumer {
            id: ConsumerId::unique(),
            ended: Arc::clone(&self.ended),
        }))
    }

    async fn ack(&self, _: AckToken) -> Result<(), TransportError> {
        Ok(())
    }

    async fn reject(&self, _: AckToken, _: Fate) -> Result<(), TransportError> {
        Ok(())
    }

    async fn cancel(&self, _: ConsumerId) -> Result<(), TransportError> {
        self.ended.notify_one();
        Ok(())
    }

    async fn close(&self) -> Result<(), TransportError> {
        self.ended.notify_one();
        Ok(())
    }
}

#[derive(Debug)]
struct TimersConsumer {
    id: ConsumerId,
    ended: Arc<Notify>,
}

impl Drop for TimersConsumer {
    fn drop(&mut self) {
        drop(tokio::spawn(pending::<()>()));
    }
}

#[async_trait]
impl Consumer for TimersConsumer {
    fn id(&self) -> ConsumerId {
        self.id
    }

    fn queue(&self) -> &ShortString {
        const { &QUEUE }
    }

    async fn recv(&mut self) -> Result<Option<Delivery>, TransportError> {
        let _ = tokio::time::timeout(Duration::from_secs(10), self.ended.notified()).await;
        Ok(None)
    }
}

fn timers() -> BlockOn<Timers> {
    BlockOn::with_runtime(|| async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(Timers::default())
    })
    .unwrap()
}

#[test]
fn a_transport_finds_timers_and_tasks_on_the_runtime_of_its_adapter() {
    let transport = timers();
    transport.declare(&declare("q")).unwrap();
    let mut consumer = transport.consume(four()).unwrap();
    let id = consumer.id();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| consumer.recv().unwrap().is_none());
        transport.cancel(id).unwrap();
        assert!(waiting.join().unwrap());
    });
}

#[test]
fn a_publish_ends_at_its_deadline_and_may_have_been_sent() {
    let transport = timers();
    let deadline = Instant::now() + Duration::from_millis(20);
    let error = transport
        .publish(&to("q"), Message::new("1"), deadline)
        .unwrap_err();
    assert!(Instant::now() >= deadline);
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.certainty(), Certainty::MaybeExecuted);
}

#[test]
fn close_ends_the_runtime_and_nothing_panics_without_it() {
    let transport = timers();
    let mut consumer = transport.consume(four()).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            assert!(consumer.recv().unwrap().is_none());
            consumer
        });
        transport.close().unwrap();
        let mut consumer = waiting.join().unwrap();
        assert!(consumer.recv().unwrap().is_none());
    });
    transport.close().unwrap();
    transport.cancel(ConsumerId::unique()).unwrap();
    let published = transport.publish(&to("q"), Message::new("1"), soon());
    assert_eq!(
        published.unwrap_err().certainty(),
        Certainty::NotExecuted,
        "it is certain that nothing was sent"
    );
    assert_eq!(
        kind(transport.declare(&declare("q"))),
        Some(ErrorKind::Closed)
    );
}

#[test]
fn blocking_on_a_thread_of_a_runtime_is_misuse() {
    let transport = timers();
    let mut consumer = transport.consume(four()).unwrap();
    let farewell = Arc::clone(&transport.inner().farewell);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let task = runtime.spawn(async move {
        let misuse = Some(ErrorKind::Misuse);
        assert_eq!(kind(transport.declare(&declare("q"))), misuse);
        assert_eq!(
            kind(transport.publish(&to("q"), Message::new("1"), soon())),
            misuse
        );
        assert_eq!(kind(transport.consume(four())), misuse);
        assert_eq!(kind(consumer.recv()), misuse);
        assert_eq!(kind(transport.cancel(consumer.id())), misuse);
        assert_eq!(kind(transport.close()), misuse);
        let another = BlockOn::with_runtime(|| async { Ok(Timers::default()) });
        assert_eq!(kind(another), misuse);
        // To drop it here is allowed.
        drop(transport);
        drop(consumer);
    });
    wait(task).unwrap();
    assert!(farewell.load(Ordering::SeqCst));
}

#[test]
fn a_lent_runtime_is_left_running() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let transport = BlockOn::new(Timers::default(), runtime.handle().clone());
    transport.declare(&declare("q")).unwrap();
    transport.close().unwrap();
    drop(transport);
    runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
}

#[test]
fn the_adapters_can_be_stacked() {
    let transport = BlockOn::with_runtime(|| async { Ok(offload()) }).unwrap();
    assert_eq!(transport.name(), "script");
    let confirm = transport
        .publish(&to("q"), Message::new("1"), soon())
        .unwrap();
    confirm.wait(soon()).unwrap();
    let mut consumer = transport.consume(four()).unwrap();
    transport.inner().inner().deliver(consumer.id(), 0..1);
    let delivery = consumer.recv().unwrap().unwrap();
    transport.ack(delivery.token.unwrap()).unwrap();
    transport.close().unwrap();
    assert!(consumer.recv().unwrap().is_none());
    assert_eq!(*lock(&transport.inner().inner().settled), [(0, "ack")]);
}
