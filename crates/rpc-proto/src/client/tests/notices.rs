//! Who is told that nobody awaits a reply any more; and what a request says to its service.

use super::*;

/// The identities that are told, and where.
fn told(bench: &mut Bench) -> Vec<(Address, CallId)> {
    std::iter::from_fn(|| bench.calls.poll_cancel())
        .map(|(to, message)| {
            assert_eq!(message.kind, Some(wire::CANCEL_TYPE));
            let id = message.correlation_id.unwrap();
            (to, CallId::from_correlation_id(id.as_str()).unwrap())
        })
        .collect()
}

fn worker() -> Address {
    Address::queue(ShortString::from_static("worker"))
}

#[test]
fn a_worker_that_is_known_is_told_at_once() {
    let mut bench = Bench::new();
    bench.start(1).unwrap();
    bench.receive(started(1));
    assert!(bench.ended().is_empty());
    assert!(told(&mut bench).is_empty());
    assert!(!bench.calls.has_cancel());
    assert!(bench.calls.cancel(call_id(1)));
    assert!(bench.calls.has_cancel());
    assert_eq!(told(&mut bench), [(worker(), call_id(1))]);
    assert_eq!(bench.calls.stats().unmatched_replies, 0);
}

#[test]
fn the_worker_of_a_call_that_nobody_needs_any_more_is_told() {
    let mut bench = Bench::new();
    bench.start(1).unwrap();
    bench.receive(started(1));
    bench.calls.give_up(call_id(1));
    assert_eq!(bench.only_error().reason(), Reason::GivenUp);
    assert_eq!(told(&mut bench), [(worker(), call_id(1))]);
}

#[test]
fn a_worker_that_speaks_up_later_is_told_then_and_once() {
    let mut bench = Bench::new();
    bench.start(1).unwrap();
    bench.calls.cancel(call_id(1));
    assert!(told(&mut bench).is_empty());
    bench.receive(started(1));
    bench.receive(started(1));
    assert_eq!(told(&mut bench), [(worker(), call_id(1))]);
    assert_eq!(bench.calls.stats().unmatched_replies, 1);
}

#[test]
fn a_call_that_ends_by_its_deadline_is_given_up_too() {
    let mut bench = Bench::new();
    for id in [1, 2, 3] {
        bench.start(id).unwrap();
    }
    bench.receive(started(1));
    bench.calls.handle_timeout(bench.now + TIMEOUT);
    assert_eq!(told(&mut bench), [(worker(), call_id(1))]);
    bench.receive(started(2));
    assert_eq!(told(&mut bench), [(worker(), call_id(2))]);
}

#[test]
fn nobody_is_told_of_a_call_that_was_answered_or_never_sent() {
    let mut bench = Bench::new();
    for id in [1, 2, 3] {
        bench.start(id).unwrap();
    }
    bench.receive(started(1));
    bench.receive(reply(1));
    bench.receive(started(1));
    bench.calls.handle_publish(call_id(2), Err(lost().unsent()));
    bench.receive(started(2));
    let unsent = TransportError::new(ErrorKind::Timeout, "fake", "publish").unsent();
    bench.calls.handle_publish(call_id(3), Err(unsent));
    bench.receive(started(3));
    assert!(told(&mut bench).is_empty());
}

#[test]
fn a_client_that_is_closed_tells_the_workers_it_knows() {
    let mut bench = Bench::new();
    bench.start(1).unwrap();
    bench.start(2).unwrap();
    bench.receive(started(1));
    bench.calls.close();
    assert_eq!(told(&mut bench), [(worker(), call_id(1))]);
}

#[test]
fn what_is_remembered_of_calls_given_up_is_bounded_and_ends_with_the_connection() {
    let mut bench = Bench::new();
    for id in 0..1025 {
        bench.start(id).unwrap();
        bench.calls.cancel(call_id(id));
    }
    bench.receive(started(0));
    assert!(told(&mut bench).is_empty(), "the oldest is forgotten");
    bench.receive(started(1));
    assert_eq!(told(&mut bench).len(), 1);
    bench.disconnect();
    bench.connect();
    bench.receive(started(2));
    assert!(told(&mut bench).is_empty());
}

#[test]
fn a_notice_without_an_address_and_a_check_of_our_own_do_nothing() {
    let mut bench = Bench::new();
    bench.start(1).unwrap();
    bench.receive(Message {
        reply_to: None,
        ..started(1)
    });
    bench.receive(Message {
        kind: Some(wire::CHECK_TYPE),
        ..Message::default()
    });
    assert_eq!(bench.calls.stats().unmatched_replies, 1);
    bench.calls.cancel(call_id(1));
    assert!(told(&mut bench).is_empty());
}

#[test]
fn a_request_says_how_long_it_has_which_attempt_it_is_and_where_it_comes_from() {
    let mut bench = Bench::new();
    let mut attempt = Attempt::new(call_id(1), bench.now + Duration::from_micros(1_500_001));
    attempt.unix_ms = Some(1_000_000);
    let message = bench
        .calls
        .start(bench.now, Request::default(), attempt.clone(), 1)
        .unwrap();
    let int = |message: &Message, name| message.headers.get(name).and_then(HeaderValue::as_int);
    assert_eq!(int(&message, wire::TIMEOUT_MS), Some(1501));
    assert_eq!(int(&message, wire::DEADLINE_MS), Some(1_001_501));
    assert_eq!(int(&message, wire::ATTEMPT), None);
    assert_eq!(int(&message, wire::HOPS), None);
    let notices = message.headers.get(wire::NOTICES);
    assert_eq!(notices, Some(&HeaderValue::Flag(true)));

    attempt = Attempt::new(call_id(2), bench.now + TIMEOUT);
    (attempt.number, attempt.hops) = (2, 3);
    attempt.message_id = Some(ShortString::from_static("order-7"));
    let message = bench
        .calls
        .start(bench.now, Request::default(), attempt, 2)
        .unwrap();
    assert_eq!(int(&message, wire::ATTEMPT), Some(2));
    assert_eq!(int(&message, wire::HOPS), Some(3));
    assert_eq!(int(&message, wire::DEADLINE_MS), None);
    assert_eq!(message.message_id.unwrap(), "order-7");
    assert_eq!(message.correlation_id, Some(call_id(2).to_correlation_id()));
}
