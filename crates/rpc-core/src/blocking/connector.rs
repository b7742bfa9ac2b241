//! Where transports come from, on the blocking face: the async twin without `async`.

use std::fmt;
use std::sync::Arc;

use super::Transport;
use crate::TransportError;

#[doc = include_str!("../contract/connector.md")]
pub trait Connector: fmt::Debug + Send + Sync + 'static {
    /// What it makes.
    type Transport: Transport;

    /// How many addresses there are, at least one.
    fn endpoints(&self) -> usize;

    #[doc = include_str!("../contract/connect.md")]
    fn connect(&self, endpoint: usize) -> Result<Self::Transport, TransportError>;
}

impl<C: Connector + ?Sized> Connector for Arc<C> {
    type Transport = C::Transport;

    fn endpoints(&self) -> usize {
        (**self).endpoints()
    }

    fn connect(&self, endpoint: usize) -> Result<Self::Transport, TransportError> {
        (**self).connect(endpoint)
    }
}

/// A connector made of a function.
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

impl<F, T> Connector for ConnectWith<F>
where
    F: Fn(usize) -> Result<T, TransportError> + Send + Sync + 'static,
    T: Transport,
{
    type Transport = T;

    fn endpoints(&self) -> usize {
        self.endpoints
    }

    fn connect(&self, endpoint: usize) -> Result<T, TransportError> {
        (self.connect)(endpoint)
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

impl<C: Connector> Connector for Erased<C> {
    type Transport = Arc<dyn Transport>;

    fn endpoints(&self) -> usize {
        self.0.endpoints()
    }

    fn connect(&self, endpoint: usize) -> Result<Arc<dyn Transport>, TransportError> {
        Ok(Arc::new(self.0.connect(endpoint)?))
    }
}
