//! What `call`, `load` and `demo` call: a client, and the service too where nobody else could be
//! serving it.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fib_service::{METHOD, ServiceOptions, service};
use rpc_core::codec::{Bincode, Json, Text};
use rpc_core::proto::server::{Guarantee, MemoryDedup};
use rpc_core::{ClientOptions, DeliveryMode, LinkState, Router, ServerOptions};

use super::Failure;
use super::args::{CallArgs, CodecName, ConnectArgs, QueueType, Serve, ServiceArgs, Switch};
use super::backend::Backend;
use super::drive::Client;
use super::link::{Link, Worker};

/// A client that is connected, and the service behind it if that is here.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Client,
    local: Option<Worker>,
}

impl Session {
    /// Connects; `open` is how many calls there may be at once.
    pub(crate) fn open(
        backend: &Backend,
        connect: &ConnectArgs,
        calls: &CallArgs,
        service: &ServiceArgs,
        watch: impl FnOnce(ServiceOptions) -> ServiceOptions,
        open: usize,
    ) -> Result<Self, Failure> {
        let link = backend.link();
        let local = if backend.is_local() {
            let (router, slow) = fibonacci(service, watch);
            let worker = link.serve(router, server_options(connect, service, slow));
            wait_until_up(|| worker.state(), 1, Switch::No, calls.timeout)?;
            Some(worker)
        } else if service.is_empty() {
            None
        } else {
            return Err(Failure::usage(
                "the service does not run in this process: give its options to `serve`",
            ));
        };
        let client = link.client(client_options(connect, calls, open));
        wait_until_up(
            || client.state(),
            backend.endpoints(),
            calls.wait_for_ready,
            calls.timeout,
        )?;
        Ok(Self { client, local })
    }

    /// Says goodbye.
    pub(crate) fn close(self) {
        self.client.close();
        if let Some(worker) = self.local {
            // Whoever called has its answers; what is still at work was given up.
            worker.drain(Duration::ZERO);
        }
    }
}

/// Serves as the command line says; `watch` may add an observer.
pub(crate) fn serve(
    link: &Link,
    args: &Serve,
    watch: impl FnOnce(ServiceOptions) -> ServiceOptions,
) -> Worker {
    let (service, slow) = fibonacci(&args.service, watch);
    let mut options = server_options(&args.connect, &args.service, slow);
    if args.guarantees.at_most_once {
        options.policy.guarantee = Guarantee::AtMostOnce;
    }
    if args.guarantees.dedup {
        options.policy.dedup = Some(Arc::new(MemoryDedup::default()));
    }
    link.serve(service, options)
}

/// The service, and whether it is slow.
fn fibonacci(
    args: &ServiceArgs,
    watch: impl FnOnce(ServiceOptions) -> ServiceOptions,
) -> (Router, bool) {
    let algorithm = args.algorithm.map(|name| name.algorithm());
    let delay = Duration::from_millis(args.delay_ms.unwrap_or(0));
    let options = watch(
        ServiceOptions::default()
            .with_algorithm(algorithm.unwrap_or_default())
            .with_delay(delay),
    );
    let slow = options.is_slow();
    (service(options), slow)
}

/// Waits for the first connection, at most for `limit`. Unless it is to `wait` for a broker that is
/// not there, it ends when each of the addresses has failed once.
fn wait_until_up(
    state: impl Fn() -> LinkState,
    addresses: u32,
    wait: Switch,
    limit: Duration,
) -> Result<(), Failure> {
    let deadline = Instant::now() + limit;
    loop {
        match state() {
            LinkState::Up(_) => return Ok(()),
            LinkState::Connecting {
                failed,
                cause: Some(cause),
                ..
            } if !wait.is_on() && failed >= addresses || Instant::now() >= deadline => {
                return Err(Failure::Connect(cause));
            }
            LinkState::Lost(cause) => return Err(Failure::Connect(cause)),
            _ => thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn server_options(connect: &ConnectArgs, args: &ServiceArgs, slow: bool) -> ServerOptions {
    let queue = connect.queue_type.spec(connect.queue.clone());
    let mut options = ServerOptions::new(queue);
    if let Some(concurrency) = args.concurrency {
        options = options.with_concurrency(concurrency);
    }
    // Slow requests that wait here could be worked on elsewhere. One more for each that runs is
    // enough for the next one to be at hand.
    let twice = u16::try_from(options.concurrency.get().saturating_mul(2)).unwrap_or(u16::MAX);
    let prefetch = args
        .prefetch
        .or_else(|| NonZeroU16::new(twice).filter(|_| slow));
    match prefetch {
        Some(prefetch) => options.with_prefetch(prefetch),
        None => options,
    }
}

fn client_options(connect: &ConnectArgs, calls: &CallArgs, open: usize) -> ClientOptions {
    let options = ClientOptions::new(connect.queue.clone());
    let mut limits = options.limits;
    limits.max_in_flight = limits.max_in_flight.max(open);
    let delivery_mode = match connect.queue_type {
        QueueType::Transient => DeliveryMode::Transient,
        QueueType::Durable | QueueType::Quorum | QueueType::Passive => DeliveryMode::Persistent,
    };
    let options = options
        .with_limits(limits)
        .with_timeout(calls.timeout)
        .with_inbox(calls.reply.inbox())
        .with_delivery_mode(delivery_mode)
        .with_wait_for_ready(calls.wait_for_ready.is_on());
    let options = if calls.retry.is_on() {
        options.with_idempotent([METHOD])
    } else {
        options
    };
    match calls.codec {
        CodecName::Text => options.with_codec(Text),
        CodecName::Json => options.with_codec(Json),
        CodecName::Bincode => options.with_codec(Bincode::default()),
    }
}
