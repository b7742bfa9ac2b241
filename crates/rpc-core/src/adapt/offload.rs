//! A blocking transport behind the async face.

use std::fmt;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::VERB;
use super::hands::{Hands, Received};
use crate::{
    AckToken, Address, Confirm, ConsumeOptions, Consumer, ConsumerId, Delivery, Fate, Message,
    QueueSpec, ShortString, Transport, TransportError, blocking,
};

/// A blocking transport behind the async face.
///
/// It needs no runtime: its futures can be awaited on any executor, and none of them ever blocks.
/// The threads, all of them gone when [`close`](Transport::close) returns:
///
/// * one carries out the publishes in the order in which they were asked for, and one what settles
///   deliveries, so that a publish that waits for room holds up no acknowledgement;
/// * one for each verb that is rare and may take seconds (`declare`, `consume`, `cancel`), as long
///   as it takes, so that it holds up nothing;
/// * one for each consumer, which waits for deliveries: the thread that carried out its `consume`;
/// * one watches over all of them, and closes the inner transport in another.
///
/// So nothing here outlives its time, even where the inner transport never answers: a publish ends
/// at its deadline, `close` within two and a half seconds, any other verb within eleven. Who has not
/// answered by then is given up: every consumer yields [`ErrorKind::Closed`](crate::ErrorKind::Closed), every later verb fails
/// with it, and the threads that are held up are left behind.
///
/// Dropped without `close` it closes in the background, and the inner transport is dropped on a
/// thread of its own, too.
///
/// # Cancel safety
///
/// A publish whose future is dropped is not done if its turn had not come; nobody can tell. An `ack`
/// or `reject` is done all the same, and so are the rare verbs; a consumer that nobody receives is
/// cancelled.
pub struct Offload<T: blocking::Transport>(Hands<T>);

impl<T: blocking::Transport> Offload<T> {
    /// Puts `inner` behind the async face.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Other`](crate::ErrorKind::Other) when the system has no thread to give.
    pub fn new(inner: T) -> Result<Self, TransportError> {
        Self::with_limit(inner, VERB)
    }

    /// As [`new`](Self::new), with another limit for verbs other than `publish` and `close`. It must
    /// be longer than the inner transport takes by itself.
    ///
    /// # Errors
    ///
    /// Those of `new`.
    pub fn with_limit(inner: T, verb: Duration) -> Result<Self, TransportError> {
        Hands::start(inner, verb).map(Self)
    }

    /// The transport that does the work.
    #[must_use]
    pub fn inner(&self) -> &T {
        self.0.inner()
    }

    /// How many hold the inner transport: the adapter, and each thread that can use it.
    #[cfg(test)]
    pub(super) fn shares(&self) -> usize {
        self.0.shares()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: blocking::Transport> Transport for Offload<T> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<(), TransportError> {
        self.0.declare(queue).await
    }

    async fn publish(
        &self,
        to: &Address,
        message: Message,
        deadline: Instant,
    ) -> Result<Confirm, TransportError> {
        self.0.publish(to, message, deadline).await
    }

    fn is_blocked(&self) -> bool {
        self.inner().is_blocked()
    }

    async fn consume(&self, options: ConsumeOptions) -> Result<Box<dyn Consumer>, TransportError> {
        let received = self.0.consume(options).await?;
        Ok(Box::new(OffloadConsumer(received)))
    }

    async fn ack(&self, token: AckToken) -> Result<(), TransportError> {
        self.0.ack(token).await
    }

    async fn reject(&self, token: AckToken, fate: Fate) -> Result<(), TransportError> {
        self.0.reject(token, fate).await
    }

    async fn cancel(&self, consumer: ConsumerId) -> Result<(), TransportError> {
        self.0.cancel(consumer).await
    }

    async fn close(&self) -> Result<(), TransportError> {
        self.0.close().await;
        Ok(())
    }
}

impl<T: blocking::Transport> fmt::Debug for Offload<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Offload").field(&self.0).finish()
    }
}

/// The receiving end.
#[derive(Debug)]
struct OffloadConsumer<T: blocking::Transport>(Received<T>);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: blocking::Transport> Consumer for OffloadConsumer<T> {
    fn id(&self) -> ConsumerId {
        self.0.id()
    }

    fn queue(&self) -> &ShortString {
        self.0.queue()
    }

    async fn recv(&mut self) -> Result<Option<Delivery>, TransportError> {
        self.0.recv().await
    }
}
