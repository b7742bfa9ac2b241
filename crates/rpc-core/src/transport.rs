//! The async face of the transport contract. Its blocking twin is
//! [`blocking::Transport`](crate::blocking::Transport); both include the same words.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use crate::{
    AckToken, Address, Confirm, ConsumeOptions, ConsumerId, Delivery, Fate, Message, QueueSpec,
    ShortString, TransportError,
};

#[doc = include_str!("contract/transport.md")]
#[async_trait]
pub trait Transport: Debug + Send + Sync + 'static {
    /// The name of the kind of transport, for people to read.
    fn name(&self) -> &'static str;

    #[doc = include_str!("contract/declare.md")]
    async fn declare(&self, queue: &QueueSpec) -> Result<(), TransportError>;

    #[doc = include_str!("contract/publish.md")]
    async fn publish(
        &self,
        to: &Address,
        message: Message,
        deadline: Instant,
    ) -> Result<Confirm, TransportError>;

    #[doc = include_str!("contract/is_blocked.md")]
    fn is_blocked(&self) -> bool;

    #[doc = include_str!("contract/consume.md")]
    async fn consume(&self, options: ConsumeOptions) -> Result<Box<dyn Consumer>, TransportError>;

    #[doc = include_str!("contract/ack.md")]
    async fn ack(&self, token: AckToken) -> Result<(), TransportError>;

    #[doc = include_str!("contract/reject.md")]
    async fn reject(&self, token: AckToken, fate: Fate) -> Result<(), TransportError>;

    #[doc = include_str!("contract/cancel.md")]
    async fn cancel(&self, consumer: ConsumerId) -> Result<(), TransportError>;

    #[doc = include_str!("contract/close.md")]
    async fn close(&self) -> Result<(), TransportError>;
}

/// The receiving end of a [`Transport::consume`].
#[async_trait]
pub trait Consumer: Debug + Send {
    /// Its identity, for [`Transport::cancel`].
    fn id(&self) -> ConsumerId;

    /// The name of its queue: of an inbox, what goes into `reply_to`.
    fn queue(&self) -> &ShortString;

    #[doc = include_str!("contract/recv.md")]
    async fn recv(&mut self) -> Result<Option<Delivery>, TransportError>;
}

/// What `async_trait` makes of an `async fn`.
type Boxed<'a, O> = Pin<Box<dyn Future<Output = Result<O, TransportError>> + Send + 'a>>;

/// Forwards every method, so that a pointer to a transport is one: `Client<Arc<dyn Transport>>` is
/// the client whose backend is chosen at run time.
///
/// What every call does hands on the future that is there already: `async` would put it into another
/// box.
macro_rules! forward {
    ($pointer:ident) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<T: Transport + ?Sized> Transport for $pointer<T> {
            fn name(&self) -> &'static str {
                (**self).name()
            }

            async fn declare(&self, queue: &QueueSpec) -> Result<(), TransportError> {
                (**self).declare(queue).await
            }

            fn publish<'a, 'b, 'c>(
                &'a self,
                to: &'b Address,
                message: Message,
                deadline: Instant,
            ) -> Boxed<'c, Confirm>
            where
                'a: 'c,
                'b: 'c,
                Self: 'c,
            {
                (**self).publish(to, message, deadline)
            }

            fn is_blocked(&self) -> bool {
                (**self).is_blocked()
            }

            async fn consume(
                &self,
                options: ConsumeOptions,
            ) -> Result<Box<dyn Consumer>, TransportError> {
                (**self).consume(options).await
            }

            fn ack<'a, 'b>(&'a self, token: AckToken) -> Boxed<'b, ()>
            where
                'a: 'b,
                Self: 'b,
            {
                (**self).ack(token)
            }

            fn reject<'a, 'b>(&'a self, token: AckToken, fate: Fate) -> Boxed<'b, ()>
            where
                'a: 'b,
                Self: 'b,
            {
                (**self).reject(token, fate)
            }

            async fn cancel(&self, consumer: ConsumerId) -> Result<(), TransportError> {
                (**self).cancel(consumer).await
            }

            async fn close(&self) -> Result<(), TransportError> {
                (**self).close().await
            }
        }
    };
}

forward!(Arc);
forward!(Box);
