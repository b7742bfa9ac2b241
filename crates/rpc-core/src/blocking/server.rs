//! The blocking face of the server, as its owner sees it: start, watch, drain.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rpc_proto::link::{Generation, Link, LinkState};
use rpc_proto::server::{Acceptor, Stats};
use rpc_proto::{LONGEST_WAIT, TransportError, deadline_after};
use uuid::Uuid;

use super::house::House;
use super::supervise::{Tenant, occupy, supervise};
use super::worker::{Runtime, Worker};
use super::{Connector, Transport, cancel};
use crate::link::{CLOSE_LIMIT, LinkCell};
use crate::server::CANCEL_LIMIT;
use crate::{DrainReport, ServerOptions, Service, park};

/// Serves a [`Service`] from a queue, over any blocking [`Transport`].
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
/// A handler that does not come back by its deadline cannot be stopped. Its caller is answered, and
/// another thread works in its place, unless too many are stuck already.
///
/// Dropped, it takes no more requests, and its threads end by themselves after those they have.
#[must_use = "a server that is dropped serves no more"]
pub struct Server<T: Transport, S: Service> {
    worker: Arc<Worker<T, S>>,
    cell: Arc<LinkCell>,
}

impl<T: Transport, S: Service> Server<T, S> {
    /// Declares the queue and begins to serve it on this transport, on as many threads as handlers
    /// may run at once.
    ///
    /// # Errors
    ///
    /// Those of [`Transport::declare`] and [`Transport::consume`], and
    /// [`ErrorKind::Other`](crate::ErrorKind::Other) when the system has no thread left.
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

    /// Begins to make transports and to serve on them, one after the other. Returns at once;
    /// [`ready`](Self::ready) waits. Should the system have no thread left, it is closed from the
    /// beginning.
    pub fn connect<C>(connector: C, service: S, options: ServerOptions) -> Self
    where
        C: Connector<Transport = T>,
    {
        Self::connect_in(connector, service, options, Runtime::default())
    }

    /// Like [`connect`](Self::connect), with a tokio runtime at hand for handlers that await its
    /// timers or sockets.
    #[cfg(feature = "tokio")]
    pub fn connect_with_runtime<C>(
        connector: C,
        service: S,
        options: ServerOptions,
        runtime: tokio::runtime::Handle,
    ) -> Self
    where
        C: Connector<Transport = T>,
    {
        Self::connect_in(connector, service, options, Runtime::of(runtime))
    }

    fn start_in(
        transport: T,
        service: S,
        options: ServerOptions,
        runtime: Runtime,
    ) -> Result<Self, TransportError> {
        let cell = options.link(Link::given(Instant::now()));
        let concurrency = options.concurrency.get();
        let house = house(service, options, runtime, false);
        let transport = Arc::new(transport);
        let stay = house.move_in(&transport)?;
        house.arrive(Generation::FIRST, &transport, &stay);
        let life = {
            let (cell, house) = (Arc::clone(&cell), Arc::clone(&house));
            move || occupy(&transport, stay, &cell, &*house)
        };
        let server = Self::of(&house, cell);
        server.live(concurrency, life)?;
        Ok(server)
    }

    fn connect_in<C>(connector: C, service: S, options: ServerOptions, runtime: Runtime) -> Self
    where
        C: Connector<Transport = T>,
    {
        let seed = Uuid::new_v4().as_u64_pair().0;
        let endpoints = connector.endpoints();
        let link = Link::new(endpoints, options.backoff, seed, Instant::now());
        let cell = options.link(link);
        let concurrency = options.concurrency.get();
        let house = house(service, options, runtime, true);
        let life = {
            let (cell, house) = (Arc::clone(&cell), Arc::clone(&house));
            let connector = Arc::new(connector);
            move || supervise(&connector, &cell, &house)
        };
        let server = Self::of(&house, cell);
        if let Err(error) = server.live(concurrency, life) {
            tracing::error!(%error, "a server could not be started");
            server.cell.close();
        }
        server
    }

    fn of(house: &House<T, S>, cell: Arc<LinkCell>) -> Self {
        Self {
            worker: Arc::clone(&house.worker),
            cell,
        }
    }

