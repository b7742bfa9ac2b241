//! What a server runs: a service, which answers a request with work of one of three kinds.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

pub use rpc_proto::server::Answer;
use rpc_proto::server::Request;

/// Anything that answers requests. A [`Router`](crate::Router) is the usual one.
///
/// A service knows no transport and no face: it says what work a request means, and the server of
/// either face carries that out in the way that fits.
pub trait Service: Send + Sync + 'static {
    /// Begins to answer a request. A panic is answered for it.
    fn call(&self, request: Request) -> Work;
}

impl<S: Service + ?Sized> Service for Arc<S> {
    fn call(&self, request: Request) -> Work {
        (**self).call(request)
    }
}

/// How a request is answered.
#[non_exhaustive]
pub enum Work {
    /// By awaiting. The async server awaits it in a task; the blocking one drives it in the worker's
    /// thread.
    Async(Pin<Box<dyn Future<Output = Answer> + Send>>),
    /// By computing or waiting for a while. The async server gives it a thread; the blocking one
    /// runs it in the worker's.
    Blocking(Box<dyn FnOnce() -> Answer + Send>),
    /// At once: it was quick, and is done.
    Ready(Answer),
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Async(_) => f.write_str("Async"),
            Self::Blocking(_) => f.write_str("Blocking"),
            Self::Ready(answer) => f.debug_tuple("Ready").field(answer).finish(),
        }
    }
}
