//! What cases are made of: short steps that fail with a sentence, and waits that end.

use std::num::{NonZeroU16, NonZeroUsize};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rpc_core::proto::client::Request;
use rpc_core::proto::server::{Policy, Stats};
use rpc_core::{
    Address, CallError, CallOptions, ClientOptions, Confirm, ConsumeOptions, Delivery, ErrorKind,
    Inbox, Message, QueueKind, QueueSpec, Router, ServerOptions, Service, ShortString,
    TransportError,
};

use crate::backend::{Backend, Caller, Connection, Ongoing, Received, Receiver, Serving};

/// A verb returns within ten seconds of its own accord; the rest is for a busy machine.
pub(crate) const VERB_LIMIT: Duration = Duration::from_secs(15);

/// How long a case waits for what must happen.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// What takes a round trip takes less than this, even on a busy machine.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(1);

/// A name that no queue has.
pub(crate) fn fresh_name() -> ShortString {
    let name = format!("conformance-{}", uuid::Uuid::new_v4().simple());
    // 44 bytes.
    ShortString::new(name).unwrap_or_default()
}

/// A short string of a case.
pub(crate) fn short(text: impl AsRef<str>) -> ShortString {
    ShortString::new(text).expect("the texts of a case are short")
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Asserts that `verb` failed as it should.
#[track_caller]
pub(crate) fn fails_with<T>(verb: &str, outcome: Result<T, TransportError>, kind: ErrorKind) {
    match outcome {
        Ok(_) => panic!("`{verb}` succeeded, and should have failed with {kind:?}"),
        Err(error) => assert_eq!(error.kind(), kind, "`{verb}` failed otherwise: {error:?}"),
    }
}

impl dyn Backend + '_ {
    /// A connection, or the end of the case.
    #[track_caller]
    pub(crate) fn dial(&self) -> Box<dyn Connection> {
        self.connect()
            .unwrap_or_else(|error| panic!("cannot connect: {error:?}"))
    }

    /// A connection, and a queue that is declared.
    #[track_caller]
    pub(crate) fn with_queue(&self) -> (Box<dyn Connection>, ShortString) {
        let (connection, queue) = (self.dial(), self.queue());
        connection.make(&queue);
        (connection, queue)
    }

    /// A connection with a server of `service`, and the name of its queue.
    #[track_caller]
    pub(crate) fn with_service(&self, service: impl Service) -> Served {
        let (connection, queue) = self.with_queue();
        let server = connection.run(service, options(&queue));
        Served {
            server,
            connection,
            queue,
        }
    }
}

/// A server, its connection and its queue.
pub(crate) struct Served {
    pub(crate) server: Box<dyn Serving>,
    pub(crate) connection: Box<dyn Connection>,
    pub(crate) queue: ShortString,
}

