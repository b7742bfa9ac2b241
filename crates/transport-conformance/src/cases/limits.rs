//! What is over a limit is refused with its reason, on the side whose limit it is.

use std::sync::Arc;

use rpc_core::proto::client::Limits;
use rpc_core::proto::server::Policy;
use rpc_core::{CallError, CallOptions, Certainty, ClientOptions, Code, Reason};

use crate::backend::{Backend, Caller};
use crate::steps::{Gate, SOON, Served, echo, gated, options, policy, request};

fn limited(backend: &dyn Backend, change: impl FnOnce(&mut Policy)) -> Served {
    let (connection, queue) = backend.with_queue();
    let options = options(&queue).with_policy(policy(&queue, change));
    let server = connection.run(echo(), options);
    Served {
        server,
        connection,
        queue,
    }
}

fn caller(served: &Served, change: impl FnOnce(&mut Limits)) -> Arc<dyn Caller> {
    let mut limits = Limits::default();
    change(&mut limits);
    let options = ClientOptions::new(served.queue.clone())
        .with_timeout(SOON)
        .with_limits(limits);
    served.connection.calls_with(options)
}

#[track_caller]
fn assert_too_large(error: &CallError, reason: &Reason, certainty: Certainty) {
    assert_eq!(error.code(), Code::ResourceExhausted, "{error:?}");
    assert_eq!(error.reason(), *reason, "{error:?}");
    assert_eq!(error.certainty(), certainty, "{error:?}");
}

pub(super) fn a_request_over_the_limit_is_not_sent(backend: &dyn Backend) {
    let served = limited(backend, |_| {});
    let client = caller(&served, |limits| limits.max_request = 100);
    let error = client.ask("echo", &"x".repeat(101));
    let error = error.expect_err("it is over the limit");
    assert_too_large(&error, &Reason::MessageTooLarge, Certainty::NotExecuted);
    client.assert_works();
    assert_eq!(served.server.stats().received, 1, "only the second one");
}

pub(super) fn a_request_over_the_limit_of_the_service_is_refused(backend: &dyn Backend) {
    let served = limited(backend, |policy| policy.max_request = 100);
    let client = caller(&served, |_| {});
    let error = client.ask("echo", &"x".repeat(101));
    let error = error.expect_err("it is over the limit");
    assert!(matches!(error, CallError::Remote(_)), "{error:?}");
    assert_too_large(&error, &Reason::MessageTooLarge, Certainty::NotExecuted);
    client.assert_works();
}

pub(super) fn a_reply_over_the_limit_of_the_service_is_refused(backend: &dyn Backend) {
    let served = limited(backend, |policy| policy.max_reply = 100);
    let client = caller(&served, |_| {});
    let error = client.ask("echo", &"x".repeat(101));
    let error = error.expect_err("it is over the limit");
    assert!(matches!(error, CallError::Remote(_)), "{error:?}");
    assert_too_large(&error, &Reason::ReplyTooLarge, Certainty::Executed);
    client.assert_works();
}

pub(super) fn a_reply_over_the_limit_of_the_client_is_not_taken(backend: &dyn Backend) {
    let served = limited(backend, |_| {});
    let client = caller(&served, |limits| limits.max_reply = 100);
    let error = client.ask("echo", &"x".repeat(101));
    let error = error.expect_err("it is over the limit");
    assert_too_large(&error, &Reason::ReplyTooLarge, Certainty::Executed);
    client.assert_works();
}

pub(super) fn bodies_at_the_limit_pass(backend: &dyn Backend) {
    let served = limited(backend, |_| {});
    let client = caller(&served, |_| {});
    let body = "x".repeat(Limits::default().max_request);
    let answer = client.ask("echo", &body).expect("it is at the limit");
    assert!(answer == body);
}

pub(super) fn one_call_too_many_is_refused(backend: &dyn Backend) {
    let gate = Gate::default();
    let _open = gate.opened_at_the_end();
    let served = backend.with_service(gated(&gate));
    let client = caller(&served, |limits| limits.max_in_flight = 2);
    let begin = || client.begin(CallOptions::default(), request("wait", "hello"));
    let calls = [begin(), begin()];
    gate.expect(2);
    let error = client.ask("echo", "too many").expect_err("two are open");
    assert_too_large(&error, &Reason::TooManyInFlight, Certainty::NotExecuted);
    gate.open();
    for mut call in calls {
        assert_eq!(call.end().expect("it is answered"), "hello");
    }
    client.assert_works();
}
