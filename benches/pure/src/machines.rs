//! The machines of both sides, driven by hand: everything is decided, and no I/O is done.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rpc_core::proto::CallId;
use rpc_core::proto::client::{Attempt, Calls, Limits, Request};
use rpc_core::proto::server::{
    Accepted, Acceptor, Begun, Ending, Intake, Lane, Policy, Response, Settlement, Verdict,
};
use rpc_core::proto::wire::Reply;
use rpc_core::{AckToken, ConsumerId, Delivery, Generation, Message, ShortString};

const ARGUMENT: &[u8] = b"30";

/// What every call is answered with.
pub const ANSWER: &[u8] = b"832040";

/// The whole life of one call: its request, the answer, its reply.
///
/// # Panics
///
/// When the machines do not do what they should.
pub fn round_trip(caller: &mut Caller, responder: &mut Responder) {
    let (id, request) = caller.call();
    let (reply, verdict) = responder.answer(caller.now, black_box(request));
    assert!(matches!(verdict, Verdict::Ack(_)));
    assert_eq!(&caller.take(id, black_box(reply)).body[..], ANSWER);
}

/// A client machine and the clock it is driven with.
#[derive(Debug)]
pub struct Caller {
    calls: Calls<u64>,
    /// What it takes for the time.
    pub now: Instant,
    request: Request,
    serial: u64,
}

impl Caller {
    /// Has so many other calls open, all the time.
    #[must_use]
    pub fn with_pending(pending: usize) -> Self {
        let mut limits = Limits::default();
        limits.max_in_flight = pending + 1;
        let mut this = Self {
            calls: Calls::new(limits),
            now: Instant::now(),
            request: Request {
                body: Bytes::from_static(ARGUMENT),
                content_type: Some(ShortString::from_static("text/plain")),
                method: Some(ShortString::from_static("fib")),
                ..Request::default()
            },
            serial: 0,
        };
        // As long as the names that RabbitMQ makes.
        let inbox = ShortString::from_static("amq.gen-JzTY20BRgKO-HjmUJj0wLg");
        this.calls.handle_connect(Generation::FIRST, inbox);
        for _ in 0..pending {
            let (id, _) = this.call();
            this.calls.handle_publish(id, Ok(()));
        }
        assert_eq!(this.calls.in_flight(), pending);
        this
    }

    /// Begins a call, a moment after the one before and with the same timeout, as clients do: its
    /// deadline is the latest of all.
    pub fn call(&mut self) -> (CallId, Message) {
        self.serial += 1;
        self.now += Duration::from_nanos(1);
        // Scattered like random ids, at no cost, and never twice the same: the factor is odd.
        let scattered = u128::from(self.serial).wrapping_mul(SCATTER);
        let id = CallId::from_bits(scattered);
        let mut attempt = Attempt::new(id, self.now + Duration::from_secs(30));
        attempt.unix_ms = Some(1_800_000_000_000);
        let message = self
            .calls
            .start(
                self.now,
                black_box(self.request.clone()),
                attempt,
                self.serial,
            )
            .expect("the table is open and has room for one more");
        (id, message)
    }

    /// The confirm comes, then the reply.
    ///
    /// # Panics
    ///
    /// When the call does not end with it.
    pub fn take(&mut self, id: CallId, reply: Message) -> Reply {
        self.calls.handle_publish(id, Ok(()));
        self.calls.handle_reply(Generation::FIRST, reply);
        let ended = self.calls.poll_ended().expect("the call has its reply");
        assert_eq!(ended.waiter, self.serial);
        ended.result.expect("the reply is a result")
    }
}

/// Where a server's deliveries come in, and a handler that knows the answer.
#[derive(Debug)]
pub struct Responder {
    intake: Intake,
    consumer: ConsumerId,
    tag: u64,
}

impl Default for Responder {
    fn default() -> Self {
        Self {
            intake: Acceptor::new(Policy::new(ShortString::from_static("rpc_queue")))
                .intake(Lane::Work),
            consumer: ConsumerId::unique(),
            tag: 0,
        }
    }
}

impl Responder {
    /// From the delivery to the verdict, with the reply that went out on the way.
    pub fn answer(&mut self, now: Instant, message: Message) -> (Message, Verdict) {
        self.tag += 1;
        let delivery = Delivery {
            message,
            received_at: now,
            redelivered: false,
            token: Some(AckToken::new(self.consumer, self.tag)),
        };
        let Accepted::Job(job) = self.intake.accept(delivery, now, UNIX_MS) else {
            panic!("a request is a job");
        };
        let Begun::Run(request, running) = job.begin(now) else {
            panic!("its deadline is far");
        };
        assert_eq!(&request.body[..], ARGUMENT);
        let response = Response {
            body: Bytes::from_static(ANSWER),
            content_type: request.content_type,
        };
        let Settlement::Reply { message, then, .. } = running
            .finish(now, Ending::Answered(Ok(response)))
            .settlement
        else {
            panic!("the request has a reply address");
        };
        (message, then.handle_publish(Ok(())))
    }
}

/// The time of day, as good as any.
const UNIX_MS: u64 = 1_800_000_000_000;

const SCATTER: u128 = 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835;
