//! A blocking transport under a clock of ours.

use std::fmt;
use std::time::{Duration, Instant};

use super::VERB;
use super::hands::{Hands, Received};
use crate::blocking::{Consumer, Transport};
use crate::{
    AckToken, Address, Confirm, ConsumeOptions, ConsumerId, Delivery, Fate, Message, QueueSpec,
    ShortString, TransportError, park,
};

/// A blocking transport that returns in time, also where the one inside it never does.
///
/// A thread that hangs in a client library cannot be called back. So every verb is carried out on
/// threads of the guard's own, and who called waits no longer than agreed: a
/// publish until its deadline, `close` two and a half seconds, any other verb eleven seconds. A
/// transport that does not answer is given up: every consumer yields
/// [`ErrorKind::Closed`](crate::ErrorKind::Closed), every later verb fails with it, and threads that
/// are held up are left behind, which end if they ever come back.
///
/// The transports of this project bound themselves and need no guard; it costs two thread hand-offs
/// a verb. It is for those of others. Waiting for a delivery has no limit, here as there.
pub struct Guarded<T: Transport>(Hands<T>);

impl<T: Transport> Guarded<T> {
    /// Watches over `inner`.
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
}

#[deny(clippy::missing_trait_methods)]
impl<T: Transport> Transport for Guarded<T> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn declare(&self, queue: &QueueSpec) -> Result<(), TransportError> {
        park::block_on(self.0.declare(queue))
    }

    fn publish(
        &self,
        to: &Address,
        message: Message,
        deadline: Instant,
    ) -> Result<Confirm, TransportError> {
        park::block_on(self.0.publish(to, message, deadline))
    }

    fn is_blocked(&self) -> bool {
        self.inner().is_blocked()
    }

    fn consume(&self, options: ConsumeOptions) -> Result<Box<dyn Consumer>, TransportError> {
        let consumer = park::block_on(self.0.consume(options))?;
        Ok(Box::new(GuardedConsumer(consumer)))
    }

    fn ack(&self, token: AckToken) -> Result<(), TransportError> {
        park::block_on(self.0.ack(token))
    }

    fn reject(&self, token: AckToken, fate: Fate) -> Result<(), TransportError> {
        park::block_on(self.0.reject(token, fate))
    }

    fn cancel(&self, consumer: ConsumerId) -> Result<(), TransportError> {
        park::block_on(self.0.cancel(consumer))
    }

    fn close(&self) -> Result<(), TransportError> {
        park::block_on(self.0.close());
        Ok(())
    }
}

impl<T: Transport> fmt::Debug for Guarded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guarded").field(self.inner()).finish()
    }
}

/// The receiving end.
#[derive(Debug)]
struct GuardedConsumer<T: Transport>(Received<T>);

#[deny(clippy::missing_trait_methods)]
impl<T: Transport> Consumer for GuardedConsumer<T> {
    fn id(&self) -> ConsumerId {
        self.0.id()
    }

    fn queue(&self) -> &ShortString {
        self.0.queue()
    }

    fn recv(&mut self) -> Result<Option<Delivery>, TransportError> {
        park::block_on(self.0.recv())
    }
}
