//! Every call ends, in time and honestly, whatever becomes of its reply.

use std::time::{Duration, Instant};

use rpc_core::{CallError, CallOptions, Certainty, Code, ErrorKind, Reason};

use crate::backend::Backend;
use crate::steps::{AT_ONCE, Gate, SOON, echo, eventually, gated, request, short};

pub(super) fn a_call_ends_at_its_deadline(backend: &dyn Backend) {
    const LIMIT: Duration = Duration::from_millis(200);
    let gate = Gate::default();
    let _open = gate.opened_at_the_end();
    let served = backend.with_service(gated(&gate));
    let connection = backend.dial();
    let client = connection.calls(&served.queue);
    let begun = Instant::now();
    let ended = client.call(CallOptions::timeout(LIMIT), request("wait", "hello"));
    let took = begun.elapsed();
    assert!(took >= LIMIT, "it waited for {took:?}");
    // 100 ms are promised on a quiet machine, which a test is not on.
    let most = LIMIT + Duration::from_millis(500);
    assert!(took < most, "it took {took:?}");
    let error = ended.expect_err("nobody answers");
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
    assert_eq!(error.reason(), Reason::Unanswered, "{error:?}");
    assert_eq!(error.certainty(), Certainty::MaybeExecuted);
    assert_eq!(client.in_flight(), 0, "its slot is free");
    client.assert_works();
}

pub(super) fn a_late_reply_changes_nothing(backend: &dyn Backend) {
    let (service, queue) = backend.with_queue();
    let connection = backend.dial();
    let client = connection.calls(&queue);
    let patience = CallOptions::timeout(Duration::from_millis(300));
    let mut call = client.begin(patience, request("", "early"));
    let taken = service.take(&queue);
    let error = call.end().expect_err("nobody answers in time");
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
    let stats = client.stats();

    service.answer(&taken, taken.correlation_id.clone(), "late");
    eventually("the late reply is counted", || {
        client.stats().attempts.unmatched_replies == 1
    });
    assert_eq!(client.stats().calls, stats.calls);
    assert_eq!(client.stats().attempts.failed, stats.attempts.failed);

    let mut call = client.begin(CallOptions::default(), request("", "next"));
    let taken = service.take(&queue);
    service.answer(&taken, taken.correlation_id.clone(), "in time");
    assert_eq!(call.end().expect("it is answered"), "in time");
}

pub(super) fn forged_and_repeated_replies_change_nothing(backend: &dyn Backend) {
    let (service, queue) = backend.with_queue();
    let connection = backend.dial();
    let client = connection.calls(&queue);
    let mut call = client.begin(CallOptions::default(), request("", "1"));
    let first = service.take(&queue);
    let forged = short("AAAAAAAAAAAAAAAAAAAAAA");
    service.answer(&first, Some(forged), "forged");
    service.answer(&first, Some(short("1")), "foreign");
    service.answer(&first, None, "nameless");
    service.answer(&first, first.correlation_id.clone(), "right");
    service.answer(&first, first.correlation_id.clone(), "again");
    assert_eq!(call.end().expect("it is answered"), "right");
    eventually("all others are counted", || {
        client.stats().attempts.unmatched_replies == 4
    });

    let mut call = client.begin(CallOptions::default(), request("", "2"));
    let second = service.take(&queue);
    service.answer(&first, first.correlation_id.clone(), "once more");
    service.answer(&second, second.correlation_id.clone(), "next");
    assert_eq!(call.end().expect("it is answered"), "next");
    assert_eq!(client.stats().calls.ok, 2);
    assert_eq!(client.in_flight(), 0);
}

pub(super) fn nobody_listening_is_known_at_once(backend: &dyn Backend) {
    let connection = backend.dial();
    let client = connection.calls(&backend.queue());
    let begun = Instant::now();
    let error = client.ask("echo", "hello").expect_err("nobody listens");
    let took = begun.elapsed();
    assert!(took < AT_ONCE, "it took {took:?}");
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    assert_eq!(error.reason(), Reason::NoRoute, "{error:?}");
    assert_eq!(error.certainty(), Certainty::NotExecuted);
    assert_eq!(client.in_flight(), 0);
    connection.assert_usable();
}

pub(super) fn a_thousand_calls_given_up_leave_nothing(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    let client = connection.calls(&queue);
    client.give_up(1000, &request("echo", "forgotten"));
    assert_eq!(client.in_flight(), 0);
    // Now somebody answers all that were sent and have not expired; nobody waits for those.
    let server = backend.dial();
    let _server = server.run(echo(), crate::steps::options(&queue));
    client.assert_works();
    let stats = client.stats();
    let (calls, attempts) = (stats.calls, stats.attempts);
    assert_eq!((calls.ok, attempts.ok), (1, 1));
    assert_eq!(calls.started, calls.given_up + calls.failed + calls.ok);
    assert_eq!(
        attempts.started,
        attempts.cancelled + attempts.failed + attempts.ok
    );
}

pub(super) fn closing_the_client_ends_its_calls(backend: &dyn Backend) {
    let gate = Gate::default();
    let _open = gate.opened_at_the_end();
    let served = backend.with_service(gated(&gate));
    let connection = backend.dial();
    let client = connection.calls(&served.queue);
    let mut call = client.begin(CallOptions::default(), request("wait", "hello"));
    gate.expect(1);
    client.close();
    let error = call.end().expect_err("its client is closed");
    assert!(matches!(error, CallError::Closed { .. }), "{error:?}");
    assert_eq!(error.certainty(), Certainty::MaybeExecuted);
    let error = client.ask("echo", "late").expect_err("it is closed");
    assert_eq!(error.certainty(), Certainty::NotExecuted, "{error:?}");
    client.close();
    assert_eq!(client.in_flight(), 0);
    connection.assert_usable();
}

pub(super) fn closing_the_transport_ends_its_calls(backend: &dyn Backend) {
    let gate = Gate::default();
    let _open = gate.opened_at_the_end();
    let served = backend.with_service(gated(&gate));
    let connection = backend.dial();
    let client = connection.calls(&served.queue);
    let calls: Vec<_> = (0..3)
        .map(|_| client.begin(CallOptions::default(), request("wait", "hello")))
        .collect();
    gate.expect(3);
    connection.close().expect("it closes");
    for mut call in calls {
        let error = call.end().expect_err("its connection is gone");
        assert_eq!(error.code(), Code::Unavailable, "{error:?}");
        assert_eq!(error.reason(), Reason::ConnectionLost, "{error:?}");
        assert_eq!(error.certainty(), Certainty::MaybeExecuted);
    }
    assert_eq!(client.in_flight(), 0);
    let error = client.ask("echo", "late").expect_err("it is gone");
    assert_eq!(error.certainty(), Certainty::NotExecuted, "{error:?}");
}

pub(super) fn closing_the_transport_ends_its_server(backend: &dyn Backend) {
    let mut served = backend.with_service(echo());
    assert!(
        served.server.ended_within(Duration::ZERO).is_none(),
        "it serves"
    );
    served.connection.close().expect("it closes");
    match served.server.ended_within(SOON) {
        Some(Ok(())) => {}
        Some(Err(error)) => assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}"),
        None => panic!("the server has not noticed"),
    }
    let report = served.server.drain(SOON);
    assert_eq!(report.unfinished, 0);
}
