//! The blocking face of the server, as its owner sees it: start, watch, drain.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rpc_proto::server::Stats;
use rpc_proto::{ConsumerId, ErrorKind, TransportError, deadline_after};

use super::progress::Progress;
use super::worker::{Runtime, Worker};
use super::{Transport, cancel};
use crate::{ConsumeOptions, DrainReport, ServerOptions, Service};

/// Serves a [`Service`] from a queue, over any blocking [`Transport`].
///
/// A request is acknowledged after its reply is confirmed, so a worker that dies loses none: the
/// broker delivers them again, at least once. The server does not close its transport.
///
/// Dropped, it takes no more requests, and its threads end by themselves after those they have.
pub struct Server<T: Transport, S: Service> {
    worker: Arc<Worker<T, S>>,
    consumer: ConsumerId,
    progress: Arc<Progress>,
}

impl<T: Transport, S: Service> Server<T, S> {
    /// Declares the queue and begins to serve it, on as many threads as handlers may run at once.
    ///
    /// # Errors
    ///
    /// Those of [`Transport::declare`] and [`Transport::consume`], and [`ErrorKind::Other`] when the
    /// system has no thread left.
    pub fn start(transport: T, service: S, options: ServerOptions) -> Result<Self, TransportError> {
        Self::start_in(transport, service, options, Runtime::default())
    }

    /// Like [`start`](Self::start), with a tokio runtime at hand for handlers that await its timers
    /// or sockets. They are still driven by the worker's thread.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    #[cfg(feature = "tokio")]
    pub fn start_with_runtime(
        transport: T,
        service: S,
        options: ServerOptions,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, TransportError> {
        Self::start_in(transport, service, options, Runtime::of(runtime))
    }

    fn start_in(
        transport: T,
        service: S,
        options: ServerOptions,
        runtime: Runtime,
    ) -> Result<Self, TransportError> {
        let ServerOptions {
            concurrency,
            prefetch,
            queue,
            policy,
            settle_timeout,
        } = options;
        transport.declare(&queue)?;
        let consumer = transport.consume(ConsumeOptions::queue(queue.name, prefetch))?;
        let id = consumer.id();
        // Neither line ever holds more: the broker sends no more than this unsettled.
        let (accept, accepted) = mpsc::sync_channel(prefetch.get().into());
        let (reply, replies) = mpsc::sync_channel(prefetch.get().into());
        let worker = Worker::new(
            transport,
            service,
            policy,
            accepted,
            settle_timeout,
            runtime,
        );
        let server = Self {
            worker: Arc::new(worker),
            consumer: id,
            progress: Arc::default(),
        };
        server.spawn("rpc-settler", move |worker, _| worker.settle_all(&replies))?;
        for _ in 0..NonZeroUsize::get(concurrency) {
            let reply = reply.clone();
            server.spawn("rpc-worker", move |worker, _| worker.serve(&reply))?;
        }
        server.spawn("rpc-receiver", move |worker, progress| {
            worker.receive(consumer, accept, &reply, progress);
        })?;
        Ok(server)
    }

    /// What became of all deliveries so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.worker.stats()
    }

    /// Waits until no more requests come: the transport has ended, or the queue is gone. At most
    /// `limit`; then it returns `None`.
    ///
    /// [`drain`](Self::drain) afterwards, to let the last requests finish.
    pub fn ended(&self, limit: Duration) -> Option<Result<(), TransportError>> {
        self.progress
            .wait_ended(deadline_after(Instant::now(), limit))
    }

    /// Stops: takes no more requests, and waits up to `limit` for those that have begun, their
    /// replies and their acknowledgements. What had not begun is handed back.
    pub fn drain(self, limit: Duration) -> DrainReport {
        let deadline = deadline_after(Instant::now(), limit);
        cancel(self.worker.transport(), self.consumer);
        self.progress.wait_all_gone(deadline);
        DrainReport::new(self.stats(), self.worker.at_work())
    }

    fn spawn(
        &self,
        name: &str,
        run: impl FnOnce(&Worker<T, S>, &Progress) + Send + 'static,
    ) -> Result<(), TransportError> {
        let (worker, alive) = (Arc::clone(&self.worker), Progress::enter(&self.progress));
        thread::Builder::new()
            .name(name.into())
            .spawn(move || run(&worker, &alive))
            .map(|_| ())
            .map_err(|error| {
                TransportError::new(ErrorKind::Other, "rpc", "start").with_source(error)
            })
    }
}

impl<T: Transport, S: Service> Drop for Server<T, S> {
    fn drop(&mut self) {
        // After a drain that was in time there is nobody left to tell.
        if !self.progress.is_all_gone() {
            cancel(self.worker.transport(), self.consumer);
        }
    }
}

impl<T: Transport, S: Service> fmt::Debug for Server<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("transport", self.worker.transport())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
