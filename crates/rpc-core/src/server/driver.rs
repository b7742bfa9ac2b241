//! The async face of the server: one task receives, and each request is a task of its own.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rpc_proto::server::{
    Accepted, Acceptor, Ending, Job, Request, Running, Settlement, Stats, Verdict,
};
use rpc_proto::{
    Address, ConsumerId, ErrorKind, LONGEST_WAIT, Message, TransportError, deadline_after,
};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::{AtWork, CatchUnwind, DrainReport, Panicked, ServerOptions, catch_unwind};
use crate::{Answer, ConsumeOptions, Consumer, Fate, Service, Transport, Work};

/// Serves a [`Service`] from a queue, over any [`Transport`].
///
/// A request is acknowledged after its reply is confirmed, so a worker that dies loses none: the
/// broker delivers them again, at least once. The server does not close its transport.
///
/// Dropped, it stops at once: handlers are dropped where they await, and their requests are
/// delivered again when the transport closes. [`drain`](Self::drain) is the gentle way.
pub struct Server<T: Transport, S: Service> {
    worker: Arc<Worker<T, S>>,
    consumer: ConsumerId,
    /// Ends with the requests still at work and the reason why no more are taken.
    receiver: Receiver,
}

/// The receiving task, which ends with its handle.
struct Receiver(JoinHandle<Ended>);

impl Drop for Receiver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Ended = (JoinSet<()>, Result<(), TransportError>);

struct Worker<T, S> {
    transport: T,
    service: S,
    acceptor: Acceptor,
    /// One permit for each handler that may run; closed when no further one may begin.
    slots: Semaphore,
    settle_timeout: Duration,
    at_work: AtWork,
}

impl<T: Transport, S: Service> Server<T, S> {
    /// Declares the queue and begins to serve it.
    ///
    /// # Errors
    ///
    /// Those of [`Transport::declare`] and [`Transport::consume`].
    pub async fn start(
        transport: T,
        service: S,
        options: ServerOptions,
    ) -> Result<Self, TransportError> {
        let ServerOptions {
            concurrency,
            prefetch,
            queue,
            policy,
            settle_timeout,
        } = options;
        transport.declare(&queue).await?;
        let consumer = transport
            .consume(ConsumeOptions::queue(queue.name, prefetch))
            .await?;
        let id = consumer.id();
        let worker = Arc::new(Worker {
            transport,
            service,
            acceptor: Acceptor::new(policy),
            slots: Semaphore::new(concurrency.get().min(Semaphore::MAX_PERMITS)),
            settle_timeout,
            at_work: AtWork::default(),
        });
        let receiver = Receiver(tokio::spawn(receive(consumer, Arc::clone(&worker))));
        Ok(Self {
            worker,
            consumer: id,
            receiver,
        })
    }

