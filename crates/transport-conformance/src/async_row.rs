//! The async face of the suite: every verb is awaited on a runtime of the row's own.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rpc_core::proto::wire::Reply;
use rpc_core::proto::{client, server};
use rpc_core::{
    AckToken, Address, CallError, CallOptions, Client, ClientOptions, ClientStats, Confirm,
    Connector, ConsumeOptions, Consumer, ConsumerId, Delivery, DrainReport, ErrorKind, Fate,
    Message, QueueSpec, Server, ServerOptions, Service, ShortString, Transport, TransportError,
};
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::backend::{
    Backend, Caller, Connection, Linked, Ongoing, Received, Receiver, Serving, sealed::Sealed,
};
use crate::linked::AsyncLinked;
use crate::steps::{VERB_LIMIT, fresh_name};

/// Makes a broker block publishers, or lets them go on.
pub(crate) type Alarm = Box<dyn Fn(bool) + Send>;

/// Makes transports, whoever asks.
pub(crate) type Dial = Arc<Mutex<Box<dyn Fn() -> Dialled + Send>>>;

pub(crate) type Dialled =
    Pin<Box<dyn Future<Output = Result<Arc<dyn Transport>, TransportError>> + Send>>;

/// A row for an async [`Transport`].
pub struct AsyncRow {
    connect: Dial,
    alarm: Option<Alarm>,
    /// Only empty while it is dropped.
    runtime: Option<Runtime>,
}

impl AsyncRow {
    /// A row whose transports `connect` makes, all to one broker.
    ///
    /// # Panics
    ///
    /// When the system has no threads left for a runtime.
    pub fn new<T, F>(connect: impl Fn() -> F + Send + 'static) -> Self
    where
        T: Transport,
        F: Future<Output = Result<T, TransportError>> + Send + 'static,
    {
        let connect = move || -> Dialled {
            let connecting = connect();
            Box::pin(async move { Ok(Arc::new(connecting.await?) as Arc<dyn Transport>) })
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a test needs two threads");
        Self {
            connect: Arc::new(Mutex::new(Box::new(connect))),
            alarm: None,
            runtime: Some(runtime),
        }
    }

    /// A row whose transports are made by `connector`, at its first endpoint.
    ///
    /// # Panics
    ///
    /// When the system has no threads left for a runtime.
    pub fn over(connector: impl Connector) -> Self {
        let connector = Arc::new(connector);
        Self::new(move || {
            let connector = Arc::clone(&connector);
            async move { connector.connect(0).await }
        })
    }

    /// Adds the way to make the broker block publishers, and let them go on. Cases about that do
    /// nothing on a row without it.
    #[must_use]
    pub fn with_alarm(mut self, alarm: impl Fn(bool) + Send + 'static) -> Self {
        self.alarm = Some(Box::new(alarm));
        self
    }

    fn handle(&self) -> &Handle {
        // The runtime leaves only in `drop`.
        self.runtime
            .as_ref()
            .expect("the row is not dropped")
            .handle()
    }
}

impl Drop for AsyncRow {
    fn drop(&mut self) {
        // A handler that a failed case left at its gate must not hold up the report of the failure.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for AsyncRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncRow").finish_non_exhaustive()
    }
}

impl Sealed for AsyncRow {}

impl Backend for AsyncRow {
    fn connect(&self) -> Result<Box<dyn Connection>, TransportError> {
        let face = Face(self.handle().clone());
        let dialled = dial(&self.connect);
        let transport = face.bounded("connect", dialled)?;
        Ok(Box::new(AsyncConnection { face, transport }))
    }

    fn keep_connected(&self, options: ClientOptions) -> Box<dyn Linked> {
        let face = Face(self.handle().clone());
        Box::new(AsyncLinked::new(face, Arc::clone(&self.connect), options))
    }

    fn queue(&self) -> ShortString {
        fresh_name()
    }

    fn block_publishers(&self, blocked: bool) -> bool {
        self.alarm.as_ref().map(|alarm| alarm(blocked)).is_some()
    }
}

/// Begins to make a transport.
pub(crate) fn dial(connect: &Dial) -> Dialled {
    let connect = connect.lock().unwrap_or_else(PoisonError::into_inner);
    connect()
}

/// The way from a case, which is a plain thread, to the runtime.
#[derive(Clone)]
pub(crate) struct Face(pub(crate) Handle);

impl Face {
    /// Awaits a verb that must return by itself.
    pub(crate) fn bounded<F: Future>(&self, verb: &str, future: F) -> F::Output {
        self.within(VERB_LIMIT, future)
            .unwrap_or_else(|| panic!("`{verb}` did not return within {VERB_LIMIT:?}"))
    }

    /// Awaits for at most `limit`, and drops what was awaited.
    pub(crate) fn within<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        self.0.block_on(async { timeout(limit, future).await }).ok()
    }
}

struct AsyncConnection {
    face: Face,
    transport: Arc<dyn Transport>,
}

impl Connection for AsyncConnection {
    fn declare(&self, queue: &QueueSpec) -> Result<(), TransportError> {
        self.face.bounded("declare", self.transport.declare(queue))
    }

