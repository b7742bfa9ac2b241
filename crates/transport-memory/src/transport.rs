//! The async face. Nothing here waits but `recv` and confirms.

use std::future::poll_fn;
use std::time::Instant;

use async_trait::async_trait;
use rpc_core::{
    AckToken, Address, Confirm, Connector, ConsumeOptions, Consumer, ConsumerId, Delivery, Fate,
    Message, QueueSpec, ShortString, Transport, TransportError,
};

use crate::broker::Settle;
use crate::connection::MemoryTransport;
use crate::consumer::MemoryConsumer;
use crate::handle::MemoryBroker;
use crate::refusal::Refusal;

#[async_trait]
impl Transport for MemoryTransport {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<(), TransportError> {
        self.declare_queue(queue)
    }

    async fn publish(
        &self,
        to: &Address,
        message: Message,
        deadline: Instant,
    ) -> Result<Confirm, TransportError> {
        self.send(to, message, deadline)
    }

    fn is_blocked(&self) -> bool {
        self.is_held_up()
    }

    async fn consume(&self, options: ConsumeOptions) -> Result<Box<dyn Consumer>, TransportError> {
        Ok(Box::new(self.subscribe(options)?))
    }

    async fn ack(&self, token: AckToken) -> Result<(), TransportError> {
        self.settle(&token, Settle::Done, "ack")
    }

    async fn reject(&self, token: AckToken, fate: Fate) -> Result<(), TransportError> {
        self.settle(&token, fate.into(), "reject")
    }

    async fn cancel(&self, consumer: ConsumerId) -> Result<(), TransportError> {
        self.stop(consumer)
    }

    async fn close(&self) -> Result<(), TransportError> {
        self.end(&Refusal::Closed);
        Ok(())
    }
}

/// One endpoint: the broker itself.
#[async_trait]
impl Connector for MemoryBroker {
    type Transport = MemoryTransport;

    fn endpoints(&self) -> usize {
        1
    }

    async fn connect(&self, _endpoint: usize) -> Result<MemoryTransport, TransportError> {
        self.dial()
    }
}

#[async_trait]
impl Consumer for MemoryConsumer {
    fn id(&self) -> ConsumerId {
        self.consumer_id()
    }

    fn queue(&self) -> &ShortString {
        self.queue_name()
    }

    async fn recv(&mut self) -> Result<Option<Delivery>, TransportError> {
        poll_fn(|context| self.poll_recv(context)).await
    }
}
