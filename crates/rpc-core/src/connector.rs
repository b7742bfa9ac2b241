//! Where transports come from, on the async face. The blocking twin is
//! [`blocking::Connector`](crate::blocking::Connector); both include the same words.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{Transport, TransportError};

#[doc = include_str!("contract/connector.md")]
#[async_trait]
pub trait Connector: fmt::Debug + Send + Sync + 'static {
    /// What it makes.
    type Transport: Transport;

    /// How many addresses there are, at least one.
    fn endpoints(&self) -> usize;

    #[doc = include_str!("contract/connect.md")]
    async fn connect(&self, endpoint: usize) -> Result<Self::Transport, TransportError>;
}

#[async_trait]
impl<C: Connector + ?Sized> Connector for Arc<C> {
    type Transport = C::Transport;

    fn endpoints(&self) -> usize {
        (**self).endpoints()
    }

    async fn connect(&self, endpoint: usize) -> Result<Self::Transport, TransportError> {
        (**self).connect(endpoint).await
    }
}

/// A connector made of a function.
///
/// ```
/// use rpc_core::ConnectWith;
/// use transport_memory::MemoryBroker;
///
/// let broker = MemoryBroker::new();
/// let connector = ConnectWith::new(1, move |_endpoint: usize| {
///     let transport = broker.connect();
///     async move { Ok::<_, rpc_core::TransportError>(transport) }
/// });
/// # let _ = connector;
/// ```
#[derive(Clone)]
pub struct ConnectWith<F> {
    endpoints: usize,
    connect: F,
}

impl<F> ConnectWith<F> {
    /// A connector of so many endpoints that calls `connect` with the number of one.
    pub const fn new(endpoints: usize, connect: F) -> Self {
        Self { endpoints, connect }
    }
}

#[async_trait]
impl<F, Fut, T> Connector for ConnectWith<F>
where
    F: Fn(usize) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, TransportError>> + Send + 'static,
    T: Transport,
{
    type Transport = T;

    fn endpoints(&self) -> usize {
        self.endpoints
    }

    async fn connect(&self, endpoint: usize) -> Result<T, TransportError> {
        (self.connect)(endpoint).await
    }
}

impl<F> fmt::Debug for ConnectWith<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectWith")
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

/// A connector whose transports come as `Arc<dyn Transport>`, so that which one it is can be chosen at
/// run time.
#[derive(Clone, Debug)]
pub struct Erased<C>(C);

impl<C: Connector> Erased<C> {
    /// Hides the kind of transport that `connector` makes.
    pub const fn new(connector: C) -> Self {
        Self(connector)
    }
}

#[async_trait]
impl<C: Connector> Connector for Erased<C> {
    type Transport = Arc<dyn Transport>;

    fn endpoints(&self) -> usize {
        self.0.endpoints()
    }

    async fn connect(&self, endpoint: usize) -> Result<Arc<dyn Transport>, TransportError> {
        Ok(Arc::new(self.0.connect(endpoint).await?))
    }
}
