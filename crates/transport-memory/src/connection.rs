//! One connection to the broker, and its verbs as both faces call them.

use std::io;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Instant;

use rpc_core::{
    AckToken, Address, Confirm, ConsumeOptions, ConsumerId, ErrorKind, Inbox, Message, QueueSpec,
    ShortString, Source, TransportError,
};
use uuid::Uuid;

use crate::broker::{ConnectionId, DIRECT_PREFIX, Settle};
use crate::consumer::MemoryConsumer;
use crate::handle::MemoryBroker;
use crate::held::Publish;
use crate::queue::Ownership;
use crate::refusal::Refusal;

/// One connection to a [`MemoryBroker`], in both faces.
///
/// Dropped, it is closed.
#[derive(Debug)]
pub struct MemoryTransport {
    broker: MemoryBroker,
    id: ConnectionId,
}

impl MemoryTransport {
    /// A connection to a broker of its own.
    #[must_use]
    pub fn new() -> Self {
        MemoryBroker::new().connect()
    }

    /// The broker at the other end.
    #[must_use]
    pub const fn broker(&self) -> &MemoryBroker {
        &self.broker
    }

    /// Ends this transport as the loss of its connection would: every consumer yields
    /// [`Closed`](rpc_core::ErrorKind::Closed), and what is not settled goes back into its queue.
    /// What waits in an inbox is lost. Of no effect when the transport has ended.
    pub fn sever(&self) {
        self.end(&Refusal::Severed);
    }

    pub(crate) const fn on(broker: MemoryBroker, id: ConnectionId) -> Self {
        Self { broker, id }
    }

    pub(crate) fn declare_queue(&self, spec: &QueueSpec) -> Result<(), TransportError> {
        let declared = self.broker.lock().declare(self.id, spec);
        declared.map_err(|refusal| refusal.into_error("declare"))
    }

    pub(crate) fn send(
        &self,
        to: &Address,
        message: Message,
        deadline: Instant,
    ) -> Result<Confirm, TransportError> {
        let now = Instant::now();
        let message = Arc::new(message);
        let published = self.broker.with(|broker, effects| {
            if !broker.is_blocked(self.id) {
                return Ok(match broker.publish(self.id, to, message, now, effects) {
                    Err(refusal) if refusal.is_end() => Err(refusal.into_error("publish")),
                    verdict => Ok(Confirm::known(
                        verdict.map_err(|refusal| refusal.into_error("publish")),
                    )),
                });
            }
            self.broker.watch_held(broker)?;
            let (verdict, confirm) = Confirm::open();
            broker.hold(Publish {
                on: self.id,
                to: to.clone(),
                message,
                deadline,
                verdict,
            });
            Ok(Ok(confirm))
        });
        published.unwrap_or_else(|no_thread: io::Error| {
            Err(TransportError::new(ErrorKind::Other, "memory", "publish")
                .with_detail("the system has no thread to give")
                .with_source(no_thread)
                .unsent())
        })
    }

    pub(crate) fn is_held_up(&self) -> bool {
        self.broker.lock().is_blocked(self.id)
    }

    pub(crate) fn subscribe(
        &self,
        options: ConsumeOptions,
    ) -> Result<MemoryConsumer, TransportError> {
        let begun = match options.source {
            Source::Inbox(Inbox::Direct) => self.open_inbox(DIRECT_PREFIX, Ownership::Direct),
            Source::Inbox(Inbox::Exclusive) => self.open_inbox("amq.gen-", Ownership::Private),
            Source::Queue(name) => self.join(name, options.prefetch),
            _ => Err(Refusal::UnknownSource),
        };
        begun.map_err(|refusal| refusal.into_error("consume"))
    }

    fn join(&self, name: ShortString, prefetch: NonZeroU16) -> Result<MemoryConsumer, Refusal> {
        let id = ConsumerId::unique();
        let now = Instant::now();
        self.broker.with(|broker, effects| {
            broker.consume(self.id, id, &name, prefetch.get().into(), now, effects)
        })?;
        Ok(MemoryConsumer::new(self.broker.clone(), id, name))
    }

    fn open_inbox(&self, prefix: &str, ownership: Ownership) -> Result<MemoryConsumer, Refusal> {
        // Whoever knows the name can reply, so nobody must be able to guess it.
        let name = format!("{prefix}{}", Uuid::new_v4().simple());
        let name = ShortString::new(name).expect("a short prefix and 32 digits fit 255 bytes");
        let id = ConsumerId::unique();
        let mut broker = self.broker.lock();
        broker.open_inbox(self.id, id, name.clone(), ownership)?;
        Ok(MemoryConsumer::new(self.broker.clone(), id, name))
    }

    pub(crate) fn settle(
        &self,
        token: &AckToken,
        how: Settle,
        operation: &'static str,
    ) -> Result<(), TransportError> {
        let now = Instant::now();
        self.broker
            .with(|broker, effects| broker.settle(self.id, token, how, now, effects))
            .map_err(|refusal| refusal.into_error(operation))
    }

    pub(crate) fn stop(&self, consumer: ConsumerId) -> Result<(), TransportError> {
        let now = Instant::now();
        self.broker
            .with(|broker, effects| broker.cancel(self.id, consumer, now, effects))
            .map_err(|refusal| refusal.into_error("cancel"))
    }

    pub(crate) fn end(&self, cause: &Refusal) {
        let now = Instant::now();
        self.broker
            .with(|broker, effects| broker.end(self.id, cause, now, effects));
    }
}

impl Default for MemoryTransport {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        let now = Instant::now();
        self.broker
            .with(|broker, effects| broker.forget(self.id, now, effects));
    }
}