    fn publish(
        &self,
        to: &Address,
        message: Message,
        deadline: Instant,
    ) -> Result<Confirm, TransportError> {
        let published = self.transport.publish(to, message, deadline);
        self.face.bounded("publish", published)
    }

    fn is_blocked(&self) -> bool {
        self.transport.is_blocked()
    }

    fn verdict(&self, confirm: Confirm, limit: Duration) -> Result<(), TransportError> {
        self.face.within(limit, confirm).unwrap_or_else(|| {
            Err(TransportError::new(
                ErrorKind::Timeout,
                "conformance",
                "confirm",
            ))
        })
    }

    fn consume(&self, options: ConsumeOptions) -> Result<Box<dyn Receiver>, TransportError> {
        let consumed = self.transport.consume(options);
        let consumer = self.face.bounded("consume", consumed)?;
        Ok(Box::new(AsyncReceiver {
            id: consumer.id(),
            queue: consumer.queue().clone(),
            consumer: Some(consumer),
            face: self.face.clone(),
        }))
    }

    fn ack(&self, token: AckToken) -> Result<(), TransportError> {
        self.face.bounded("ack", self.transport.ack(token))
    }

    fn reject(&self, token: AckToken, fate: Fate) -> Result<(), TransportError> {
        let rejected = self.transport.reject(token, fate);
        self.face.bounded("reject", rejected)
    }

    fn cancel(&self, consumer: ConsumerId) -> Result<(), TransportError> {
        let cancelled = self.transport.cancel(consumer);
        self.face.bounded("cancel", cancelled)
    }

    fn close(&self) -> Result<(), TransportError> {
        self.face.bounded("close", self.transport.close())
    }

    fn client(&self, options: ClientOptions) -> Result<Arc<dyn Caller>, TransportError> {
        let made = Client::new(Arc::clone(&self.transport), options);
        let client = self.face.bounded("the client", made)?;
        let face = self.face.clone();
        Ok(Arc::new(AsyncCaller { client, face }))
    }

    fn serve(
        &self,
        service: Arc<dyn Service>,
        options: ServerOptions,
    ) -> Result<Box<dyn Serving>, TransportError> {
        let started = Server::start(Arc::clone(&self.transport), service, options);
        let server = self.face.bounded("the server", started)?;
        Ok(Box::new(AsyncServing {
            server: Some(server),
            face: self.face.clone(),
        }))
    }
}

impl Drop for AsyncConnection {
    fn drop(&mut self) {
        // Whether closing works is the matter of a case; here it only tidies up.
        let _ = self.face.within(VERB_LIMIT, self.transport.close());
    }
}

struct AsyncReceiver {
    id: ConsumerId,
    queue: ShortString,
    /// Only empty while it is dropped.
    consumer: Option<Box<dyn Consumer>>,
    face: Face,
}

impl Receiver for AsyncReceiver {
    fn id(&self) -> ConsumerId {
        self.id
    }

    fn queue(&self) -> &ShortString {
        &self.queue
    }

