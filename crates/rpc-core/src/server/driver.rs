//! The async face of the server, as its owner sees it: start, watch, drain.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rpc_proto::link::{Generation, Link, LinkState};
use rpc_proto::server::{Acceptor, Stats};
use rpc_proto::{TransportError, deadline_after};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{timeout, timeout_at};
use uuid::Uuid;

use super::house::{House, Stage};
use super::worker::Worker;
use super::{CANCEL_LIMIT, DrainReport, ServerOptions};
use crate::link::{CLOSE_LIMIT, LinkCell, Tenant, occupy, supervise};
use crate::{Connector, Service, Transport};

/// Serves a [`Service`] from a queue, over any [`Transport`].
///
/// A request is acknowledged after its reply is confirmed, so a worker that dies loses none: the
/// broker delivers them again, at least once. Where that is once too often, see
/// [`Guarantee`](rpc_proto::server::Guarantee) and [`Dedup`](rpc_proto::server::Dedup).
///
/// [`start`](Self::start) serves on one transport until that ends, and does not close it, unless it
/// is given up: one that does not come back from an acknowledgement is, for what it holds is delivered
/// again only when it has ended.
/// [`connect`](Self::connect) makes its transports itself: when one is lost, or its queue deleted, it
/// makes the next, declares the queue again and goes on. What had begun is finished meanwhile. Its
/// reply goes out by the next transport, if there is one by then; the request itself comes again,
/// since no acknowledgement crosses from one transport to another.
///
/// Dropped, it stops at once: handlers are dropped where they await, and their requests are
/// delivered again when the transport closes. [`drain`](Self::drain) is the gentle way.
#[must_use = "a server that is dropped serves no more"]
pub struct Server<T: Transport, S: Service> {
    worker: Arc<Worker<T, S>>,
    cell: Arc<LinkCell>,
    stage: watch::Sender<Stage>,
    ended: watch::Receiver<Option<Result<(), TransportError>>>,
    /// The task that lives on one transport after the other.
    life: JoinHandle<()>,
}

/// A server that has no transport yet.
struct Plan<T, S> {
    house: Arc<House<T, S>>,
    stage: watch::Sender<Stage>,
    ended: watch::Receiver<Option<Result<(), TransportError>>>,
}

impl<T: Transport, S: Service> Plan<T, S> {
    fn new(service: S, options: ServerOptions, supervised: bool) -> Self {
        let quarantine = options.quarantine_queue();
        let (stage, watched) = watch::channel(Stage::Serving);
        let (told, ended) = watch::channel(None);
        let worker = Worker::new(
            service,
            Acceptor::new(options.policy).with_concurrency(options.concurrency.get()),
            options.concurrency.get(),
            options.settle_timeout,
            options.observer.0.clone(),
        );
        let worker = Arc::new(worker);
        let house = House {
            worker,
            queue: options.queue,
            quarantine,
            prefetch: options.prefetch,
            notices: options.notices,
            supervised,
            stage: watched,
            ended: told,
        };
        Self {
            house: Arc::new(house),
            stage,
            ended,
        }
    }

    fn live(self, cell: Arc<LinkCell>, life: JoinHandle<()>) -> Server<T, S> {
        let worker = Arc::clone(&self.house.worker);
        // Not before there is a server to end it: a task that holds what it lives in ends by itself
        // never.
        worker.spawn(Arc::clone(&worker).settle_all());
        Server {
            worker,
            cell,
            stage: self.stage,
            ended: self.ended,
            life,
        }
    }
}

impl<T: Transport, S: Service> Server<T, S> {
    /// Declares the queue and begins to serve it, on this transport.
    ///
    /// # Errors
    ///
    /// Those of [`Transport::declare`] and [`Transport::consume`].
    pub async fn start(
        transport: T,
        service: S,
        options: ServerOptions,
    ) -> Result<Self, TransportError> {
        let cell = options.link(Link::given(Instant::now()));
        let plan = Plan::new(service, options, false);
        let transport = Arc::new(transport);
        let stay = plan.house.move_in(&transport).await?;
        plan.house.arrive(Generation::FIRST, &transport, &stay);
        let house = Arc::clone(&plan.house);
        let life = tokio::spawn(occupy(transport, stay, Arc::clone(&cell), house));
        Ok(plan.live(cell, life))
    }

