//! The blocking face. Nothing here waits but `recv` and confirms.

use std::future::poll_fn;
use std::time::Instant;

use rpc_core::blocking::{Connector, Consumer, Transport};
use rpc_core::{
    AckToken, Address, Confirm, ConsumeOptions, ConsumerId, Delivery, Fate, Message, QueueSpec,
    ShortString, TransportError, park,
};

use crate::broker::Settle;
use crate::connection::MemoryTransport;
use crate::consumer::MemoryConsumer;
use crate::handle::MemoryBroker;
use crate::refusal::Refusal;

impl Transport for MemoryTransport {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn declare(&self, queue: &QueueSpec) -> Result<(), TransportError> {
        self.declare_queue(queue)
    }

    fn publish(
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

    fn consume(&self, options: ConsumeOptions) -> Result<Box<dyn Consumer>, TransportError> {
        Ok(Box::new(self.subscribe(options)?))
    }

    fn ack(&self, token: AckToken) -> Result<(), TransportError> {
        self.settle(&token, Settle::Done, "ack")
    }

    fn reject(&self, token: AckToken, fate: Fate) -> Result<(), TransportError> {
        self.settle(&token, fate.into(), "reject")
    }

    fn cancel(&self, consumer: ConsumerId) -> Result<(), TransportError> {
        self.stop(consumer)
    }

    fn close(&self) -> Result<(), TransportError> {
        self.end(&Refusal::Closed);
        Ok(())
    }
}

/// One endpoint: the broker itself.
impl Connector for MemoryBroker {
    type Transport = MemoryTransport;

    fn endpoints(&self) -> usize {
        1
    }

    fn connect(&self, _endpoint: usize) -> Result<MemoryTransport, TransportError> {
        self.dial()
    }
}

impl Consumer for MemoryConsumer {
    fn id(&self) -> ConsumerId {
        self.consumer_id()
    }

    fn queue(&self) -> &ShortString {
        self.queue_name()
    }

    fn recv(&mut self) -> Result<Option<Delivery>, TransportError> {
        park::block_on(poll_fn(|context| self.poll_recv(context)))
    }
}
