//! The blocking face of the suite: every verb is called, and what must not wait for ever waits in a
//! thread of its own.

use std::fmt;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rpc_core::blocking::{Client, Connector, Consumer, Server, Transport};
use rpc_core::proto::wire::Reply;
use rpc_core::proto::{client, server};
use rpc_core::{
    AckToken, Address, CallError, CallOptions, ClientOptions, ClientStats, Confirm, ConsumeOptions,
    ConsumerId, Delivery, DrainReport, Fate, Message, QueueSpec, ServerOptions, Service,
    ShortString, TransportError,
};

use crate::async_row::{Alarm, LANES, received};
use crate::backend::{
    Backend, Caller, Connection, Linked, Ongoing, Received, Receiver, Serving, sealed::Sealed,
};
use crate::linked::BlockingLinked;
use crate::steps::fresh_name;

/// Makes transports, whoever asks.
pub(crate) type Dial = Arc<Mutex<Box<dyn Fn() -> Dialled + Send>>>;

pub(crate) type Dialled = Result<Arc<dyn Transport>, TransportError>;

/// A row for a blocking [`Transport`].
pub struct BlockingRow {
    connect: Dial,
    alarm: Option<Alarm>,
}

impl BlockingRow {
    /// A row whose transports `connect` makes, all to one broker.
    pub fn new<T: Transport>(
        connect: impl Fn() -> Result<T, TransportError> + Send + 'static,
    ) -> Self {
        let connect = move || Ok(Arc::new(connect()?) as Arc<dyn Transport>);
        Self {
            connect: Arc::new(Mutex::new(Box::new(connect))),
            alarm: None,
        }
    }

    /// A row whose transports are made by `connector`, at its first endpoint.
    pub fn over(connector: impl Connector) -> Self {
        Self::new(move || connector.connect(0))
    }

    /// Adds the way to make the broker block publishers, and let them go on. Cases about that do
    /// nothing on a row without it.
    #[must_use]
    pub fn with_alarm(mut self, alarm: impl Fn(bool) + Send + 'static) -> Self {
        self.alarm = Some(Box::new(alarm));
        self
    }
}

impl fmt::Debug for BlockingRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingRow").finish_non_exhaustive()
    }
}

impl Sealed for BlockingRow {}

impl Backend for BlockingRow {
    fn connect(&self) -> Result<Box<dyn Connection>, TransportError> {
        Ok(Box::new(BlockingConnection(dial(&self.connect)?)))
    }

    fn keep_connected(&self, options: ClientOptions) -> Box<dyn Linked> {
        Box::new(BlockingLinked::new(Arc::clone(&self.connect), options))
    }

    fn queue(&self) -> ShortString {
        fresh_name()
    }

    fn block_publishers(&self, blocked: bool) -> bool {
        self.alarm.as_ref().map(|alarm| alarm(blocked)).is_some()
    }
}

/// Makes a transport.
pub(crate) fn dial(connect: &Dial) -> Dialled {
    let connect = connect.lock().unwrap_or_else(PoisonError::into_inner);
    connect()
}

struct BlockingConnection(Arc<dyn Transport>);

impl Connection for BlockingConnection {
    fn declare(&self, queue: &QueueSpec) -> Result<(), TransportError> {
        self.0.declare(queue)
    }

    fn publish(
        &self,
        to: &Address,
        message: Message,
        deadline: Instant,
    ) -> Result<Confirm, TransportError> {
        self.0.publish(to, message, deadline)
    }

    fn is_blocked(&self) -> bool {
        self.0.is_blocked()
    }

    fn verdict(&self, confirm: Confirm, limit: Duration) -> Result<(), TransportError> {
        confirm.wait(Instant::now() + limit)
    }

    fn consume(&self, options: ConsumeOptions) -> Result<Box<dyn Receiver>, TransportError> {
        let consumer = self.0.consume(options)?;
        Ok(Box::new(BlockingReceiver::new(
            Arc::clone(&self.0),
            consumer,
        )))
    }

    fn ack(&self, token: AckToken) -> Result<(), TransportError> {
        self.0.ack(token)
    }

    fn reject(&self, token: AckToken, fate: Fate) -> Result<(), TransportError> {
        self.0.reject(token, fate)
    }

    fn cancel(&self, consumer: ConsumerId) -> Result<(), TransportError> {
        self.0.cancel(consumer)
    }

    fn close(&self) -> Result<(), TransportError> {
        self.0.close()
    }

    fn client(&self, options: ClientOptions) -> Result<Arc<dyn Caller>, TransportError> {
        let client = Client::new(Arc::clone(&self.0), options)?;
        Ok(Arc::new(BlockingCaller(client)))
    }

    fn serve(
        &self,
        service: Arc<dyn Service>,
        options: ServerOptions,
    ) -> Result<Box<dyn Serving>, TransportError> {
        let server = Server::start(Arc::clone(&self.0), service, options)?;
        Ok(Box::new(BlockingServing(server)))
    }
}

