//! What `call`, `load` and `demo` call: a client, and the service too where nobody else could be
//! serving it.

use std::num::NonZeroU16;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use fib_service::{METHOD, ServiceOptions, service};
use rpc_core::codec::{Bincode, Json, Text};
use rpc_core::proto::server::{Guarantee, MemoryDedup};
use rpc_core::{
    ClientOptions, DeliveryMode, ErrorKind, LinkState, Router, ServerOptions, TransportError,
};

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
    by: Option<Instant>,
}

impl Session {
    /// Connects; `open` is how many calls there may be at once, and `by` when all is to be over, if
    /// the command has an end.
    pub(crate) fn open(
        backend: &Backend,
        connect: &ConnectArgs,
        calls: &CallArgs,
        service: &ServiceArgs,
        watch: impl FnOnce(ServiceOptions) -> ServiceOptions,
        open: usize,
        by: Option<Instant>,
    ) -> Result<Self, Failure> {
        let link = backend.link();
        let local = if backend.is_local() {
            let (router, slow) = fibonacci(service, watch);
            let worker = link.serve(router, server_options(connect, service, slow));
            wait_until_up(|| worker.state(), 1, Switch::No, None)?;
            Some(worker)
        } else if service.is_empty() {
            None
        } else {
            return Err(Failure::usage(
                "the service does not run in this process: give its options to `serve`",
            ));
        };
        let client = link.client(client_options(connect, calls, open));
        let wait = calls.wait_for_ready;
        // Without an end of its own an attempt ends by the clocks of its transport.
        let until = by.or_else(|| wait.is_on().then(|| Instant::now() + calls.timeout));
        wait_until_up(|| client.state(), backend.endpoints(), wait, until)?;
        Ok(Self { client, local, by })
    }

    /// Says goodbye.
    pub(crate) fn close(self) {
        let Self { client, local, by } = self;
        let goodbye = move || {
            client.close();
            if let Some(worker) = local {
                // Whoever called has its answers; what is still at work was given up.
                worker.drain(Duration::ZERO);
            }
        };
        let Some(by) = by else { return goodbye() };
        // A broker that is stopped, or takes nothing from publishers, does not say it back. Whoever
        // waits for this process has been told all there is; its end does the rest.
        let (done, when_done) = mpsc::channel::<()>();
        let spawned = thread::Builder::new()
            .name("goodbye".into())
            .spawn(move || {
                goodbye();
                drop(done);
            });
        if spawned.is_ok() {
            let left = by.saturating_duration_since(Instant::now());
            let _ = when_done.recv_timeout(left.max(GRACE));
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

/// How far beyond its end a command goes: for the reason of an attempt to connect that ends with it,
/// and for a goodbye.
const GRACE: Duration = Duration::from_millis(300);

/// Waits for the first connection. Unless it is to `wait` for a broker that is not there, it ends when
/// each of the addresses has failed once; and in any case soon after `until`.
fn wait_until_up(
    state: impl Fn() -> LinkState,
    addresses: u32,
    wait: Switch,
    until: Option<Instant>,
) -> Result<(), Failure> {
    loop {
        let late = until.is_some_and(|until| Instant::now() >= until + GRACE);
        match state() {
            LinkState::Up(_) => return Ok(()),
            LinkState::Connecting {
                failed,
                cause: Some(cause),
                ..
            } if late || !wait.is_on() && failed >= addresses => {
                return Err(Failure::Connect(cause));
            }
            LinkState::Lost(cause) => return Err(Failure::Connect(cause)),
            // Its transport is there, and what a client needs on it is not.
            _ if late => {
                return Err(Failure::Connect(
                    TransportError::new(ErrorKind::Connect, "rpc", "connect")
                        .with_detail("the broker has not finished it in time"),
                ));
            }
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
