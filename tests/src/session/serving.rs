//! The serving side.

use std::num::{NonZeroU16, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::ValueEnum;
use rpc_core::proto::link::Backoff;
use rpc_core::proto::server::Stats;
use rpc_core::{
    DrainReport, QueueSpec, Server, ServerOptions, ShortString, Transport, TransportError, blocking,
};
use tokio::runtime::Runtime;

use super::caller::{quick_backoff, runtime};
use super::desk::Desk;
use super::dial::{connector_async, connector_blocking};
use crate::ground::Place;
use crate::setting::{Face, Transport as Kind};

/// Which queue is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[expect(clippy::exhaustive_enums, reason = "the presets")]
pub enum QueueChoice {
    /// A classic one that outlives the broker.
    #[default]
    Durable,
    /// A replicated one, with a delivery limit and dead letters.
    Quorum,
    /// The same with a quarantine, where the limit is soon reached.
    Poisonable,
    /// A classic one that is soon full.
    Short,
}

impl QueueChoice {
    /// How often the quarantine of a poisonable queue gives to a worker what killed the last one. The
    /// queue itself has the limit of the preset, which is far higher: there, neighbours are counted
    /// too.
    pub const DELIVERY_LIMIT: u32 = 3;

    /// The name, as it is written on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Quorum => "quorum",
            Self::Poisonable => "poisonable",
            Self::Short => "short",
        }
    }

    /// How it is declared.
    #[must_use]
    pub const fn spec(self, queue: ShortString) -> QueueSpec {
        match self {
            Self::Durable => QueueSpec::durable(queue),
            Self::Quorum | Self::Poisonable => QueueSpec::quorum(queue),
            Self::Short => QueueSpec::durable(queue).with_max_length(100),
        }
    }
}

/// How a server of the rig serves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServingOptions {
    /// The queue.
    pub queue: ShortString,
    /// Its kind.
    pub choice: QueueChoice,
    /// Handlers at once.
    pub concurrency: usize,
    /// Requests taken at once.
    pub prefetch: u16,
    /// Whether it comes back at once after it has lost its connection.
    pub quick: bool,
}

impl ServingOptions {
    /// A server of this queue: 16 handlers, 32 requests.
    #[must_use]
    pub const fn new(queue: ShortString, choice: QueueChoice) -> Self {
        Self {
            queue,
            choice,
            concurrency: 16,
            prefetch: 32,
            quick: false,
        }
    }

    fn server(&self) -> Result<ServerOptions> {
        let concurrency = NonZeroUsize::new(self.concurrency).unwrap_or(NonZeroUsize::MIN);
        let prefetch = NonZeroU16::new(self.prefetch).unwrap_or(NonZeroU16::MIN);
        let options = ServerOptions::new(self.choice.spec(self.queue.clone()))
            .with_concurrency(concurrency)
            .with_prefetch(prefetch)
            .with_backoff(if self.quick {
                quick_backoff()
            } else {
                Backoff::default()
            });
        Ok(match self.choice {
            QueueChoice::Poisonable => options.with_quarantine(QueueChoice::DELIVERY_LIMIT)?,
            _ => options,
        })
    }
}

/// A server, with the runtime of its face.
#[derive(Debug)]
pub struct Serving(AnyServer);

#[derive(Debug)]
enum AnyServer {
    Async {
        server: Server<Arc<dyn Transport>, Desk>,
        runtime: Runtime,
    },
    Blocking(blocking::Server<Arc<dyn blocking::Transport>, Desk>),
}

impl Serving {
    /// Begins to serve; returns when the queue is there and consumed.
    ///
    /// # Errors
    ///
    /// When it does not come to that.
    pub fn start(
        kind: Kind,
        face: Face,
        place: &Place,
        desk: Desk,
        options: &ServingOptions,
    ) -> Result<Self> {
        let serving = Self::begin(kind, face, place, desk, options)?;
        match serving.ready(START_LIMIT) {
            Ok(()) => Ok(serving),
            Err(cause) => bail!("the server does not get ready: {cause}"),
        }
    }

    /// Begins to serve, with or without a connection.
    ///
    /// # Errors
    ///
    /// When the system has no threads left.
    pub fn begin(
        kind: Kind,
        face: Face,
        place: &Place,
        desk: Desk,
        options: &ServingOptions,
    ) -> Result<Self> {
        let how = options.server()?;
        Ok(Self(match face {
            Face::Async => {
                let runtime = runtime()?;
                // The server starts its tasks where it is made.
                let server = {
                    let _inside = runtime.enter();
                    Server::connect(connector_async(kind, place), desk, how)
                };
                AnyServer::Async { server, runtime }
            }
            Face::Blocking => {
                let connector = connector_blocking(kind, place);
                let server = blocking::Server::connect(connector, desk, how);
                AnyServer::Blocking(server)
            }
        }))
    }

    /// Waits until requests can come.
    ///
    /// # Errors
    ///
    /// Why they cannot.
    pub fn ready(&self, limit: Duration) -> Result<(), TransportError> {
        match &self.0 {
            AnyServer::Async { server, runtime } => runtime.block_on(server.ready(limit)),
            AnyServer::Blocking(server) => server.ready(limit),
        }
    }

    /// What became of all deliveries so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        match &self.0 {
            AnyServer::Async { server, .. } => server.stats(),
            AnyServer::Blocking(server) => server.stats(),
        }
    }

    /// Drains it; its connection is closed afterwards.
    #[must_use]
    pub fn drain(self, limit: Duration) -> DrainReport {
        match self.0 {
            AnyServer::Async { server, runtime } => {
                let report = runtime.block_on(server.drain(limit));
                runtime.shutdown_background();
                report
            }
            AnyServer::Blocking(server) => server.drain(limit),
        }
    }

    /// Drops everything, as far as a process that is killed can be had inside of one: the connection
    /// ends, and takes with it what is not settled.
    pub fn kill(self) {
        match self.0 {
            AnyServer::Async { server, runtime } => {
                drop(server);
                runtime.shutdown_background();
            }
            AnyServer::Blocking(server) => drop(server),
        }
    }
}

/// How long the first connection may take.
const START_LIMIT: Duration = Duration::from_secs(30);
