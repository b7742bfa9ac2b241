//! Notices, cancellation and handlers that do not come back.

use super::*;

fn noticing() -> Message {
    let mut message = request();
    let on = crate::HeaderValue::Flag(true);
    message.headers.insert(wire::NOTICES, on).unwrap();
    message
}

fn cancel(id: &'static str) -> Message {
    Message {
        correlation_id: Some(ShortString::from_static(id)),
        kind: Some(wire::CANCEL_TYPE),
        ..Message::default()
    }
}

/// A server with a control inbox, and a request that runs for long enough to be told of.
fn told(now: Instant) -> (Bench, Running, Instant) {
    let server = acceptor();
    let inbox = ShortString::from_static("control");
    server.acceptor.set_control(Some(inbox));
    let (_, mut running) = run(job(server.accept(delivery(now, noticing()))), now);
    let due = running.poll_notice().unwrap();
    assert_eq!(due, now + Duration::from_millis(200));
    let (to, message) = running.notice(due).unwrap();
    assert_eq!(to.routing_key(), &"inbox");
    assert_eq!(message.kind, Some(wire::STARTED_TYPE));
    assert_eq!(message.correlation_id.unwrap(), "42");
    assert_eq!(message.reply_to.unwrap(), "control");
    assert!(running.poll_notice().is_none());
    (server, running, due)
}

#[test]
fn a_caller_that_was_told_where_can_cancel_its_request() {
    let (server, running, now) = told(epoch());
    assert!(!server.acceptor.handle_cancel(&cancel("43")));
    assert!(!running.cancellation().is_cancelled());
    assert!(server.acceptor.handle_cancel(&cancel("42")));
    assert!(running.cancellation().is_cancelled());
    let finished = running.finish(now, Ending::Cancelled);
    assert!(matches!(
        finished.settlement,
        Settlement::Settle(Verdict::Ack(_))
    ));
    assert_eq!(server.stats().cancelled, 1);
}

#[test]
fn a_handler_that_answers_all_the_same_answers_nobody() {
    let (server, running, now) = told(epoch());
    assert!(server.acceptor.handle_cancel(&cancel("42")));
    let finished = running.finish(now, ok("1"));
    assert!(matches!(
        finished.settlement,
        Settlement::Settle(Verdict::Ack(_))
    ));
    assert_eq!((server.stats().cancelled, server.stats().ok), (1, 1));
}

#[test]
fn a_cancellation_that_comes_too_late_changes_nothing() {
    let (server, running, now) = told(epoch());
    let (_, answer, _) = reply(running.finish(now, ok("1")).settlement);
    assert!(!server.acceptor.handle_cancel(&cancel("42")));
    assert_eq!(&decode_reply(answer).unwrap().body[..], b"1");
}

#[test]
fn quick_requests_and_callers_that_do_not_ask_get_no_notice() {
    let now = epoch();
    let server = acceptor();
    let (_, running) = run(job(server.accept(delivery(now, request()))), now);
    assert!(running.poll_notice().is_none(), "it did not ask");
    let (_, mut running) = run(job(server.accept(delivery(now, noticing()))), now);
    let due = running.poll_notice().unwrap();
    assert!(running.notice(due).is_none(), "there is no control inbox");
    assert_eq!(server.stats().noticed, 0);
}

#[test]
fn the_deadline_cancels_and_is_answered() {
    let (server, running, _) = told(epoch());
    running.cancellation().cancel();
    let deadline = running.deadline();
    let status = status(running.finish(deadline, Ending::TimedOut).settlement);
    assert_eq!(status.reason(), Some(&Reason::HandlerTimedOut));
    assert_eq!(server.stats().cancelled, 0);
}

#[test]
fn a_job_that_is_dropped_cancels_its_handler() {
    let (_, running, _) = told(epoch());
    let cancellation = running.cancellation().clone();
    drop(running);
    assert!(cancellation.is_cancelled());
}

#[test]
fn only_so_many_stuck_handlers_are_given_up() {
    let mut policy = policy();
    policy.max_stuck = 2;
    let server = Bench::new(policy);
    let first = server.acceptor.give_up().unwrap();
    let second = server.acceptor.give_up().unwrap();
    assert!(server.acceptor.give_up().is_none());
    assert_eq!((server.acceptor.stuck(), server.stats().stuck), (2, 3));
    drop(first);
    assert!(server.acceptor.give_up().is_some());
    drop(second);
    assert_eq!(server.acceptor.stuck(), 0);
}
