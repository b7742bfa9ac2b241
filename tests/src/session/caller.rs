//! The calling side.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rpc_core::proto::client::Stats;
use rpc_core::{CallError, CallOptions, Client, ClientOptions, ShortString, Transport, blocking};
use tokio::runtime::Runtime;

use super::dial::{raw_async, raw_blocking};
use crate::ask::{Answer, Ask, METHOD};
use crate::ground::Place;
use crate::setting::{Face, Setting};

/// How a session calls.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CallerOptions {
    /// The queue of the service.
    pub queue: ShortString,
    /// How long a call may take.
    pub timeout: Duration,
    /// Whether a call that may have run is tried again.
    pub idempotent: bool,
    /// Whether a call waits for the broker, and for somebody who listens.
    pub wait_for_ready: bool,
}

impl CallerOptions {
    /// Calls to this queue that may be repeated and that wait while nobody is there: what a caller does
    /// who wants an answer.
    #[must_use]
    pub const fn patient(queue: ShortString, timeout: Duration) -> Self {
        Self {
            queue,
            timeout,
            idempotent: true,
            wait_for_ready: true,
        }
    }

    /// Calls that are never repeated where they may have run.
    #[must_use]
    pub const fn once(mut self) -> Self {
        self.idempotent = false;
        self
    }
}

/// A client, with the runtime of its face.
#[derive(Debug)]
pub struct Session {
    options: CallerOptions,
    client: AnyClient,
}

#[derive(Debug)]
enum AnyClient {
    Async {
        client: Client,
        /// Only empty while it is dropped.
        runtime: Option<Runtime>,
    },
    Blocking(blocking::Client),
}

impl Session {
    /// Begins to call; returns when the connection is there.
    ///
    /// # Errors
    ///
    /// When it does not come, or when the system has no threads left.
    pub fn open(setting: &Setting, place: &Place, options: CallerOptions) -> Result<Self> {
        let limits = {
            let mut limits = ClientOptions::new(options.queue.clone()).limits;
            limits.max_in_flight = limits.max_in_flight.max(setting.numbers.in_flight * 2);
            limits
        };
        let how = ClientOptions::new(options.queue.clone())
            .with_timeout(options.timeout)
            .with_limits(limits);
        let kind = setting.transport;
        let client = match setting.face {
            Face::Async => {
                let runtime = runtime()?;
                let client = runtime.block_on(async {
                    let transport = raw_async(kind, place, 0).await?;
                    Client::new(transport, how).await
                });
                AnyClient::Async {
                    client: client.context("the client")?,
                    runtime: Some(runtime),
                }
            }
            Face::Blocking => {
                let transport = raw_blocking(kind, place, 0).context("the transport")?;
                AnyClient::Blocking(blocking::Client::new(transport, how).context("the client")?)
            }
        };
        Ok(Self { options, client })
    }

    /// How it calls.
    #[must_use]
    pub const fn options(&self) -> &CallerOptions {
        &self.options
    }

    /// Makes one call, and waits for its end.
    ///
    /// # Errors
    ///
    /// Those of the call.
    pub fn call(&self, ask: &Ask, timeout: Duration) -> Result<Answer, CallError> {
        let how = call_options(&self.options, timeout);
        match &self.client {
            AnyClient::Async { client, runtime } => match runtime {
                Some(runtime) => runtime.block_on(client.call_with(how, METHOD, ask)),
                None => unreachable!("the runtime leaves with the session"),
            },
            AnyClient::Blocking(client) => client.call_with(how, METHOD, ask),
        }
    }

    /// How to make many calls at once, in the way of the face.
    pub(crate) fn caller(&self) -> Caller {
        match &self.client {
            AnyClient::Async { client, runtime } => match runtime {
                Some(runtime) => Caller::Tasks {
                    client: client.clone(),
                    runtime: runtime.handle().clone(),
                    options: self.options.clone(),
                },
                None => unreachable!("the runtime leaves with the session"),
            },
            AnyClient::Blocking(client) => Caller::Threads {
                client: client.clone(),
                options: self.options.clone(),
            },
        }
    }

    /// What became of all calls so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        match &self.client {
            AnyClient::Async { client, .. } => client.stats(),
            AnyClient::Blocking(client) => client.stats(),
        }
    }

    /// Calls that are open.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        match &self.client {
            AnyClient::Async { client, .. } => client.in_flight(),
            AnyClient::Blocking(client) => client.in_flight(),
        }
    }

    /// Closes the client, and returns when that has returned.
    pub fn close(&self) {
        match &self.client {
            AnyClient::Async { client, runtime } => {
                if let Some(runtime) = runtime {
                    runtime.block_on(async {
                        let transport = client.transport();
                        client.close().await;
                        if let Some(transport) = transport {
                            let _ = transport.close().await;
                        }
                    });
                }
            }
            AnyClient::Blocking(client) => {
                let transport = client.transport();
                client.close();
                if let Some(transport) = transport {
                    let _ = blocking::Transport::close(&transport);
                }
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let AnyClient::Async { runtime, .. } = &mut self.client
            && let Some(runtime) = runtime.take()
        {
            // A call that hangs must not hang the rig.
            runtime.shutdown_background();
        }
    }
}

/// One client for many calls at once.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    Tasks {
        client: Client,
        runtime: tokio::runtime::Handle,
        options: CallerOptions,
    },
    Threads {
        client: blocking::Client,
        options: CallerOptions,
    },
}

pub(crate) async fn call_async(
    client: &Client<Arc<dyn Transport>>,
    options: &CallerOptions,
    timeout: Duration,
    ask: &Ask,
) -> Result<Answer, CallError> {
    client
        .call_with(call_options(options, timeout), METHOD, ask)
        .await
}

pub(crate) fn call_blocking(
    client: &blocking::Client,
    options: &CallerOptions,
    timeout: Duration,
    ask: &Ask,
) -> Result<Answer, CallError> {
    client.call_with(call_options(options, timeout), METHOD, ask)
}

fn call_options(_options: &CallerOptions, timeout: Duration) -> CallOptions {
    CallOptions::timeout(timeout)
}

/// Two threads, as on the machines that the figures are for.
pub(crate) fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("a runtime")
}
