//! A blocking transport whose every move the test decides.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::Instant;

use crate::adapt::lock;
use crate::{
    AckToken, Address, Confirm, ConsumeOptions, ConsumerId, Delivery, Fate, Message, QueueSpec,
    ShortString, Source, TransportError, blocking,
};

/// A place where threads wait until the test lets them go.
#[derive(Debug, Default)]
pub(super) struct Gate {
    shut: Mutex<bool>,
    changed: Condvar,
    pub(super) waiting: AtomicUsize,
}

impl Gate {
    pub(super) fn shut(&self) {
        *lock(&self.shut) = true;
    }

    pub(super) fn open(&self) {
        *lock(&self.shut) = false;
        self.changed.notify_all();
    }

    fn pass(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        drop(
            self.changed
                .wait_while(lock(&self.shut), |shut| *shut)
                .unwrap(),
        );
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A blocking transport that does as it is told, and notes what it was asked for.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) published: Mutex<Vec<Vec<u8>>>,
    pub(super) settled: Mutex<Vec<(u64, &'static str)>>,
    pub(super) feeds: Mutex<HashMap<ConsumerId, mpsc::Sender<Delivery>>>,
    pub(super) consumes: Gate,
    pub(super) declares: Gate,
    pub(super) publishes: Gate,
    /// How many consumers there have been.
    pub(super) consumed: AtomicUsize,
    /// How many consumers are there.
    pub(super) received_by: Arc<AtomicUsize>,
    pub(super) closes: AtomicUsize,
    /// Where it was dropped.
    pub(super) dropped: Arc<Mutex<Option<String>>>,
}

impl Script {
    pub(super) fn deliver(&self, consumer: ConsumerId, tags: std::ops::Range<u64>) {
        for tag in tags {
            lock(&self.feeds)[&consumer]
                .send(Delivery {
                    message: Message::new(tag.to_string()),
                    received_at: Instant::now(),
                    redelivered: false,
                    token: Some(AckToken::new(consumer, tag)),
                })
                .unwrap();
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let place = thread::current().name().unwrap_or_default().to_owned();
        *lock(&self.dropped) = Some(place);
    }
}

impl blocking::Transport for Script {
    fn name(&self) -> &'static str {
        "script"
    }

    fn declare(&self, queue: &QueueSpec) -> Result<(), TransportError> {
        assert!(queue.name != "panic", "as told");
        self.declares.pass();
        Ok(())
    }

    fn publish(
        &self,
        to: &Address,
        message: Message,
        _: Instant,
    ) -> Result<Confirm, TransportError> {
        assert!(*to.routing_key() != "panic", "as told");
        self.publishes.pass();
        lock(&self.published).push(message.body.to_vec());
        Ok(Confirm::known(Ok(())))
    }

    fn is_blocked(&self) -> bool {
        false
    }

    fn consume(
        &self,
        options: ConsumeOptions,
    ) -> Result<Box<dyn blocking::Consumer>, TransportError> {
        self.consumes.pass();
        let (sender, deliveries) = mpsc::channel();
        let id = ConsumerId::unique();
        lock(&self.feeds).insert(id, sender);
        self.received_by.fetch_add(1, Ordering::SeqCst);
        self.consumed.fetch_add(1, Ordering::SeqCst);
        let queue = match options.source {
            Source::Queue(name) => name,
            Source::Inbox(_) => ShortString::from_static("inbox"),
        };
        Ok(Box::new(ScriptConsumer {
            id,
            queue,
            deliveries,
            count: Arc::clone(&self.received_by),
        }))
    }

    fn ack(&self, token: AckToken) -> Result<(), TransportError> {
        lock(&self.settled).push((token.tag(), "ack"));
        Ok(())
    }

    fn reject(&self, token: AckToken, fate: Fate) -> Result<(), TransportError> {
        let verdict = match fate {
            Fate::Discard => "discard",
            Fate::Requeue => "requeue",
        };
        lock(&self.settled).push((token.tag(), verdict));
        Ok(())
    }

    fn cancel(&self, consumer: ConsumerId) -> Result<(), TransportError> {
        lock(&self.feeds).remove(&consumer);
        Ok(())
    }

    fn close(&self) -> Result<(), TransportError> {
        self.closes.fetch_add(1, Ordering::SeqCst);
        lock(&self.feeds).clear();
        self.consumes.open();
        self.publishes.open();
        self.declares.open();
        Ok(())
    }
}

#[derive(Debug)]
struct ScriptConsumer {
    id: ConsumerId,
    queue: ShortString,
    deliveries: mpsc::Receiver<Delivery>,
    count: Arc<AtomicUsize>,
}

impl blocking::Consumer for ScriptConsumer {
    fn id(&self) -> ConsumerId {
        self.id
    }

    fn queue(&self) -> &ShortString {
        &self.queue
    }

    fn recv(&mut self) -> Result<Option<Delivery>, TransportError> {
        let Ok(delivery) = self.deliveries.recv() else {
            return Ok(None);
        };
        assert!(delivery.message.body != "9999", "as told");
        Ok(Some(delivery))
    }
}

impl Drop for ScriptConsumer {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
    }
}