    /// Begins to make transports and to serve on them, one after the other. Returns at once;
    /// [`ready`](Self::ready) waits.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn connect<C>(connector: C, service: S, options: ServerOptions) -> Self
    where
        C: Connector<Transport = T>,
    {
        let seed = Uuid::new_v4().as_u64_pair().0;
        let endpoints = connector.endpoints();
        let link = Link::new(endpoints, options.backoff, seed, Instant::now());
        let cell = options.link(link);
        let plan = Plan::new(service, options, true);
        let house = Arc::clone(&plan.house);
        let life = tokio::spawn(supervise(connector, Arc::clone(&cell), house));
        plan.live(cell, life)
    }

    /// Waits until requests can come, at most this long; less where there is no use in waiting: the server
    /// was stopped, or every broker refuses for what only a person can mend, such as a wrong password, a
    /// queue of other arguments or a feature that is not built in. It goes on trying all the same, in
    /// case somebody mends that.
    ///
    /// # Errors
    ///
    /// Why there is no connection.
    pub async fn ready(&self, limit: Duration) -> Result<(), TransportError> {
        let deadline = deadline_after(Instant::now(), limit);
        let ready = timeout_at(deadline.into(), self.cell.until_ready()).await;
        self.cell.ready(ready.ok())
    }

    /// Whether there is a connection, and why not.
    #[must_use]
    pub fn link_state(&self) -> LinkState {
        self.cell.state()
    }

    /// What became of all deliveries so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.worker.acceptor.stats()
    }

    /// Handlers that did not come back by their deadline, and still have not.
    #[must_use]
    pub fn stuck(&self) -> usize {
        self.worker.acceptor.stuck()
    }

    /// Waits until no more requests come: the transport has ended, or the queue is gone. For a server
    /// that makes its own transports that is never; [`link_state`](Self::link_state) tells how it is.
    ///
    /// # Errors
    ///
    /// The cause.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. [`drain`](Self::drain) afterwards, to let the last requests finish.
    pub async fn ended(&self) -> Result<(), TransportError> {
        let mut ended = self.ended.clone();
        let told = ended.wait_for(Option::is_some).await;
        // Its sender lives as long as anything of this server does.
        told.ok().and_then(|told| told.clone()).unwrap_or(Ok(()))
    }

    /// Stops: takes no more requests, hands back those that have not begun, and waits up to `limit`
    /// for those that have, their replies and their acknowledgements. A transport that it made itself
    /// is closed then, which takes three seconds more at the most.
    pub async fn drain(mut self, limit: Duration) -> DrainReport {
        let now = Instant::now();
        let deadline = deadline_after(now, limit);
        let worker = Arc::clone(&self.worker);
        self.stage.send_replace(Stage::Draining);
        // No other transport is made.
        self.cell.close();
        let soon = deadline.min(deadline_after(now, CANCEL_LIMIT));
        for post in worker.settler.posts.all() {
            for &consumer in &post.consumers {
                // An error means that the transport has ended, and the consumer with it.
                let _ = timeout_at(soon.into(), post.transport.cancel(consumer)).await;
            }
        }
        // Not before: what is handed back would come here again.
        worker.acceptor.drain();
        worker.slots.close();
        let _ = timeout_at(deadline.into(), worker.settler.at_work.idle()).await;
        self.stage.send_replace(Stage::Done);
        let _ = timeout(CLOSE_LIMIT, &mut self.life).await;
        DrainReport::new(worker.acceptor.stats(), worker.settler.at_work.count())
    }
}

impl<T: Transport, S: Service> Drop for Server<T, S> {
    fn drop(&mut self) {
        self.cell.close();
        self.life.abort();
        self.worker.abort();
    }
}

impl<T: Transport, S: Service> fmt::Debug for Server<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("link", &self.cell.state())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
