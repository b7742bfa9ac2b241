//! Connectors whose transports come behind the other face.

use std::sync::Arc;
use std::thread;

use async_trait::async_trait;
use futures_channel::oneshot;

use super::{BlockOn, Offload};
use crate::link::DIAL_LIMIT;
use crate::{Connector, ErrorKind, TransportError, blocking};

/// Makes transports of a blocking connector, behind the async face.
///
/// Each attempt to connect has a thread of its own. When it is given up the thread goes on, and what
/// it makes is dropped.
#[derive(Clone, Debug)]
pub struct OffloadConnector<C>(Arc<C>);

impl<C: blocking::Connector> OffloadConnector<C> {
    /// Puts what `inner` makes behind the async face.
    #[must_use]
    pub fn new(inner: C) -> Self {
        Self(Arc::new(inner))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<C: blocking::Connector> Connector for OffloadConnector<C> {
    type Transport = Offload<C::Transport>;

    fn endpoints(&self) -> usize {
        self.0.endpoints()
    }

    async fn connect(&self, endpoint: usize) -> Result<Self::Transport, TransportError> {
        let connector = Arc::clone(&self.0);
        let (reply, answer) = oneshot::channel();
        thread::Builder::new()
            .name("offload-connect".to_owned())
            .spawn(move || {
                let connected = connector.connect(endpoint).and_then(Offload::new);
                // Nobody may be waiting any more; then it is dropped, which ends it.
                let _ = reply.send(connected);
            })
            .map_err(|error| failed("the system has no thread to give").with_source(error))?;
        answer
            .await
            .unwrap_or_else(|_| Err(failed("the attempt panicked")))
    }
}

/// Makes transports of an async connector, behind the blocking face, each on a runtime of its own.
#[derive(Clone, Debug)]
pub struct BlockOnConnector<C>(C);

impl<C: Connector> BlockOnConnector<C> {
    /// Puts what `inner` makes behind the blocking face.
    #[must_use]
    pub const fn new(inner: C) -> Self {
        Self(inner)
    }
}

#[deny(clippy::missing_trait_methods)]
impl<C: Connector> blocking::Connector for BlockOnConnector<C> {
    type Transport = BlockOn<C::Transport>;

    fn endpoints(&self) -> usize {
        self.0.endpoints()
    }

    fn connect(&self, endpoint: usize) -> Result<Self::Transport, TransportError> {
        BlockOn::connect_within(DIAL_LIMIT, || self.0.connect(endpoint))
    }
}

fn failed(why: &'static str) -> TransportError {
    TransportError::new(ErrorKind::Connect, "rpc", "connect").with_detail(why)
}