impl dyn Connection + '_ {
    /// Declares a work queue.
    #[track_caller]
    pub(crate) fn make(&self, queue: &ShortString) {
        self.declare(&QueueSpec::new(queue.clone(), QueueKind::Durable))
            .unwrap_or_else(|error| panic!("cannot declare: {error:?}"));
    }

    /// Hands a message over; the verdict is still to come.
    #[track_caller]
    pub(crate) fn post(&self, queue: &ShortString, message: Message) -> Confirm {
        self.publish(
            &Address::queue(queue.clone()),
            message,
            Instant::now() + SOON,
        )
        .unwrap_or_else(|error| panic!("cannot publish: {error:?}"))
    }

    /// Publishes, and returns the verdict.
    #[track_caller]
    pub(crate) fn try_send(
        &self,
        queue: &ShortString,
        message: Message,
    ) -> Result<(), TransportError> {
        let confirm = self.post(queue, message);
        self.verdict(confirm, SOON)
    }

    /// Publishes, and waits until the broker has the message.
    #[track_caller]
    pub(crate) fn send(&self, queue: &ShortString, message: Message) {
        self.try_send(queue, message)
            .unwrap_or_else(|error| panic!("the broker did not take the message: {error:?}"));
    }

    /// Publishes messages of these bodies, in order.
    #[track_caller]
    pub(crate) fn send_all(&self, queue: &ShortString, bodies: &[&'static str]) {
        for body in bodies {
            self.send(queue, Message::new(*body));
        }
    }

    /// A consumer of a work queue.
    #[track_caller]
    pub(crate) fn receive(&self, queue: &ShortString, prefetch: u16) -> Box<dyn Receiver> {
        let prefetch = NonZeroU16::new(prefetch).expect("a prefetch is not zero");
        self.consume(ConsumeOptions::queue(queue.clone(), prefetch))
            .unwrap_or_else(|error| panic!("cannot consume: {error:?}"))
    }

    /// A service written by hand: it takes the next request of its queue.
    #[track_caller]
    pub(crate) fn take(&self, queue: &ShortString) -> Message {
        let delivery = self.receive(queue, 1).next();
        let request = delivery.message.clone();
        self.settle(delivery);
        request
    }

    /// And answers a request with a text.
    #[track_caller]
    pub(crate) fn answer(&self, request: &Message, id: Option<ShortString>, body: &str) {
        let reply = Message {
            correlation_id: id,
            ..Message::new(body.to_owned())
        };
        self.reply(request, reply);
    }

    /// And answers a request with this message.
    #[track_caller]
    pub(crate) fn reply(&self, request: &Message, reply: Message) {
        let to = request.reply_to.as_ref();
        self.send(to.expect("a call has a reply address"), reply);
    }

    /// A consumer of an inbox.
    #[track_caller]
    pub(crate) fn inbox(&self) -> Box<dyn Receiver> {
        self.consume(ConsumeOptions::inbox(Inbox::Exclusive))
            .unwrap_or_else(|error| panic!("cannot open an inbox: {error:?}"))
    }

    /// Acknowledges a delivery.
    #[track_caller]
    pub(crate) fn settle(&self, delivery: Delivery) {
        let token = delivery.token.expect("a delivery of a queue has a token");
        self.ack(token)
            .unwrap_or_else(|error| panic!("cannot acknowledge: {error:?}"));
    }

    /// A server.
    #[track_caller]
    pub(crate) fn run(&self, service: impl Service, options: ServerOptions) -> Box<dyn Serving> {
        self.serve(Arc::new(service), options)
            .unwrap_or_else(|error| panic!("cannot serve: {error:?}"))
    }

    /// A client of the service on this queue.
    #[track_caller]
    pub(crate) fn calls(&self, queue: &ShortString) -> Arc<dyn Caller> {
        self.calls_with(ClientOptions::new(queue.clone()).with_timeout(SOON))
    }

    /// A client.
    #[track_caller]
    pub(crate) fn calls_with(&self, options: ClientOptions) -> Arc<dyn Caller> {
        self.client(options)
            .unwrap_or_else(|error| panic!("cannot make a client: {error:?}"))
    }

    /// Asserts that this transport still does everything.
    #[track_caller]
    pub(crate) fn assert_usable(&self) {
        let queue = fresh_name();
        self.make(&queue);
        let mut receiver = self.receive(&queue, 1);
        self.send(&queue, Message::new("still here"));
        let delivery = receiver.next();
        assert_eq!(delivery.message.body, "still here");
        self.settle(delivery);
    }
}

impl dyn Receiver + '_ {
    /// The next delivery, which must come.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Delivery {
        match self.recv_within(SOON) {
            Received::Delivery(delivery) => delivery,
            other => panic!("a delivery was due, and there was {other:?}"),
        }
    }

    /// The next delivery, which must have this body.
    #[track_caller]
    pub(crate) fn expect(&mut self, body: &str) -> Delivery {
        let delivery = self.next();
        assert_eq!(text(&delivery), body);
        delivery
    }

    /// Asserts that the consumer ends, as one that was ended on this side.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        match self.recv_within(SOON) {
            Received::Ended => {}
            other => panic!("the consumer should have ended, and there was {other:?}"),
        }
    }
}

