//! What is tried again, and what is not.

use std::time::{Duration, Instant};

use rpc_core::proto::wire;
use rpc_core::{
    CallOptions, Certainty, ClientOptions, Code, HeaderValue, Message, Pushback, Reason,
    ShortString, Status, WhenBlocked,
};

use crate::backend::{Backend, Linked};
use crate::steps::{AT_ONCE, SOON, echo, eventually, options, request};

/// A client that keeps itself connected, and is.
fn connected(
    backend: &dyn Backend,
    queue: &ShortString,
    change: impl FnOnce(ClientOptions) -> ClientOptions,
) -> Box<dyn Linked> {
    let linked = backend.keep_connected(change(ClientOptions::new(queue.clone())));
    linked.ready(SOON).expect("there is a broker");
    linked
}

fn idempotent(options: ClientOptions) -> ClientOptions {
    options.with_idempotent([""])
}

/// An error of the framework, as a reply to this request.
fn refusal(request: &Message, status: &Status) -> Message {
    Message {
        correlation_id: request.correlation_id.clone(),
        kind: Some(wire::REPLY_TYPE),
        ..wire::encode_status(status)
    }
}

fn attempt(message: &Message) -> Option<i64> {
    message
        .headers
        .get(wire::ATTEMPT)
        .and_then(HeaderValue::as_int)
}

pub(super) fn an_idempotent_call_outlives_its_connection_under_one_key(backend: &dyn Backend) {
    let (service, queue) = backend.with_queue();
    let linked = connected(backend, &queue, idempotent);
    let mut call = linked
        .caller()
        .begin(CallOptions::default(), request("", "once"));
    let first = service.take(&queue);
    assert!(linked.lose(), "it was connected");
    let second = service.take(&queue);
    assert_eq!(first.message_id, second.message_id);
    assert_ne!(first.correlation_id, second.correlation_id);
    assert_ne!(first.reply_to, second.reply_to);
    assert_eq!((attempt(&first), attempt(&second)), (None, Some(2)));
    service.answer(&second, second.correlation_id.clone(), "twice");
    assert_eq!(call.end().expect("it is answered"), "twice");
}

pub(super) fn what_may_have_run_is_not_sent_again(backend: &dyn Backend) {
    let (service, queue) = backend.with_queue();
    let linked = connected(backend, &queue, |options| options);
    let client = linked.caller();
    let mut call = client.begin(CallOptions::default(), request("", "once"));
    service.take(&queue);
    linked.lose();
    let error = call.end().expect_err("nobody can tell");
    assert_eq!(error.reason(), Reason::ConnectionLost, "{error:?}");
    assert_eq!(error.certainty(), Certainty::MaybeExecuted);
    assert_eq!(client.in_flight(), 0);
    // The next thing in the queue is another call.
    linked.ready(SOON).expect("there is a broker");
    let mut call = client.begin(CallOptions::default(), request("", "other"));
    let other = service.take(&queue);
    assert_eq!(&other.body[..], b"other");
    service.answer(&other, other.correlation_id.clone(), "done");
    call.end().expect("it is answered");
}

pub(super) fn what_may_have_run_stays_so_whatever_comes_after(backend: &dyn Backend) {
    let (service, queue) = backend.with_queue();
    let linked = connected(backend, &queue, idempotent);
    let client = linked.caller();
    let mut call = client.begin(CallOptions::default(), request("", "once"));
    service.take(&queue);
    linked.lose();
    // The second attempt is certainly not executed; the first may have been.
    let second = service.take(&queue);
    let unknown = Status::framework(Reason::UnknownMethod, "no such method");
    service.reply(&second, refusal(&second, &unknown));
    let error = call.end().expect_err("it was refused");
    assert_eq!(error.certainty(), Certainty::MaybeExecuted, "{error:?}");
}

pub(super) fn a_worker_that_stops_passes_its_requests_on(backend: &dyn Backend) {
    let (service, queue) = backend.with_queue();
    let connection = backend.dial();
    let client = connection.calls(&queue);
    let mut call = client.begin(CallOptions::default(), request("", "here"));
    let first = service.take(&queue);
    let draining = Status::framework(Reason::Draining, "the worker stops");
    service.reply(&first, refusal(&first, &draining));
    let second = service.take(&queue);
    assert_eq!(first.message_id, second.message_id);
    assert_ne!(first.correlation_id, second.correlation_id);
    assert_eq!(attempt(&second), None, "it was not executed");
    service.answer(&second, second.correlation_id.clone(), "there");
    assert_eq!(call.end().expect("it is answered"), "there");
}