    fn recv_within(&mut self, limit: Duration) -> Received {
        let Some(consumer) = &mut self.consumer else {
            return Received::Ended;
        };
        received(self.face.within(limit, consumer.recv()))
    }
}

impl Drop for AsyncReceiver {
    fn drop(&mut self) {
        // As a task would: what a consumer does when it is dropped may need the runtime.
        let _entered = self.face.0.enter();
        drop(self.consumer.take());
    }
}

/// Reads the outcome of a receive; `None` is the limit.
pub(crate) fn received(outcome: Option<Result<Option<Delivery>, TransportError>>) -> Received {
    match outcome {
        Some(Ok(Some(delivery))) => Received::Delivery(delivery),
        Some(Ok(None)) => Received::Ended,
        Some(Err(cause)) => Received::Failed(cause),
        None => Received::Nothing,
    }
}

pub(crate) struct AsyncCaller {
    pub(crate) client: Client<Arc<dyn Transport>>,
    pub(crate) face: Face,
}

impl Caller for AsyncCaller {
    fn call(&self, options: CallOptions, request: client::Request) -> Result<Reply, CallError> {
        self.face.0.block_on(self.client.call_raw(options, request))
    }

    fn call_number(&self, method: &str, number: u64) -> Result<u64, CallError> {
        self.face.0.block_on(self.client.call(method, &number))
    }

    fn begin(&self, options: CallOptions, request: client::Request) -> Box<dyn Ongoing> {
        let client = self.client.clone();
        let call = async move { client.call_raw(options, request).await };
        Box::new(AsyncCall {
            call: self.face.0.spawn(call),
            face: self.face.clone(),
        })
    }

    fn give_up(&self, count: usize, request: &client::Request) {
        let client = &self.client;
        // Dropped at every stage: before the publish, during it, and while the reply is awaited.
        let lane = |lane: usize| async move {
            for place in (lane..count).step_by(LANES) {
                let patience = Duration::from_millis((place / LANES % 4) as u64);
                let call = client.call_raw(CallOptions::default(), request.clone());
                let _ = timeout(patience, call).await;
            }
        };
        let lanes: Vec<_> = (0..LANES).map(|place| Box::pin(lane(place))).collect();
        self.face.0.block_on(all(lanes));
    }

    fn in_flight(&self) -> usize {
        self.client.in_flight()
    }

    fn stats(&self) -> ClientStats {
        self.client.stats()
    }

    fn close(&self) {
        self.face.bounded("closing the client", self.client.close());
    }
}

/// Calls given up at the same time.
pub(crate) const LANES: usize = 64;

/// Drives all futures to their end.
async fn all<F: Future<Output = ()> + Unpin>(mut futures: Vec<F>) {
    std::future::poll_fn(|context| {
        futures.retain_mut(|future| Pin::new(future).poll(context).is_pending());
        if futures.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

struct AsyncCall {
    call: JoinHandle<Result<Reply, CallError>>,
    face: Face,
}

impl Ongoing for AsyncCall {
    fn end_within(&mut self, limit: Duration) -> Option<Result<Reply, CallError>> {
        let ended = self.face.within(limit, &mut self.call)?;
        Some(ended.expect("a call does not panic"))
    }
}

impl Drop for AsyncCall {
    fn drop(&mut self) {
        self.call.abort();
    }
}

struct AsyncServing {
    /// Only empty after a drain and while it is dropped.
    server: Option<Server<Arc<dyn Transport>, Arc<dyn Service>>>,
    face: Face,
}

impl Serving for AsyncServing {
    fn stats(&self) -> server::Stats {
        self.server.as_ref().map(Server::stats).unwrap_or_default()
    }

    fn ended_within(&mut self, limit: Duration) -> Option<Result<(), TransportError>> {
        let server = self.server.as_mut()?;
        self.face.within(limit, server.ended())
    }

    fn drain(mut self: Box<Self>, limit: Duration) -> DrainReport {
        let server = self.server.take().expect("a server is drained once");
        self.face
            .within(limit + VERB_LIMIT, server.drain(limit))
            .unwrap_or_else(|| panic!("a drain of {limit:?} did not end"))
    }
}

impl Drop for AsyncServing {
    fn drop(&mut self) {
        let _entered = self.face.0.enter();
        drop(self.server.take());
    }
}