    /// Starts the threads; one of them lives on one transport after the other.
    fn live(
        &self,
        concurrency: usize,
        life: impl FnOnce() + Send + 'static,
    ) -> Result<(), TransportError> {
        let started = self.worker.start(concurrency).and_then(|()| {
            self.worker.spawn("rpc-receiver", move |worker| {
                life();
                let ever = || deadline_after(Instant::now(), LONGEST_WAIT);
                worker.wind_up(worker.progress.stopping().unwrap_or_else(ever));
                worker.progress.over();
            })
        });
        if started.is_err() {
            // The threads that there are.
            self.worker.wind_up(Instant::now());
            self.worker.progress.over();
        }
        started
    }

    /// Waits until requests can come, at most this long; less where there is no use in waiting: the server
    /// was stopped, or every broker refuses for what only a person can mend, such as a wrong password, a
    /// queue of other arguments or a feature that is not built in. It goes on trying all the same, in
    /// case somebody mends that.
    ///
    /// # Errors
    ///
    /// Why there is no connection.
    pub fn ready(&self, limit: Duration) -> Result<(), TransportError> {
        let deadline = deadline_after(Instant::now(), limit);
        self.cell.ready(park::block_on_until(
            pin!(self.cell.until_ready()),
            deadline,
        ))
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

    /// Waits until no more requests come: the transport has ended, or the queue is gone. At most
    /// `limit`; then it returns `None`. For a server that makes its own transports it always does;
    /// [`link_state`](Self::link_state) tells how it is.
    ///
    /// [`drain`](Self::drain) afterwards, to let the last requests finish.
    pub fn ended(&self, limit: Duration) -> Option<Result<(), TransportError>> {
        self.worker
            .progress
            .wait_ended(deadline_after(Instant::now(), limit))
    }

    /// Stops: takes no more requests, hands back those that have not begun, and waits up to `limit`
    /// for those that have, their replies and their acknowledgements. A transport that it made itself
    /// is closed then, which takes three seconds more at the most.
    pub fn drain(self, limit: Duration) -> DrainReport {
        let now = Instant::now();
        let deadline = deadline_after(now, limit);
        let worker = &self.worker;
        let cancelled = self.stop(deadline);
        let soon = deadline.min(deadline_after(now, CANCEL_LIMIT));
        for done in cancelled {
            // Disconnected when it is done.
            let _ = done.recv_timeout(soon.saturating_duration_since(Instant::now()));
        }
        // Not before: what is handed back would come here again.
        worker.wind_up(deadline);
        let closed = deadline_after(Instant::now(), CLOSE_LIMIT);
        worker.progress.wait_over(closed);
        if worker.settler.at_work.count() == 0 {
            // Nothing holds them any more, so this is a moment.
            worker.progress.wait_gone(worker.acceptor.stuck(), closed);
        }
        DrainReport::new(self.stats(), worker.settler.at_work.count())
    }

    /// Takes no more requests; what is returned is disconnected when nothing more can come.
    fn stop(&self, until: Instant) -> Vec<std::sync::mpsc::Receiver<()>> {
        self.worker.progress.stop(until);
        // No other transport is made.
        self.cell.close();
        let posts = self.worker.settler.posts.all();
        let consumers = posts
            .iter()
            .flat_map(|post| post.consumers.iter().map(|id| (&post.transport, *id)));
        consumers
            .map(|(transport, id)| cancel(transport, id))
            .collect()
    }
}

fn house<T: Transport, S: Service>(
    service: S,
    options: ServerOptions,
    runtime: Runtime,
    supervised: bool,
) -> Arc<House<T, S>> {
    let quarantine = options.quarantine_queue();
    let acceptor = Acceptor::new(options.policy).with_concurrency(options.concurrency.get());
    let observer = options.observer.0;
    let worker = Worker::new(service, acceptor, options.settle_timeout, runtime, observer);
    Arc::new(House {
        worker: Arc::new(worker),
        queue: options.queue,
        quarantine,
        prefetch: options.prefetch,
        notices: options.notices,
        supervised,
    })
}

impl<T: Transport, S: Service> Drop for Server<T, S> {
    fn drop(&mut self) {
        // After a drain that was in time there is nobody left to tell.
        if !self.worker.progress.is_over() {
            drop(self.stop(deadline_after(Instant::now(), LONGEST_WAIT)));
        }
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
