//! The serving side.

use std::num::{NonZeroU16, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use rpc_core::proto::server::Stats;
use rpc_core::{DrainReport, QueueSpec, Server, ServerOptions, ShortString, Transport, blocking};
use tokio::runtime::Runtime;

use super::caller::runtime;
use super::desk::Desk;
use super::dial::{raw_async, raw_blocking};
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
    /// The same with a limit that is soon reached.
    Poisonable,
}

impl QueueChoice {
    /// How often a poisonable queue delivers again what killed its worker.
    pub const DELIVERY_LIMIT: u32 = 3;

    /// The name, as it is written on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Quorum => "quorum",
            Self::Poisonable => "poisonable",
        }
    }

    /// How it is declared.
    #[must_use]
    pub const fn spec(self, queue: ShortString) -> QueueSpec {
        match self {
            Self::Durable => QueueSpec::durable(queue),
            Self::Quorum => QueueSpec::quorum(queue),
            Self::Poisonable => QueueSpec::quorum(queue).with_delivery_limit(Self::DELIVERY_LIMIT),
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
        }
    }

    fn server(&self) -> ServerOptions {
        let concurrency = NonZeroUsize::new(self.concurrency).unwrap_or(NonZeroUsize::MIN);
        let prefetch = NonZeroU16::new(self.prefetch).unwrap_or(NonZeroU16::MIN);
        ServerOptions::new(self.choice.spec(self.queue.clone()))
            .with_concurrency(concurrency)
            .with_prefetch(prefetch)
    }
}

/// A server, with the runtime of its face.
#[derive(Debug)]
pub struct Serving(AnyServer);

#[derive(Debug)]
enum AnyServer {
    Async {
        server: Server<Arc<dyn Transport>, Desk>,
        transport: Arc<dyn Transport>,
        runtime: Runtime,
    },
    Blocking {
        server: blocking::Server<Arc<dyn blocking::Transport>, Desk>,
        transport: Arc<dyn blocking::Transport>,
    },
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
        let how = options.server();
        Ok(Self(match face {
            Face::Async => {
                let runtime = runtime()?;
                let started = runtime.block_on(async {
                    let transport = raw_async(kind, place, 0).await?;
                    let server = Server::start(Arc::clone(&transport), desk, how).await?;
                    Ok::<_, rpc_core::TransportError>((server, transport))
                });
                let (server, transport) = started.context("the server")?;
                AnyServer::Async {
                    server,
                    transport,
                    runtime,
                }
            }
            Face::Blocking => {
                let transport = raw_blocking(kind, place, 0).context("the transport")?;
                let server = blocking::Server::start(Arc::clone(&transport), desk, how);
                AnyServer::Blocking {
                    server: server.context("the server")?,
                    transport,
                }
            }
        }))
    }

    /// What became of all deliveries so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        match &self.0 {
            AnyServer::Async { server, .. } => server.stats(),
            AnyServer::Blocking { server, .. } => server.stats(),
        }
    }

    /// Drains it, and closes its connection.
    #[must_use]
    pub fn drain(self, limit: Duration) -> DrainReport {
        match self.0 {
            AnyServer::Async {
                server,
                transport,
                runtime,
            } => {
                let report = runtime.block_on(async {
                    let report = server.drain(limit).await;
                    let _ = transport.close().await;
                    report
                });
                runtime.shutdown_background();
                report
            }
            AnyServer::Blocking { server, transport } => {
                let report = server.drain(limit);
                let _ = transport.close();
                report
            }
        }
    }

    /// Drops everything as a process that is killed would, as far as that can be done inside one: the
    /// connection ends and takes with it what is not settled.
    pub fn kill(self) {
        match self.0 {
            AnyServer::Async {
                server,
                transport,
                runtime,
            } => {
                let _ = runtime.block_on(transport.close());
                drop(server);
                runtime.shutdown_background();
            }
            AnyServer::Blocking { server, transport } => {
                let _ = transport.close();
                drop(server);
            }
        }
    }
}
