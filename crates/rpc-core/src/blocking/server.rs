//! The blocking face of the server: worker threads that take turns at one consumer, and a settler.
//!
//! ```text
//!  consumer ──▶ worker 1 … n: accept, run, publish the reply ──▶ settler: confirm, acknowledge
//! ```
//!
//! A worker does not wait for the confirm of its reply: it would stand still for a round trip with
//! each request. The settler waits instead, for all workers.

use std::fmt;
use std::pin::Pin;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rpc_proto::server::{Accepted, Acceptor, AfterReply, Job, Request, Settlement, Stats, Verdict};
use rpc_proto::{ConsumerId, ErrorKind, TransportError};

use super::{Consumer, Transport};
use crate::server::{AtWork, CatchUnwind, Panicked, catch_unwind};
use crate::{
    Answer, Confirm, ConsumeOptions, DrainReport, Fate, ServerOptions, Service, Work, park,
};

/// Serves a [`Service`] from a queue, over any blocking [`Transport`].
///
/// A request is acknowledged after its reply is confirmed, so a worker that dies loses none: the
/// broker delivers them again, at least once. The server does not close its transport.
///
/// Dropped, it takes no more requests, and its threads end by themselves after those they have.
pub struct Server<T: Transport, S: Service> {
    worker: Arc<Worker<T, S>>,
    consumer: ConsumerId,
    /// Disconnected when the last thread has ended; before that, the cause of the end may come.
    ended: mpsc::Receiver<TransportError>,
}

struct Worker<T, S> {
    transport: T,
    service: S,
    acceptor: Acceptor,
    /// Whoever holds the lock waits for the next request, for the others too.
    consumer: Mutex<Box<dyn Consumer>>,
    settle_timeout: Duration,
    runtime: Runtime,
    /// Requests taken and not yet settled.
    at_work: AtWork,
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
        Self::start_in(transport, service, options, Runtime(Some(runtime)))
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
        let worker = Arc::new(Worker {
            transport,
            service,
            acceptor: Acceptor::new(policy),
            consumer: Mutex::new(consumer),
            settle_timeout,
            runtime,
            at_work: AtWork::default(),
        });
        // Bounded by the prefetch already: what is in here is not settled.
        let (replies, settler) = mpsc::sync_channel(prefetch.get().into());
        let (alive, ended) = mpsc::channel();
        let server = Self {
            worker,
            consumer: id,
            ended,
        };
        server.spawn("rpc-settler", alive.clone(), move |worker, _| {
            worker.settle_all(&settler)
        })?;
        for _ in 0..concurrency.get() {
            let replies = replies.clone();
            server.spawn("rpc-worker", alive.clone(), move |worker, alive| {
                if let Err(cause) = worker.serve(&replies) {
                    // Nobody may be waiting for the cause.
                    let _ = alive.send(cause);
                }
            })?;
        }
        Ok(server)
    }

    /// What became of all deliveries so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.worker.acceptor.stats()
    }

    /// Waits until no more requests come: the transport has ended, or the queue is gone. At most
    /// `limit`; then it returns `None`.
    pub fn ended(&self, limit: Duration) -> Option<Result<(), TransportError>> {
        match self.ended.recv_timeout(limit) {
            Ok(cause) => Some(Err(cause)),
            Err(RecvTimeoutError::Disconnected) => Some(Ok(())),
            Err(RecvTimeoutError::Timeout) => None,
        }
    }

    /// Stops: takes no more requests, and waits up to `limit` for those that have begun, their
    /// replies and their acknowledgements. What had not begun was never taken.
    pub fn drain(self, limit: Duration) -> DrainReport {
        let deadline = Instant::now() + limit.min(LONGEST_DRAIN);
        // An error means that the transport has ended, and the consumer with it.
        let _ = self.worker.transport.cancel(self.consumer);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.ended.recv_timeout(left) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    return DrainReport::new(self.stats(), 0);
                }
            }
        }
        DrainReport::new(self.stats(), self.worker.at_work.count())
    }

    fn spawn(
        &self,
        name: &str,
        alive: mpsc::Sender<TransportError>,
        run: impl FnOnce(&Worker<T, S>, &mpsc::Sender<TransportError>) + Send + 'static,
    ) -> Result<(), TransportError> {
        let worker = Arc::clone(&self.worker);
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
        // Wakes the worker that waits for a request. After a drain this does nothing.
        let _ = self.worker.transport.cancel(self.consumer);
    }
}

