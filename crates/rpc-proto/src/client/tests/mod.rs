//! Tests of the client machine: its rules one by one, then all of them under random interleavings
//! of everything that can happen, with a clock that only moves when told to.

mod budget;
mod check;
mod endings;
mod generations;
mod late;
mod notices;
mod random;
mod retry;

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::*;
use crate::link::{Backoff, Generation, Link};
use crate::wire::{self, Reply};
use crate::{
    Address, CallId, Certainty, Code, ErrorKind, HeaderValue, Message, Origin, Reason, ShortString,
    Status, TransportError,
};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A table, its link, the clock it is driven with, and the waiters that were answered.
struct Bench {
    calls: Calls<u64>,
    link: Link,
    generation: Generation,
    epoch: Instant,
    now: Instant,
}

impl Bench {
    /// Connected.
    fn new() -> Self {
        Self::with(Limits::default())
    }

    /// Connected, with these limits.
    fn with(limits: Limits) -> Self {
        let mut bench = Self::down(limits);
        bench.connect();
        bench
    }

    /// Not connected yet.
    #[expect(clippy::disallowed_methods, reason = "where the fake clock starts")]
    fn down(limits: Limits) -> Self {
        let epoch = Instant::now();
        Self {
            calls: Calls::new(limits),
            link: Link::new(1, Backoff::default(), 0, epoch),
            generation: Generation::default(),
            epoch,
            now: epoch,
        }
    }

    /// The next generation.
    fn connect(&mut self) {
        let later = self.epoch + Duration::from_secs(1 << 20);
        self.link.handle_lost(later, self.generation, lost());
        let _ = self.link.poll(later + Duration::from_secs(60));
        self.generation = self.link.handle_up(later).unwrap();
        let reply_to = ShortString::new(format!("inbox-{}", self.generation)).unwrap();
        self.calls.handle_connect(self.generation, reply_to);
    }

    fn disconnect(&mut self) {
        self.calls.handle_disconnect(self.generation, lost());
    }

    /// A message comes to the present reply address.
    fn receive(&mut self, message: Message) {
        self.calls.handle_reply(self.generation, message);
    }

    fn start(&mut self, id: u64) -> Result<Message, CallError> {
        self.start_with(id, Request::default(), TIMEOUT)
    }

    fn start_with(
        &mut self,
        id: u64,
        request: Request,
        timeout: Duration,
    ) -> Result<Message, CallError> {
        let attempt = Attempt::new(call_id(id), self.now + timeout);
        self.calls.start(self.now, request, attempt, id)
    }

    fn ended(&mut self) -> Vec<(u64, Result<Reply, CallError>)> {
        std::iter::from_fn(|| self.calls.poll_ended())
            .map(|e| (e.waiter, e.result))
            .collect()
    }

    fn only_error(&mut self) -> CallError {
        let mut ended = self.ended();
        assert_eq!(ended.len(), 1, "{ended:?}");
        ended.remove(0).1.unwrap_err()
    }
}

fn call_id(id: u64) -> CallId {
    CallId::from_bits(u128::from(id) << 64 | 0xABCD)
}

fn reply(id: u64) -> Message {
    Message {
        correlation_id: Some(call_id(id).to_correlation_id()),
        ..Message::new(id.to_string())
    }
}

fn lost() -> TransportError {
    TransportError::new(ErrorKind::Closed, "fake", "recv")
}

#[test]
fn a_reply_ends_its_call_and_no_other() {
    let mut bench = Bench::new();
    bench.start(1).unwrap();
    bench.start(2).unwrap();
    bench.receive(reply(2));
    let ended = bench.ended();
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].0, 2);
    assert_eq!(&ended[0].1.as_ref().unwrap().body[..], b"2");
    assert_eq!(bench.calls.in_flight(), 1);
}

#[test]
fn the_request_carries_its_identity_and_the_time_left() {
    let mut bench = Bench::new();
    let request = Request {
        method: Some(ShortString::from_static("fib")),
        ..Request::default()
    };
    let message = bench
        .start_with(1, request, Duration::from_millis(1500))
        .unwrap();
    assert_eq!(message.correlation_id, Some(call_id(1).to_correlation_id()));
    assert_eq!(message.message_id, message.correlation_id);
    assert_eq!(message.reply_to.unwrap(), "inbox-1");
    assert_eq!(message.kind.unwrap(), "fib");
    assert_eq!(message.expiration.unwrap().as_millis(), 1500);
}

#[test]
fn late_duplicate_and_forged_replies_change_nothing_but_a_counter() {
    let mut bench = Bench::new();
    bench.start(1).unwrap();
    bench.receive(reply(1));
    bench.receive(reply(1));
    bench.receive(reply(7));
    bench.receive(Message::new("no id at all"));
    assert_eq!(bench.ended().len(), 1);
    assert_eq!(bench.calls.stats().unmatched_replies, 3);
    assert_eq!(bench.calls.stats().ok, 1);
}

#[test]
fn a_call_without_a_reply_ends_at_its_deadline_and_not_before() {
    let mut bench = Bench::new();
    bench.start(1).unwrap();
    bench.calls.handle_publish(call_id(1), Ok(()));
    assert_eq!(bench.calls.poll_timeout(), Some(bench.now + TIMEOUT));
    bench
        .calls
        .handle_timeout(bench.now + TIMEOUT - Duration::from_nanos(1));
    assert!(bench.ended().is_empty());
    bench.calls.handle_timeout(bench.now + TIMEOUT);
    let error = bench.only_error();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert_eq!(error.reason(), Reason::Unanswered);
    assert_eq!(error.certainty(), Certainty::MaybeExecuted);
    assert_eq!(bench.calls.poll_timeout(), None);
}