impl Drop for BlockingConnection {
    fn drop(&mut self) {
        // Whether closing works is the matter of a case; here it only tidies up.
        let _ = self.0.close();
    }
}

type Outcome = Result<Option<Delivery>, TransportError>;

/// A consumer in a thread that receives when it is asked to, once for each time.
struct BlockingReceiver {
    id: ConsumerId,
    queue: ShortString,
    transport: Arc<dyn Transport>,
    /// Disconnected, the thread drops the consumer and ends.
    asks: Option<mpsc::Sender<()>>,
    outcomes: mpsc::Receiver<Outcome>,
    /// A receive was asked for whose outcome has not been taken.
    waiting: bool,
    thread: Option<thread::JoinHandle<()>>,
}

impl BlockingReceiver {
    fn new(transport: Arc<dyn Transport>, mut consumer: Box<dyn Consumer>) -> Self {
        let (asks, asked) = mpsc::channel();
        let (outcome, outcomes) = mpsc::channel();
        let id = consumer.id();
        let queue = consumer.queue().clone();
        let thread = thread::spawn(move || {
            while asked.recv().is_ok() {
                if outcome.send(consumer.recv()).is_err() {
                    return;
                }
            }
        });
        Self {
            id,
            queue,
            transport,
            asks: Some(asks),
            outcomes,
            waiting: false,
            thread: Some(thread),
        }
    }
}

impl Receiver for BlockingReceiver {
    fn id(&self) -> ConsumerId {
        self.id
    }

    fn queue(&self) -> &ShortString {
        &self.queue
    }

    fn recv_within(&mut self, limit: Duration) -> Received {
        if !self.waiting {
            let asked = self.asks.as_ref().map(|asks| asks.send(()));
            assert!(matches!(asked, Some(Ok(()))), "the consumer panicked");
            self.waiting = true;
        }
        match self.outcomes.recv_timeout(limit) {
            Ok(outcome) => {
                self.waiting = false;
                received(Some(outcome))
            }
            Err(RecvTimeoutError::Timeout) => received(None),
            Err(RecvTimeoutError::Disconnected) => panic!("the consumer panicked"),
        }
    }
}

impl Drop for BlockingReceiver {
    fn drop(&mut self) {
        // A consumer that is inside `recv` cannot be dropped from outside; its owner cancels it.
        if self.waiting {
            let _ = self.transport.cancel(self.id);
        }
        drop(self.asks.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there was reported by the receive that met it.
            let _ = thread.join();
        }
    }
}

pub(crate) struct BlockingCaller(pub(crate) Client<Arc<dyn Transport>>);

impl Caller for BlockingCaller {
    fn call(&self, options: CallOptions, request: client::Request) -> Result<Reply, CallError> {
        self.0.call_raw(options, request)
    }

    fn call_number(&self, method: &str, number: u64) -> Result<u64, CallError> {
        self.0.call(method, &number)
    }

    fn begin(&self, options: CallOptions, request: client::Request) -> Box<dyn Ongoing> {
        let client = self.0.clone();
        let (end, ended) = mpsc::channel();
        // A thousand of these are begun at once.
        thread::Builder::new()
            .stack_size(256 << 10)
            .spawn(move || end.send(client.call_raw(options, request)))
            .expect("the system has threads left");
        Box::new(BlockingCall(ended))
    }

    fn give_up(&self, count: usize, request: &client::Request) {
        thread::scope(|scope| {
            for lane in 0..LANES {
                scope.spawn(move || {
                    for place in (lane..count).step_by(LANES) {
                        let patience = Duration::from_millis((place / LANES % 4) as u64);
                        let _ = self
                            .0
                            .call_raw(CallOptions::timeout(patience), request.clone());
                    }
                });
            }
        });
    }

    fn in_flight(&self) -> usize {
        self.0.in_flight()
    }

    fn stats(&self) -> ClientStats {
        self.0.stats()
    }

    fn close(&self) {
        self.0.close();
    }
}

struct BlockingCall(mpsc::Receiver<Result<Reply, CallError>>);

impl Ongoing for BlockingCall {
    fn end_within(&mut self, limit: Duration) -> Option<Result<Reply, CallError>> {
        match self.0.recv_timeout(limit) {
            Ok(ended) => Some(ended),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("a call does not panic"),
        }
    }
}

struct BlockingServing(Server<Arc<dyn Transport>, Arc<dyn Service>>);

impl Serving for BlockingServing {
    fn stats(&self) -> server::Stats {
        self.0.stats()
    }

    fn ended_within(&mut self, limit: Duration) -> Option<Result<(), TransportError>> {
        self.0.ended(limit)
    }

    fn drain(self: Box<Self>, limit: Duration) -> DrainReport {
        self.0.drain(limit)
    }
}