impl<T: Transport, S: Service> fmt::Debug for Server<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("transport", &self.worker.transport)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// A reply that was handed over, and what comes after.
type Sent = (Result<Confirm, TransportError>, AfterReply);

impl<T: Transport, S: Service> Worker<T, S> {
    /// Takes requests until there are no more.
    fn serve(&self, replies: &SyncSender<Sent>) -> Result<(), TransportError> {
        loop {
            let delivery = {
                let mut consumer = self.consumer.lock().unwrap_or_else(PoisonError::into_inner);
                match consumer.recv()? {
                    Some(delivery) => delivery,
                    None => return Ok(()),
                }
            };
            self.at_work.begin();
            match self.acceptor.accept(delivery) {
                Accepted::Job(job) => self.finish(self.execute(job), replies),
                Accepted::Settlement(settlement) => self.finish(settlement, replies),
            }
        }
    }

    fn execute(&self, job: Job) -> Settlement {
        let (request, running) = match job.begin(Instant::now()) {
            Ok(begun) => begun,
            Err(settlement) => return settlement,
        };
        match self.answer(request) {
            Ok(answer) => running.finish(Instant::now(), answer),
            Err(Panicked) => running.panicked(Instant::now()),
        }
    }

    fn answer(&self, request: Request) -> Result<Answer, Panicked> {
        match catch_unwind(|| self.service.call(request))? {
            Work::Ready(answer) => Ok(answer),
            Work::Blocking(work) => catch_unwind(work),
            Work::Async(work) => {
                let _entered = self.runtime.enter();
                park::block_on(Pin::new(&mut CatchUnwind(work)))
            }
        }
    }

    /// Sends the reply on its way, or settles at once where there is none.
    fn finish(&self, settlement: Settlement, replies: &SyncSender<Sent>) {
        match settlement {
            Settlement::Reply { to, message, then } => {
                let deadline = Instant::now() + self.settle_timeout;
                let sent = self.transport.publish(&to, message, deadline);
                // The settler ends after the last worker.
                let _ = replies.send((sent, then));
            }
            Settlement::Settle(verdict) => self.settle(verdict),
        }
    }

    /// Waits for the confirm of each reply in turn. A broker confirms about in order, so the first
    /// is rarely the last.
    fn settle_all(&self, sent: &mpsc::Receiver<Sent>) {
        for (sent, then) in sent {
            let confirmed =
                sent.and_then(|confirm| confirm.wait(Instant::now() + self.settle_timeout));
            if let Err(error) = &confirmed {
                tracing::debug!(%error, "a reply could not be delivered");
            }
            self.settle(then.handle_publish(confirmed.as_ref().map(|&()| ())));
        }
    }

    fn settle(&self, verdict: Verdict) {
        let settled = match verdict {
            Verdict::Ack(token) => self.transport.ack(token),
            Verdict::Requeue(token) => self.transport.reject(token, Fate::Requeue),
            Verdict::Settled => Ok(()),
        };
        if let Err(error) = settled {
            // Unsettled, the request comes again when this transport has ended.
            tracing::debug!(%error, "a request could not be settled");
        }
        self.at_work.end();
    }
}

/// The runtime that async handlers find themselves in, if any.
#[derive(Debug, Default)]
struct Runtime(#[cfg(feature = "tokio")] Option<tokio::runtime::Handle>);

impl Runtime {
    #[cfg(feature = "tokio")]
    fn enter(&self) -> Option<tokio::runtime::EnterGuard<'_>> {
        self.0.as_ref().map(tokio::runtime::Handle::enter)
    }

    #[cfg(not(feature = "tokio"))]
    fn enter(&self) -> Option<std::convert::Infallible> {
        None
    }
}

/// Keeps the sum of now and a limit from overflowing.
const LONGEST_DRAIN: Duration = Duration::from_secs(24 * 60 * 60);