    /// What became of all deliveries so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.worker.acceptor.stats()
    }

    /// Waits until no more requests come: the transport has ended, or the queue is gone.
    ///
    /// # Errors
    ///
    /// The cause.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. [`drain`](Self::drain) afterwards, to let the last requests finish.
    pub async fn ended(&mut self) -> Result<(), TransportError> {
        let (jobs, cause) = (&mut self.receiver.0).await.unwrap_or_else(|_| stopped());
        let again = cause.clone();
        // Kept for the drain: a join handle gives its output once.
        self.receiver = Receiver(tokio::spawn(async move { (jobs, again) }));
        cause
    }

    /// Stops: takes no more requests, hands back those that have not begun, and waits up to `limit`
    /// for those that have, their replies and their acknowledgements.
    pub async fn drain(self, limit: Duration) -> DrainReport {
        let Self {
            worker,
            consumer,
            mut receiver,
        } = self;
        let deadline = deadline_after(Instant::now(), limit).into();
        // An error means that the transport has ended, and the consumer with it.
        let _ = tokio::time::timeout_at(deadline, worker.transport.cancel(consumer)).await;
        // Not before the cancel: what is handed back would come here again.
        worker.slots.close();
        if let Ok(Ok((mut jobs, _))) = tokio::time::timeout_at(deadline, &mut receiver.0).await {
            while let Ok(Some(_)) = tokio::time::timeout_at(deadline, jobs.join_next()).await {}
        }
        DrainReport::new(worker.acceptor.stats(), worker.at_work.count())
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

impl<T: Transport, S: Service> Worker<T, S> {
    /// Answers one request.
    async fn work(&self, job: Job) {
        let Ok(slot) = self.slots.acquire().await else {
            return self.settle(job.abandon()).await;
        };
        let settlement = match job.begin(Instant::now()) {
            Ok((request, running)) => self.execute(request, running).await,
            Err(settlement) => settlement,
        };
        // The slot is for handlers. That the reply is still on its way is bounded by the prefetch.
        drop(slot);
        self.finish(settlement).await;
    }

    async fn execute(&self, request: Request, running: Running) -> Settlement {
        let deadline = running.deadline();
        let ending = match catch_unwind(|| self.service.call(request)) {
            Ok(Work::Ready(answer)) => Ending::Answered(answer),
            Ok(Work::Async(work)) => {
                let work = CatchUnwind::new(work);
                match tokio::time::timeout_at(deadline.into(), work).await {
                    Ok(Ok(answer)) => Ending::Answered(answer),
                    Ok(Err(Panicked)) => Ending::Panicked,
                    Err(_) => Ending::TimedOut,
                }
            }
            Ok(Work::Blocking(work)) => offload(work, deadline).await,
            Err(Panicked) => Ending::Panicked,
        };
        running.finish(Instant::now(), ending)
    }

    /// Reply, confirm, acknowledge, in this order.
    async fn finish(&self, settlement: Settlement) {
        let verdict = match settlement {
            Settlement::Reply { to, message, then } => {
                let sent = self.send(&to, message).await;
                if let Err(error) = &sent {
                    tracing::debug!(%error, "a reply could not be delivered");
                }
                then.handle_publish(sent.as_ref().map(|&()| ()))
            }
            Settlement::Settle(verdict) => verdict,
        };
        self.settle(verdict).await;
    }

    async fn send(&self, to: &Address, message: Message) -> Result<(), TransportError> {
        let deadline = deadline_after(Instant::now(), self.settle_timeout);
        let confirmed = async { self.transport.publish(to, message, deadline).await?.await };
        tokio::time::timeout_at(deadline.into(), confirmed)
            .await
            .unwrap_or_else(|_| {
                Err(TransportError::new(
                    ErrorKind::Timeout,
                    self.transport.name(),
                    "reply",
                ))
            })
    }

    async fn settle(&self, verdict: Verdict) {
        let settled = async {
            match verdict {
                Verdict::Ack(token) => self.transport.ack(token).await,
                Verdict::Requeue(token) => self.transport.reject(token, Fate::Requeue).await,
                Verdict::Settled => Ok(()),
            }
        };
        match timeout(self.settle_timeout.min(LONGEST_WAIT), settled).await {
            Ok(Ok(())) => {}
            // Unsettled, the request comes again when this transport has ended.
            Ok(Err(error)) => tracing::debug!(%error, "a request could not be settled"),
            Err(_) => tracing::debug!("a request could not be settled in time"),
        }
        self.at_work.end();
    }
}

async fn receive<T: Transport, S: Service>(
    mut consumer: Box<dyn Consumer>,
    worker: Arc<Worker<T, S>>,
) -> Ended {
    // Bounded by the prefetch: the broker sends no more than that unsettled.
    let mut jobs = JoinSet::new();
    let cause = loop {
        let delivery = match consumer.recv().await {
            Ok(Some(delivery)) => delivery,
            Ok(None) => break Ok(()),
            Err(cause) => break Err(cause),
        };
        while jobs.try_join_next().is_some() {}
        worker.at_work.begin();
        let worker = Arc::clone(&worker);
        match worker.acceptor.accept(delivery) {
            Accepted::Job(job) => jobs.spawn(async move { worker.work(job).await }),
            Accepted::Settlement(settlement) => {
                jobs.spawn(async move { worker.finish(settlement).await })
            }
        };
    };
    // What has not begun is handed back: by a drain, or because nobody could be answered any more.
    worker.slots.close();
    (jobs, cause)
}

/// Runs blocking work on a thread that it may keep busy, unless none is free before the deadline.
async fn offload(work: Box<dyn FnOnce() -> Answer + Send>, deadline: Instant) -> Ending {
    let run = move || {
        if deadline <= Instant::now() {
            return Ending::Expired;
        }
        catch_unwind(work).map_or(Ending::Panicked, Ending::Answered)
    };
    // Panics are caught inside; the error is a runtime that shuts down, and the work with it.
    tokio::task::spawn_blocking(run)
        .await
        .unwrap_or(Ending::Panicked)
}

fn stopped() -> Ended {
    let cause = TransportError::new(ErrorKind::Closed, "rpc", "serve")
        .with_detail("the receiving task was stopped");
    (JoinSet::new(), Err(cause))
}
