//! Clients that keep themselves connected.

use std::time::{Duration, Instant};

use rpc_core::{
    CallError, CallOptions, Certainty, ClientOptions, Code, Generation, LinkState, Reason,
};

use crate::backend::{Backend, Linked};
use crate::steps::{AT_ONCE, SOON, echo, eventually, request};

fn generation(linked: &dyn Linked) -> Option<Generation> {
    match linked.state() {
        LinkState::Up(generation) => Some(generation),
        _ => None,
    }
}

pub(super) fn a_lost_connection_is_replaced(backend: &dyn Backend) {
    let served = backend.with_service(echo());
    let linked = backend.keep_connected(ClientOptions::new(served.queue.clone()));
    let client = linked.caller();
    linked.ready(SOON).expect("there is a broker");
    client.assert_works();
    for _ in 0..3 {
        let before = generation(&*linked).expect("it is connected");
        assert!(linked.lose(), "it was connected");
        eventually("there is another connection", || {
            generation(&*linked).is_some_and(|now| now > before)
        });
        client.assert_works();
    }
    assert_eq!(client.stats().calls.ok, 4);
    assert_eq!(client.in_flight(), 0);
}

pub(super) fn without_a_connection_calls_fail_at_once_and_say_so(backend: &dyn Backend) {
    let served = backend.with_service(echo());
    let linked = backend.keep_connected(ClientOptions::new(served.queue.clone()));
    let client = linked.caller();
    linked.ready(SOON).expect("there is a broker");
    linked.bar(true);
    linked.lose();
    eventually(
        "it has failed to connect",
        || matches!(linked.state(), LinkState::Connecting { failed, .. } if failed > 0),
    );
    let begun = Instant::now();
    let error = client.ask("echo", "hello").expect_err("it is down");
    assert!(begun.elapsed() < AT_ONCE);
    assert_eq!(
        (error.code(), error.reason(), error.certainty()),
        (
            Code::Unavailable,
            Reason::BrokerDown,
            Certainty::NotExecuted
        ),
        "{error:?}"
    );
    let CallError::BrokerDown(cause) = error else {
        panic!("it says why: {error:?}");
    };
    assert!(cause.to_string().contains("barred"), "{cause}");
    let cause = linked
        .ready(Duration::from_millis(1))
        .expect_err("it is down");
    assert!(cause.to_string().contains("barred"), "{cause}");
    linked.bar(false);
    linked.ready(SOON).expect("there is a broker");
    client.assert_works();
}

pub(super) fn a_client_that_is_closed_ends_the_calls_that_wait(backend: &dyn Backend) {
    let options = ClientOptions::new(backend.queue()).with_wait_for_ready(true);
    let linked = backend.keep_connected(options);
    let client = linked.caller();
    linked.ready(SOON).expect("there is a broker");
    let mut nobody_listens = client.begin(CallOptions::default(), request("echo", "hello"));
    eventually("it has found nobody", || client.stats().attempts.failed > 0);
    linked.bar(true);
    linked.lose();
    eventually("it is not connected", || generation(&*linked).is_none());
    let mut no_connection = client.begin(CallOptions::default(), request("echo", "hello"));
    eventually("both wait", || client.in_flight() == 2);
    client.close();
    for call in [&mut nobody_listens, &mut no_connection] {
        let error = call.end().expect_err("its client is closed");
        assert_eq!(error.certainty(), Certainty::NotExecuted, "{error:?}");
    }
    assert_eq!(client.in_flight(), 0);
    assert!(matches!(linked.state(), LinkState::Closed));
}

pub(super) fn a_client_without_a_broker_closes_at_once(backend: &dyn Backend) {
    let linked = backend.keep_connected(ClientOptions::new(backend.queue()));
    linked.bar(true);
    linked.lose();
    let client = linked.caller();
    client.close();
    let error = client.ask("echo", "hello").expect_err("it is closed");
    assert_eq!(error.reason(), Reason::ClientClosed, "{error:?}");
    assert_eq!(error.certainty(), Certainty::NotExecuted);
    linked.ready(SOON).expect_err("it is closed");
    client.close();
}

pub(super) fn a_closed_client_leaves_no_connection(backend: &dyn Backend) {
    let (service, queue) = backend.with_queue();
    let linked = backend.keep_connected(ClientOptions::new(queue.clone()));
    let client = linked.caller();
    linked.ready(SOON).expect("there is a broker");
    let mut call = client.begin(CallOptions::default(), request("", "hello"));
    let inbox = service.take(&queue).reply_to.expect("a call has one");
    client.close();
    let error = call.end().expect_err("its client is closed");
    assert_eq!(error.reason(), Reason::ClientClosed, "{error:?}");
    assert_eq!(error.certainty(), Certainty::MaybeExecuted);
    eventually("its reply address is gone", || {
        service
            .try_send(&inbox, rpc_core::Message::new("late"))
            .is_err()
    });
}