pub(super) fn push_back_is_obeyed(backend: &dyn Backend) {
    const WAIT: Duration = Duration::from_millis(200);
    let (service, queue) = backend.with_queue();
    let connection = backend.dial();
    let client = connection.calls(&queue);
    let shed = |pushback| Status::framework(Reason::Shed, "busy").with_pushback(pushback);

    let mut call = client.begin(CallOptions::default(), request("", "now"));
    let first = service.take(&queue);
    let refused = Instant::now();
    service.reply(&first, refusal(&first, &shed(Pushback::After(WAIT))));
    let second = service.take(&queue);
    let waited = refused.elapsed();
    assert!(waited >= WAIT, "it came after {waited:?}");
    assert_eq!(first.message_id, second.message_id);
    service.reply(&second, refusal(&second, &shed(Pushback::Never)));
    let error = call.end().expect_err("it is not to try again");
    assert_eq!(error.reason(), Reason::Shed, "{error:?}");
    assert_eq!(error.certainty(), Certainty::NotExecuted);

    let limit = CallOptions::timeout(SOON);
    let mut call = client.begin(limit, request("", "soon"));
    let request = service.take(&queue);
    let refused = Instant::now();
    service.reply(
        &request,
        refusal(&request, &shed(Pushback::After(SOON * 2))),
    );
    let error = call.end().expect_err("there is no time for that");
    assert_eq!(error.reason(), Reason::Shed, "{error:?}");
    assert!(refused.elapsed() < AT_ONCE, "nobody waits for nothing");
    assert_eq!(client.in_flight(), 0);
}

pub(super) fn a_call_can_wait_for_somebody_to_listen(backend: &dyn Backend) {
    let connection = backend.dial();
    let queue = backend.queue();
    let client = connection.calls(&queue);
    let patient = CallOptions::default().with_wait_for_ready(true);
    let mut call = client.begin(patient, request("echo", "late"));
    eventually("nobody listens", || client.stats().attempts.failed > 0);
    eventually("it waits", || client.in_flight() == 1);
    let service = backend.dial();
    service.make(&queue);
    let _server = service.run(echo(), options(&queue));
    assert_eq!(call.end().expect("somebody listens"), "late");
    assert_eq!(client.in_flight(), 0);
    let stats = client.stats();
    assert_eq!((stats.calls.started, stats.calls.ok), (1, 1), "one call");
    assert_eq!(stats.attempts.ok, 1);
    assert_eq!(stats.attempts.started, stats.attempts.failed + 1);

    let patient = CallOptions::timeout(Duration::from_millis(200)).with_wait_for_ready(true);
    let other = connection.calls(&backend.queue());
    let error = other
        .call(patient, request("echo", "never"))
        .expect_err("nobody ever listens");
    assert_eq!(error.reason(), Reason::NoRoute, "{error:?}");
    assert_eq!(error.certainty(), Certainty::NotExecuted);
}

pub(super) fn a_call_can_wait_for_a_connection(backend: &dyn Backend) {
    let served = backend.with_service(echo());
    let linked = connected(backend, &served.queue, |options| {
        options.with_wait_for_ready(true)
    });
    let client = linked.caller();
    linked.bar(true);
    linked.lose();
    eventually("it is not connected", || {
        linked.ready(Duration::ZERO).is_err()
    });
    let mut call = client.begin(CallOptions::default(), request("echo", "patience"));
    let short = CallOptions::timeout(Duration::from_millis(200));
    let error = client
        .call(short, request("echo", "hurry"))
        .expect_err("there is no connection in time");
    assert_eq!(error.reason(), Reason::BrokerDown, "{error:?}");
    assert_eq!(error.certainty(), Certainty::NotExecuted);
    linked.bar(false);
    assert_eq!(call.end().expect("there is a connection"), "patience");
}

pub(super) fn a_blocked_broker_fails_calls_at_once_where_they_are_not_to_wait(
    backend: &dyn Backend,
) {
    let served = backend.with_service(echo());
    let linked = connected(backend, &served.queue, |options| {
        options.with_when_blocked(WhenBlocked::FailFast)
    });
    let client = linked.caller();
    client.assert_works();
    if !backend.block_publishers(true) {
        return;
    }
    let begun = Instant::now();
    let error = client.ask("echo", "now").expect_err("it is not to wait");
    assert!(begun.elapsed() < AT_ONCE);
    assert_eq!(
        (error.code(), error.reason(), error.certainty()),
        (
            Code::Unavailable,
            Reason::BrokerBlocked,
            Certainty::NotExecuted
        ),
        "{error:?}"
    );
    backend.block_publishers(false);
    eventually("publishers go on", || client.ask("echo", "now").is_ok());
}
