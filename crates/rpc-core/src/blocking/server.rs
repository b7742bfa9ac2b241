//! The blocking face of the server: a thread that receives, workers, and a settler.
//!
//! ```text
//!  receiver: accept ──▶ worker 1 … n: run, publish the reply ──▶ settler: confirm, acknowledge
//! ```
//!
//! The receiver reads ahead while all workers are busy, so that it is known how long a request has
//! waited: what the client library buffers, it buffers without a time. A worker does not wait for
//! the confirm of its reply: it would stand still for a round trip with each request. The settler
//! waits instead, for all workers. Both lines are bounded by the prefetch.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
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
    ended: Mutex<mpsc::Receiver<TransportError>>,
}

struct Worker<T, S> {
    transport: T,
    service: S,
    acceptor: Acceptor,
    /// What waits for a worker. Whoever holds the lock waits for the others too.
    accepted: Mutex<mpsc::Receiver<Accepted>>,
    /// Set when nothing further may begin.
    draining: AtomicBool,
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
        // Neither line ever holds more: the broker sends no more than this unsettled.
        let (accept, accepted) = mpsc::sync_channel(prefetch.get().into());
        let (reply, replies) = mpsc::sync_channel(prefetch.get().into());
        let worker = Arc::new(Worker {
            transport,
            service,
            acceptor: Acceptor::new(policy),
            accepted: Mutex::new(accepted),
            draining: AtomicBool::new(false),
            settle_timeout,
            runtime,
            at_work: AtWork::default(),
        });
        let (alive, ended) = mpsc::channel();
        let server = Self {
            worker,
            consumer: id,
            ended: Mutex::new(ended),
        };
        server.spawn("rpc-settler", &alive, move |worker, _| {
            worker.settle_all(&replies);
        })?;
        for _ in 0..concurrency.get() {
            let reply = reply.clone();
            server.spawn("rpc-worker", &alive, move |worker, _| worker.serve(&reply))?;
        }
        server.spawn("rpc-receiver", &alive, move |worker, alive| {
            if let Err(cause) = worker.receive(consumer, accept, &reply) {
                // Nobody may be waiting for the cause.
                let _ = alive.send(cause);
            }
        })?;
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
        match self.wait(limit) {
            Ok(cause) => Some(Err(cause)),
            Err(RecvTimeoutError::Disconnected) => Some(Ok(())),
            Err(RecvTimeoutError::Timeout) => None,
        }
    }

    /// Stops: takes no more requests, and waits up to `limit` for those that have begun, their
    /// replies and their acknowledgements. What had not begun is handed back.
    pub fn drain(self, limit: Duration) -> DrainReport {
        let deadline = Instant::now() + limit.min(LONGEST_DRAIN);
        self.stop();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.wait(left) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    return DrainReport::new(self.stats(), 0);
                }
            }
        }
        DrainReport::new(self.stats(), self.worker.at_work.count())
    }

    fn wait(&self, limit: Duration) -> Result<TransportError, RecvTimeoutError> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.recv_timeout(limit)
    }

    fn stop(&self) {
        self.worker.draining.store(true, Ordering::Release);
        // Wakes the receiver. An error means that the transport has ended, and has woken it.
        let _ = self.worker.transport.cancel(self.consumer);
    }

    fn spawn(
        &self,
        name: &str,
        alive: &mpsc::Sender<TransportError>,
        run: impl FnOnce(&Worker<T, S>, &mpsc::Sender<TransportError>) + Send + 'static,
    ) -> Result<(), TransportError> {
        let (worker, alive) = (Arc::clone(&self.worker), alive.clone());
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
        // After a drain this does nothing.
        self.stop();
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
    /// Takes requests in until there are no more, and hands back those that nobody has begun.
    fn receive(
        &self,
        mut consumer: Box<dyn Consumer>,
        accept: SyncSender<Accepted>,
        replies: &SyncSender<Sent>,
    ) -> Result<(), TransportError> {
        let cause = loop {
            match consumer.recv() {
                Ok(Some(delivery)) => {
                    self.at_work.begin();
                    // The workers end after the receiver.
                    let _ = accept.send(self.acceptor.accept(delivery));
                }
                Ok(None) => break Ok(()),
                Err(cause) => break Err(cause),
            }
        };
        self.draining.store(true, Ordering::Release);
        // An idle worker holds the lock while it waits for what can no longer come: first this ends.
        drop(accept);
        self.serve(replies);
        cause
    }

    /// Answers requests until there are no more.
    fn serve(&self, replies: &SyncSender<Sent>) {
        loop {
            let accepted = self
                .accepted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .recv();
            match accepted {
                Ok(Accepted::Job(job)) if self.draining.load(Ordering::Acquire) => {
                    self.settle(job.abandon());
                }
                Ok(Accepted::Job(job)) => self.finish(self.execute(job), replies),
                Ok(Accepted::Settlement(settlement)) => self.finish(settlement, replies),
                Err(_) => return,
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
