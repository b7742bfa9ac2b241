//! The calling side.

use std::time::Duration;

use anyhow::{Context, Result};
use rpc_core::proto::link::{Backoff, LinkState};
use rpc_core::{
    CallError, CallOptions, Client, ClientOptions, ClientStats, ShortString, TransportError,
    blocking,
};
use tokio::runtime::{Handle, Runtime};

use super::dial::{connector_async, connector_blocking};
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
    /// How it comes back after it has lost its connection.
    pub backoff: Backoff,
}

impl CallerOptions {
    /// Calls to this queue that may be repeated and that wait while nobody is there: what a caller does
    /// who wants an answer.
    #[must_use]
    pub fn patient(queue: ShortString, timeout: Duration) -> Self {
        Self {
            queue,
            timeout,
            idempotent: true,
            wait_for_ready: true,
            backoff: Backoff::default(),
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
        let session = Self::begin(setting, place, options)?;
        session.ready(OPEN_LIMIT)?;
        Ok(session)
    }

    /// Begins to call, with or without a connection.
    ///
    /// # Errors
    ///
    /// When the system has no threads left.
    pub fn begin(setting: &Setting, place: &Place, options: CallerOptions) -> Result<Self> {
        let mut how = ClientOptions::new(options.queue.clone())
            .with_timeout(options.timeout)
            .with_wait_for_ready(options.wait_for_ready)
            .with_backoff(options.backoff);
        how.limits.max_in_flight = how.limits.max_in_flight.max(setting.numbers.in_flight * 2);
        if options.idempotent {
            how = how.with_idempotent([METHOD]);
        }
        let kind = setting.transport;
        let client = match setting.face {
            Face::Async => {
                let runtime = runtime()?;
                // The client starts its tasks where it is made.
                let client = {
                    let _inside = runtime.enter();
                    Client::connect(connector_async(kind, place), how)
                };
                AnyClient::Async {
                    client,
                    runtime: Some(runtime),
                }
            }
            Face::Blocking => {
                let connector = connector_blocking(kind, place);
                AnyClient::Blocking(blocking::Client::connect(connector, how))
            }
        };
        Ok(Self { options, client })
    }

    /// Waits until there is a connection.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn ready(&self, limit: Duration) -> Result<(), TransportError> {
        match &self.client {
            AnyClient::Async { client, .. } => self.wait(client.ready(limit)),
            AnyClient::Blocking(client) => client.ready(limit),
        }
    }

    /// Whether there is a connection, and why not.
    #[must_use]
    pub fn link_state(&self) -> LinkState {
        match &self.client {
            AnyClient::Async { client, .. } => client.link_state(),
            AnyClient::Blocking(client) => client.link_state(),
        }
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
        let how = CallOptions::timeout(timeout);
        match &self.client {
            AnyClient::Async { client, .. } => self.wait(client.call_with(how, METHOD, ask)),
            AnyClient::Blocking(client) => client.call_with(how, METHOD, ask),
        }
    }

    /// How to make many calls at once, in the way of the face.
    pub(crate) fn caller(&self) -> Caller {
        match &self.client {
            AnyClient::Async { client, .. } => Caller::Tasks {
                client: client.clone(),
                runtime: self.runtime().clone(),
            },
            AnyClient::Blocking(client) => Caller::Threads(client.clone()),
        }
    }

    /// What became of all calls so far, and of the attempts at them.
    #[must_use]
    pub fn stats(&self) -> ClientStats {
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
            AnyClient::Async { client, .. } => self.wait(client.close()),
            AnyClient::Blocking(client) => client.close(),
        }
    }

    fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime().block_on(future)
    }

    fn runtime(&self) -> &Handle {
        match &self.client {
            AnyClient::Async {
                runtime: Some(runtime),
                ..
            } => runtime.handle(),
            _ => unreachable!("the async face has a runtime until it is dropped"),
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
    Tasks { client: Client, runtime: Handle },
    Threads(blocking::Client),
}

/// Two threads, as on the machines that the figures are for.
pub(crate) fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("a runtime")
}

/// A backoff for those who lose their connection again and again in quick succession, and would
/// otherwise spend their time waiting, as they should anywhere else.
#[must_use]
pub fn quick_backoff() -> Backoff {
    let mut backoff = Backoff::default();
    backoff.first = Duration::from_millis(5);
    backoff.longest = Duration::from_millis(20);
    backoff.healthy_after = Duration::ZERO;
    backoff
}

/// How long the first connection may take.
const OPEN_LIMIT: Duration = Duration::from_secs(30);