#[test]
fn a_deadline_before_the_confirm_says_so() {
    let mut bench = Bench::new();
    bench.start(1).unwrap();
    bench.calls.handle_timeout(bench.now + TIMEOUT);
    assert_eq!(bench.only_error().reason(), Reason::Unconfirmed);
}

#[test]
fn a_returned_request_was_not_executed() {
    let mut bench = Bench::new();
    bench.start(1).unwrap();
    let returned = TransportError::new(ErrorKind::NoRoute, "fake", "publish");
    bench.calls.handle_publish(call_id(1), Err(returned));
    let error = bench.only_error();
    assert_eq!(
        (error.code(), error.reason()),
        (Code::Unavailable, Reason::NoRoute)
    );
    assert_eq!(error.certainty(), Certainty::NotExecuted);
    assert_eq!(error.origin(), Origin::Broker);
}

#[test]
fn a_publish_that_timed_out_is_the_deadline_of_its_call() {
    let timeout = TransportError::new(ErrorKind::Timeout, "fake", "publish");
    for (error, certainty) in [
        (timeout.clone(), Certainty::MaybeExecuted),
        (timeout.unsent(), Certainty::NotExecuted),
    ] {
        let mut bench = Bench::new();
        bench.start(1).unwrap();
        bench.calls.handle_publish(call_id(1), Err(error));
        let error = bench.only_error();
        assert_eq!(
            (error.code(), error.certainty()),
            (Code::DeadlineExceeded, certainty)
        );
    }
}

#[test]
fn a_lost_connection_ends_every_call_and_refuses_the_next() {
    let mut bench = Bench::new();
    bench.start(1).unwrap();
    bench.start(2).unwrap();
    bench.disconnect();
    let ended = bench.ended();
    assert_eq!(ended.len(), 2);
    for (_, result) in ended {
        let error = result.unwrap_err();
        assert_eq!(error.reason(), Reason::ConnectionLost);
        assert_eq!(error.certainty(), Certainty::MaybeExecuted);
    }
    let error = bench.start(3).unwrap_err();
    assert_eq!(error.reason(), Reason::BrokerDown);
    assert_eq!(error.certainty(), Certainty::NotExecuted);
    assert_eq!(bench.calls.poll_timeout(), None);
}

#[test]
fn what_is_refused_at_the_start_opens_nothing() {
    let limits = Limits {
        max_in_flight: 1,
        max_request: 3,
        ..Limits::default()
    };
    let mut bench = Bench::with(limits);
    let long = Request {
        body: Bytes::from_static(b"four"),
        ..Request::default()
    };
    let error = bench.start_with(1, long, TIMEOUT).unwrap_err();
    assert_eq!(
        (error.code(), error.certainty()),
        (Code::ResourceExhausted, Certainty::NotExecuted)
    );
    let error = bench
        .start_with(1, Request::default(), Duration::ZERO)
        .unwrap_err();
    assert_eq!(
        (error.code(), error.certainty()),
        (Code::DeadlineExceeded, Certainty::NotExecuted)
    );
    bench.start(1).unwrap();
    assert_eq!(
        bench.start(2).unwrap_err().reason(),
        Reason::TooManyInFlight
    );
    assert_eq!(bench.calls.in_flight(), 1);
    assert_eq!(bench.calls.stats().started, 1);
}

#[test]
fn an_endless_timeout_is_cut_to_the_limit() {
    let limits = Limits {
        max_timeout: Duration::from_secs(60),
        ..Limits::default()
    };
    let mut bench = Bench::with(limits);
    bench
        .start_with(1, Request::default(), Duration::from_secs(1 << 32))
        .unwrap();
    assert_eq!(
        bench.calls.poll_timeout(),
        Some(bench.now + Duration::from_secs(60))
    );
}

#[test]
fn an_oversized_reply_is_an_error_of_a_call_that_ran() {
    let mut bench = Bench::with(Limits {
        max_reply: 0,
        ..Limits::default()
    });
    bench.start(1).unwrap();
    bench.receive(reply(1));
    let error = bench.only_error();
    assert_eq!(error.reason(), Reason::ReplyTooLarge);
    assert_eq!(error.certainty(), Certainty::Executed);
}

#[test]
fn a_remote_error_keeps_its_code_and_says_whether_the_handler_ran() {
    let framework = Status::framework(Reason::UnknownMethod, "no method \"x\"");
    for (status, certainty) in [
        (Status::out_of_range("187"), Certainty::Executed),
        (framework, Certainty::NotExecuted),
    ] {
        let mut bench = Bench::new();
        bench.start(1).unwrap();
        let mut message = wire::encode_status(&status);
        message.correlation_id = Some(call_id(1).to_correlation_id());
        bench.receive(message);
        let error = bench.only_error();
        assert_eq!(
            (error.code(), error.certainty()),
            (status.code(), certainty)
        );
        assert_eq!(error.to_string(), status.message());
    }
}

/// A worker says that it runs this call.
fn started(id: u64) -> Message {
    Message {
        kind: Some(wire::STARTED_TYPE),
        reply_to: Some(ShortString::from_static("worker")),
        body: Bytes::new(),
        ..reply(id)
    }
}
