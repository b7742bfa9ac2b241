//! The seam between the faces, on the serving side: a connection and a server, each in one of two
//! forms, with the same verbs, which block.
//!
//! The program itself is plain sequential code in both faces. On the async face the tasks of the
//! server and of the calls run on a runtime, and this thread looks in on them.

use std::sync::Arc;
use std::time::Duration;

use rpc_core::{ClientOptions, DrainReport, Router, ServerOptions, TransportError, blocking};
#[cfg(feature = "async")]
use rpc_core::{Server, Transport};

#[cfg(feature = "async")]
use super::Failure;
use super::drive::Client;

/// One connection, in one of the two faces.
#[derive(Clone, Debug)]
pub(crate) enum Link {
    #[cfg(feature = "async")]
    Async(Arc<dyn Transport>, Runtime),
    Blocking(Arc<dyn blocking::Transport>),
}

impl Link {
    #[cfg(feature = "async")]
    pub(crate) fn of_async(transport: impl Transport, runtime: Runtime) -> Self {
        Self::Async(Arc::new(transport), runtime)
    }

    pub(crate) fn of_blocking(transport: impl blocking::Transport) -> Self {
        Self::Blocking(Arc::new(transport))
    }

    /// Begins to serve.
    pub(crate) fn serve(
        &self,
        service: Router,
        options: ServerOptions,
    ) -> Result<Worker, TransportError> {
        match self {
            #[cfg(feature = "async")]
            Self::Async(transport, runtime) => {
                let transport = Arc::clone(transport);
                let server = runtime.block_on(Server::start(transport, service, options))?;
                Ok(Worker::Async(server, *runtime))
            }
            Self::Blocking(transport) => {
                let transport = Arc::clone(transport);
                blocking::Server::start(transport, service, options).map(Worker::Blocking)
            }
        }
    }

    /// A client with its reply address open.
    pub(crate) fn client(&self, options: ClientOptions) -> Result<Client, TransportError> {
        match self {
            #[cfg(feature = "async")]
            Self::Async(transport, runtime) => {
                let transport = Arc::clone(transport);
                let client = runtime.block_on(rpc_core::Client::new(transport, options))?;
                Ok(Client::Async(client, *runtime))
            }
            Self::Blocking(transport) => {
                blocking::Client::new(Arc::clone(transport), options).map(Client::Blocking)
            }
        }
    }

    /// Ends the connection. There is nothing that could be done about an error.
    pub(crate) fn close(&self) {
        let _ = match self {
            #[cfg(feature = "async")]
            Self::Async(transport, runtime) => runtime.block_on(transport.close()),
            Self::Blocking(transport) => transport.close(),
        };
    }
}

/// A server, in one of the two faces.
#[derive(Debug)]
pub(crate) enum Worker {
    #[cfg(feature = "async")]
    Async(Server<Arc<dyn Transport>, Router>, Runtime),
    Blocking(blocking::Server<Arc<dyn blocking::Transport>, Router>),
}

impl Worker {
    /// Waits up to `limit` for the end of the requests, and says why they ended.
    pub(crate) fn ended(&mut self, limit: Duration) -> Option<Result<(), TransportError>> {
        match self {
            #[cfg(feature = "async")]
            Self::Async(server, runtime) => {
                runtime.block_on(async { tokio::time::timeout(limit, server.ended()).await.ok() })
            }
            Self::Blocking(server) => server.ended(limit),
        }
    }

    /// Takes no more requests, and waits up to `limit` for those that have begun.
    pub(crate) fn drain(self, limit: Duration) -> DrainReport {
        match self {
            #[cfg(feature = "async")]
            Self::Async(server, runtime) => runtime.block_on(server.drain(limit)),
            Self::Blocking(server) => server.drain(limit),
        }
    }
}

/// The async runtime of this process.
#[cfg(feature = "async")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Runtime(&'static tokio::runtime::Runtime);

#[cfg(feature = "async")]
impl Runtime {
    pub(crate) fn start() -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::System("cannot start a runtime", error))?;
        // Never dropped: the drop of a runtime waits for its blocking threads, and a handler that
        // takes for ever must not keep the program from its end.
        Ok(Self(Box::leak(Box::new(runtime))))
    }

    pub(crate) fn block_on<F: Future>(self, future: F) -> F::Output {
        self.0.block_on(future)
    }

    pub(crate) fn spawn(self, future: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(future);
    }
}
