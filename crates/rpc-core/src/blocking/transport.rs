//! The blocking face of the transport contract: the async one without `async`, with the same words.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use crate::{
    AckToken, Address, Confirm, ConsumeOptions, ConsumerId, Delivery, Fate, Message, QueueSpec,
    ShortString, TransportError,
};

#[doc = include_str!("../contract/transport.md")]
pub trait Transport: Debug + Send + Sync + 'static {
    /// The name of the kind of transport, for people to read.
    fn name(&self) -> &'static str;

    #[doc = include_str!("../contract/declare.md")]
    fn declare(&self, queue: &QueueSpec) -> Result<(), TransportError>;

    #[doc = include_str!("../contract/publish.md")]
    fn publish(
        &self,
        to: &Address,
        message: Message,
        deadline: Instant,
    ) -> Result<Confirm, TransportError>;

    #[doc = include_str!("../contract/is_blocked.md")]
    fn is_blocked(&self) -> bool;

    #[doc = include_str!("../contract/consume.md")]
    fn consume(&self, options: ConsumeOptions) -> Result<Box<dyn Consumer>, TransportError>;

    #[doc = include_str!("../contract/ack.md")]
    fn ack(&self, token: AckToken) -> Result<(), TransportError>;

    #[doc = include_str!("../contract/reject.md")]
    fn reject(&self, token: AckToken, fate: Fate) -> Result<(), TransportError>;

    #[doc = include_str!("../contract/cancel.md")]
    fn cancel(&self, consumer: ConsumerId) -> Result<(), TransportError>;

    #[doc = include_str!("../contract/close.md")]
    fn close(&self) -> Result<(), TransportError>;
}

/// The receiving end of a [`Transport::consume`].
pub trait Consumer: Debug + Send {
    /// Its identity, for [`Transport::cancel`].
    fn id(&self) -> ConsumerId;

    /// The name of its queue: of an inbox, what goes into `reply_to`.
    fn queue(&self) -> &ShortString;

    #[doc = include_str!("../contract/recv.md")]
    fn recv(&mut self) -> Result<Option<Delivery>, TransportError>;
}

/// Forwards every method, so that a pointer to a transport is one: `Client<Arc<dyn Transport>>` is
/// the client whose backend is chosen at run time.
macro_rules! forward {
    ($pointer:ident) => {
        #[deny(clippy::missing_trait_methods)]
        impl<T: Transport + ?Sized> Transport for $pointer<T> {
            fn name(&self) -> &'static str {
                (**self).name()
            }

            fn declare(&self, queue: &QueueSpec) -> Result<(), TransportError> {
                (**self).declare(queue)
            }

            fn publish(
                &self,
                to: &Address,
                message: Message,
                deadline: Instant,
            ) -> Result<Confirm, TransportError> {
                (**self).publish(to, message, deadline)
            }

            fn is_blocked(&self) -> bool {
                (**self).is_blocked()
            }

            fn consume(
                &self,
                options: ConsumeOptions,
            ) -> Result<Box<dyn Consumer>, TransportError> {
                (**self).consume(options)
            }

            fn ack(&self, token: AckToken) -> Result<(), TransportError> {
                (**self).ack(token)
            }

            fn reject(&self, token: AckToken, fate: Fate) -> Result<(), TransportError> {
                (**self).reject(token, fate)
            }

            fn cancel(&self, consumer: ConsumerId) -> Result<(), TransportError> {
                (**self).cancel(consumer)
            }

            fn close(&self) -> Result<(), TransportError> {
                (**self).close()
            }
        }
    };
}

forward!(Arc);
forward!(Box);
