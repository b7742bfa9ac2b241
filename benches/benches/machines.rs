//! The machines alone: what a call costs where everything is decided and no I/O is done.
//!
//! `client`: the life of one call in a table where others are pending. `server`: that of one
//! delivery. `both`: a request that goes from one to the other and comes back as a reply.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use rpc_core::proto::CallId;
use rpc_core::proto::client::{Attempt, Calls, Limits, Request};
use rpc_core::proto::server::{
    Accepted, Acceptor, Begun, Ending, Intake, Lane, Policy, Response, Settlement, Verdict,
};
use rpc_core::proto::wire::Reply;
use rpc_core::{AckToken, ConsumerId, Delivery, Generation, Message, ShortString};

/// How many other calls wait for their answer.
const PENDING: [usize; 3] = [0, 1_000, 10_000];

const ARGUMENT: &[u8] = b"30";
const ANSWER: &[u8] = b"832040";

pub(crate) fn define(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("machines");
    group.throughput(Throughput::Elements(1));
    for pending in PENDING {
        let mut caller = Caller::with_pending(pending);
        group.bench_function(BenchmarkId::new("client", pending), |bencher| {
            bencher.iter(|| {
                let (id, request) = caller.call();
                let reply = Message {
                    correlation_id: request.correlation_id,
                    ..Message::new(ANSWER)
                };
                assert_eq!(&caller.take(id, black_box(reply)).body[..], ANSWER);
            });
        });
    }
    // The server keeps no table, so nothing can be pending in it.
    let mut responder = Responder::new();
    let mut caller = Caller::with_pending(0);
    let (_, request) = caller.call();
    group.bench_function(BenchmarkId::new("server", 0), |bencher| {
        bencher.iter(|| {
            let (reply, verdict) = responder.answer(caller.now, black_box(request.clone()));
            assert_eq!(&reply.body[..], ANSWER);
            assert!(matches!(verdict, Verdict::Ack(_)));
        });
    });
    for pending in PENDING {
        let mut caller = Caller::with_pending(pending);
        group.bench_function(BenchmarkId::new("both", pending), |bencher| {
            bencher.iter(|| {
                let (id, request) = caller.call();
                let (reply, verdict) = responder.answer(caller.now, black_box(request));
                assert!(matches!(verdict, Verdict::Ack(_)));
                assert_eq!(&caller.take(id, black_box(reply)).body[..], ANSWER);
            });
        });
    }
    group.finish();
}

/// A client machine and the clock it is driven with.
struct Caller {
    calls: Calls<u64>,
    now: Instant,
    request: Request,
    serial: u64,
}

impl Caller {
    fn with_pending(pending: usize) -> Self {
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
    fn call(&mut self) -> (CallId, Message) {
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
    fn take(&mut self, id: CallId, reply: Message) -> Reply {
        self.calls.handle_publish(id, Ok(()));
        self.calls.handle_reply(Generation::FIRST, reply);
        let ended = self.calls.poll_ended().expect("the call has its reply");
        assert_eq!(ended.waiter, self.serial);
        ended.result.expect("the reply is a result")
    }
}

/// Where a server's deliveries come in, and a handler that knows the answer.
struct Responder {
    intake: Intake,
    consumer: ConsumerId,
    tag: u64,
}

impl Responder {
    fn new() -> Self {
        Self {
            intake: Acceptor::new(Policy::new(ShortString::from_static("rpc_queue")))
                .intake(Lane::Work),
            consumer: ConsumerId::unique(),
            tag: 0,
        }
    }

    /// From the delivery to the verdict, with the reply that went out on the way.
    fn answer(&mut self, now: Instant, message: Message) -> (Message, Verdict) {
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
