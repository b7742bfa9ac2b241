//! What `call`, `load` and `demo` call: a client, and the service too where nobody else could be
//! serving it.

use std::num::NonZeroU16;
use std::time::Duration;

use fib_service::{ServiceOptions, service};
use rpc_core::codec::{Bincode, Json, Text};
use rpc_core::{ClientOptions, DeliveryMode, ServerOptions};

use super::Failure;
use super::args::{CallArgs, CodecName, ConnectArgs, QueueType, ServiceArgs};
use super::backend::Backend;
use super::drive::Client;
use super::link::{Link, Worker};

/// A client on its connection, and the service behind it if that is here.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Client,
    link: Link,
    local: Option<(Worker, Link)>,
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
        let local = if backend.is_local() {
            let link = backend.connect()?;
            let worker = serve(&link, connect, service, watch)?;
            Some((worker, link))
        } else if service.is_empty() {
            None
        } else {
            return Err(Failure::usage(
                "the service does not run in this process: give its options to `serve`",
            ));
        };
        let link = backend.connect()?;
        let client = link
            .client(client_options(connect, calls, open))
            .map_err(Failure::Connect)?;
        Ok(Self {
            client,
            link,
            local,
        })
    }

    /// Says goodbye.
    pub(crate) fn close(self) {
        self.client.close();
        self.link.close();
        if let Some((worker, link)) = self.local {
            // Whoever called has its answers; what is still at work was given up.
            worker.drain(Duration::ZERO);
            link.close();
        }
    }
}

/// Serves as the command line says; `watch` may add an observer.
pub(crate) fn serve(
    link: &Link,
    connect: &ConnectArgs,
    args: &ServiceArgs,
    watch: impl FnOnce(ServiceOptions) -> ServiceOptions,
) -> Result<Worker, Failure> {
    let algorithm = args.algorithm.map(|name| name.algorithm());
    let delay = Duration::from_millis(args.delay_ms.unwrap_or(0));
    let options = watch(
        ServiceOptions::default()
            .with_algorithm(algorithm.unwrap_or_default())
            .with_delay(delay),
    );
    let server_options = server_options(connect, args, options.is_slow());
    link.serve(service(options), server_options)
        .map_err(Failure::Serve)
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
        .with_delivery_mode(delivery_mode);
    match calls.codec {
        CodecName::Text => options.with_codec(Text),
        CodecName::Json => options.with_codec(Json),
        CodecName::Bincode => options.with_codec(Bincode::default()),
    }
}
