//! The seam between the faces: where transports come from, and the server on them, each in one of two
//! forms, with the same verbs, which block.
//!
//! The program itself is plain sequential code in both faces. On the async face the tasks of the
//! server and of the calls run on a runtime, and this thread looks in on them.

use std::sync::Arc;
use std::time::Duration;

use rpc_core::{ClientOptions, DrainReport, LinkState, Router, ServerOptions, blocking};
#[cfg(feature = "async")]
use rpc_core::{Connector, Server, Transport};

#[cfg(feature = "async")]
use super::Failure;
use super::drive::Client;

/// Where transports come from, in one of the two faces.
#[derive(Clone, Debug)]
pub(crate) enum Link {
    #[cfg(feature = "async")]
    Async(Arc<dyn Connector<Transport = Arc<dyn Transport>>>, Runtime),
    Blocking(Arc<dyn blocking::Connector<Transport = Arc<dyn blocking::Transport>>>),
}

impl Link {
    #[cfg(feature = "async")]
    pub(crate) fn of_async(connector: impl Connector, runtime: Runtime) -> Self {
        Self::Async(Arc::new(rpc_core::Erased::new(connector)), runtime)
    }

    pub(crate) fn of_blocking(connector: impl blocking::Connector) -> Self {
        Self::Blocking(Arc::new(blocking::Erased::new(connector)))
    }

    /// Begins to serve, as soon as there is a connection.
    pub(crate) fn serve(&self, service: Router, options: ServerOptions) -> Worker {
        match self {
            #[cfg(feature = "async")]
            Self::Async(connector, runtime) => {
                let _entered = runtime.enter();
                let server = Server::connect(Arc::clone(connector), service, options);
                Worker::Async(server, *runtime)
            }
            Self::Blocking(connector) => Worker::Blocking(blocking::Server::connect(
                Arc::clone(connector),
                service,
                options,
            )),
        }
    }

    /// A client, which connects in the background.
    pub(crate) fn client(&self, options: ClientOptions) -> Client {
        match self {
            #[cfg(feature = "async")]
            Self::Async(connector, runtime) => {
                let _entered = runtime.enter();
                let client = rpc_core::Client::connect(Arc::clone(connector), options);
                Client::Async(client, *runtime)
            }
            Self::Blocking(connector) => {
                Client::Blocking(blocking::Client::connect(Arc::clone(connector), options))
            }
        }
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
    /// Whether it is connected.
    pub(crate) fn state(&self) -> LinkState {
        match self {
            #[cfg(feature = "async")]
            Self::Async(server, _) => server.link_state(),
            Self::Blocking(server) => server.link_state(),
        }
    }

    /// Takes no more requests, waits up to `limit` for those that have begun, and disconnects.
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

    /// Makes it the runtime of this thread, for what is started here.
    pub(crate) fn enter(self) -> tokio::runtime::EnterGuard<'static> {
        self.0.enter()
    }

    pub(crate) fn spawn(self, future: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(future);
    }
}