impl dyn Ongoing + '_ {
    /// The end of the call, which must come.
    #[track_caller]
    pub(crate) fn end(&mut self) -> Result<String, CallError> {
        let ended = self.end_within(VERB_LIMIT).expect("every call ends");
        ended.map(|reply| String::from_utf8_lossy(&reply.body).into_owned())
    }
}

impl dyn Caller + '_ {
    /// Calls with text and returns text.
    pub(crate) fn ask(&self, method: &str, body: &str) -> Result<String, CallError> {
        let reply = self.call(CallOptions::default(), request(method, body))?;
        Ok(String::from_utf8_lossy(&reply.body).into_owned())
    }

    /// Asserts that calls work.
    #[track_caller]
    pub(crate) fn assert_works(&self) {
        assert_eq!(
            self.ask("echo", "still here").expect("the next call works"),
            "still here"
        );
    }
}

/// The body of a delivery, as text.
pub(crate) fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.message.body).into_owned()
}

/// A request with a text.
pub(crate) fn request(method: &str, body: &str) -> Request {
    Request {
        body: bytes::Bytes::copy_from_slice(body.as_bytes()),
        content_type: Some(rpc_core::proto::wire::TEXT),
        method: Some(short(method)),
        ..Request::default()
    }
}

/// Options of a server on this queue: four handlers at once.
pub(crate) fn options(queue: &ShortString) -> ServerOptions {
    let spec = QueueSpec::new(queue.clone(), QueueKind::Durable);
    ServerOptions::new(spec).with_concurrency(NonZeroUsize::new(4).expect("four"))
}

/// Options of a server that runs one handler at a time, and holds `prefetch` requests.
pub(crate) fn one_at_a_time(queue: &ShortString, prefetch: u16) -> ServerOptions {
    options(queue)
        .with_concurrency(NonZeroUsize::MIN)
        .with_prefetch(NonZeroU16::new(prefetch).expect("a prefetch is not zero"))
}

/// The policy of a server on this queue.
pub(crate) fn policy(queue: &ShortString, change: impl FnOnce(&mut Policy)) -> Policy {
    let mut policy = Policy::new(queue.clone());
    change(&mut policy);
    policy
}

/// The service that most cases call.
pub(crate) fn echo() -> Router {
    Router::new()
        .handle("echo", |text: String| Ok(text))
        .default_method("echo")
}

/// The echo, and a method `wait` that answers what it was given once the gate is open.
pub(crate) fn gated(gate: &Gate) -> Router {
    let gate = gate.clone();
    echo().handle_blocking("wait", move |text: String| {
        gate.pass();
        Ok(text)
    })
}

/// The replies of a server that were confirmed, once there are `count` of them.
#[track_caller]
pub(crate) fn replied(server: &dyn Serving, count: u64) -> Stats {
    eventually("the replies are confirmed", || {
        server.stats().replied == count
    });
    server.stats()
}

/// Holds handlers until it is opened; it counts who has come.
///
/// Opened when its owner goes, and by itself after a while, so that a failed case leaves no handler
/// behind.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<(bool, usize)>, Condvar)>);

impl Gate {
    /// Waits for the gate to open.
    pub(crate) fn pass(&self) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 += 1;
        let closed = |state: &mut (bool, usize)| !state.0;
        drop(changed.wait_timeout_while(state, VERB_LIMIT, closed));
    }

    /// Lets everybody pass, from now on.
    pub(crate) fn open(&self) {
        let (state, changed) = &*self.0;
        state.lock().unwrap_or_else(PoisonError::into_inner).0 = true;
        changed.notify_all();
    }

    /// Waits until `count` have come.
    #[track_caller]
    pub(crate) fn expect(&self, count: usize) {
        eventually("the handlers have begun", || self.come() >= count);
    }

    /// How many have come.
    pub(crate) fn come(&self) -> usize {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Opens the gate when the result goes out of scope.
    pub(crate) fn opened_at_the_end(&self) -> OpenedAtTheEnd {
        OpenedAtTheEnd(self.clone())
    }
}

/// Opens a gate when it is dropped.
pub(crate) struct OpenedAtTheEnd(Gate);

impl Drop for OpenedAtTheEnd {
    fn drop(&mut self) {
        self.0.open();
    }
}
