//! Transports of either face that never answer one of their verbs.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use async_trait::async_trait;

use super::script::Script;
use crate::adapt::Offload;
use crate::{
    AckToken, Address, Confirm, ConsumeOptions, Consumer, ConsumerId, Fate, Message, QueueSpec,
    Transport, TransportError, blocking,
};

/// A blocking transport that never answers the verb `at`.
#[derive(Debug)]
pub(super) struct Never {
    pub(super) script: Script,
    at: &'static str,
    /// Whether somebody hangs.
    pub(super) holds: AtomicBool,
}

impl Never {
    pub(super) fn at(at: &'static str) -> Self {
        let script = Script::default();
        let holds = AtomicBool::new(false);
        Self { script, at, holds }
    }

    fn pass(&self, verb: &str) {
        if self.at == verb {
            self.holds.store(true, Ordering::SeqCst);
            loop {
                thread::park();
            }
        }
    }
}

impl blocking::Transport for Never {
    fn name(&self) -> &'static str {
        "never"
    }

    fn declare(&self, queue: &QueueSpec) -> Result<(), TransportError> {
        self.pass("declare");
        self.script.declare(queue)
    }

    fn publish(
        &self,
        to: &Address,
        message: Message,
        deadline: Instant,
    ) -> Result<Confirm, TransportError> {
        self.pass("publish");
        self.script.publish(to, message, deadline)
    }

    fn is_blocked(&self) -> bool {
        false
    }

    fn consume(
        &self,
        options: ConsumeOptions,
    ) -> Result<Box<dyn blocking::Consumer>, TransportError> {
        self.pass("consume");
        self.script.consume(options)
    }

    fn ack(&self, token: AckToken) -> Result<(), TransportError> {
        self.pass("ack");
        self.script.ack(token)
    }

    fn reject(&self, token: AckToken, fate: Fate) -> Result<(), TransportError> {
        self.pass("reject");
        self.script.reject(token, fate)
    }

    fn cancel(&self, consumer: ConsumerId) -> Result<(), TransportError> {
        self.pass("cancel");
        self.script.cancel(consumer)
    }

    fn close(&self) -> Result<(), TransportError> {
        self.pass("close");
        self.script.close()
    }
}

/// An async transport of which one verb never resolves, or several, with spaces between them.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) script: Arc<Offload<Script>>,
    at: &'static str,
}

impl Pending {
    pub(super) fn at(at: &'static str) -> Self {
        let script = Arc::new(Offload::new(Script::default()).unwrap());
        Self { script, at }
    }

    async fn pass(&self, verb: &str) {
        if self.at.split(' ').any(|at| at == verb) {
            pending().await
        }
    }
}

#[async_trait]
impl Transport for Pending {
    fn name(&self) -> &'static str {
        "pending"
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<(), TransportError> {
        self.pass("declare").await;
        self.script.declare(queue).await
    }

    async fn publish(
        &self,
        to: &Address,
        message: Message,
        deadline: Instant,
    ) -> Result<Confirm, TransportError> {
        self.pass("publish").await;
        self.script.publish(to, message, deadline).await
    }

    fn is_blocked(&self) -> bool {
        false
    }

    async fn consume(&self, options: ConsumeOptions) -> Result<Box<dyn Consumer>, TransportError> {
        self.pass("consume").await;
        self.script.consume(options).await
    }

    async fn ack(&self, token: AckToken) -> Result<(), TransportError> {
        self.pass("ack").await;
        self.script.ack(token).await
    }

    async fn reject(&self, token: AckToken, fate: Fate) -> Result<(), TransportError> {
        self.pass("reject").await;
        self.script.reject(token, fate).await
    }

    async fn cancel(&self, consumer: ConsumerId) -> Result<(), TransportError> {
        self.pass("cancel").await;
        self.script.cancel(consumer).await
    }

    async fn close(&self) -> Result<(), TransportError> {
        self.pass("close").await;
        self.script.close().await
    }
}
