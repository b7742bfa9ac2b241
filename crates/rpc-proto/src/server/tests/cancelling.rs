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
    let due = running.poll_timeout();
    assert_eq!(due, now + Duration::from_millis(200));
    let just_before = due.checked_sub(Duration::from_nanos(1)).unwrap();
    assert!(running.poll(just_before).is_none());
    let Some(Due::Notice(to, message)) = running.poll(due) else {
        panic!("a notice is due");
    };
    assert_eq!(to.routing_key(), &"inbox");
    assert_eq!(message.kind, Some(wire::STARTED_TYPE));
    assert_eq!(message.correlation_id.unwrap(), "42");
    assert_eq!(message.reply_to.unwrap(), "control");
    assert!(running.poll(due).is_none(), "once");
    assert_eq!(running.poll_timeout(), running.deadline());
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
    assert_eq!(running.poll_timeout(), running.deadline(), "it did not ask");
    let (_, mut running) = run(job(server.accept(delivery(now, noticing()))), now);
    let due = running.poll_timeout();
    assert!(running.poll(due).is_none(), "there is no control inbox");
    assert_eq!(running.poll_timeout(), running.deadline());
    assert_eq!(server.stats().noticed, 0);
}

#[test]
fn the_deadline_cancels_and_a_moment_later_the_handler_is_given_up() {
    let (server, mut running, _) = told(epoch());
    let deadline = running.deadline();
    assert!(running.poll(deadline).is_none(), "it may come back");
    assert!(running.cancellation().is_cancelled());
    let last = running.poll_timeout();
    assert_eq!(last, deadline + Running::GRACE);
    for _ in 0..2 {
        assert!(matches!(running.poll(last), Some(Due::GiveUp)));
    }
    let status = status(running.finish(last, Ending::TimedOut).settlement);
    assert_eq!(status.reason(), Some(&Reason::HandlerTimedOut));
    assert_eq!(server.stats().cancelled, 0);
}

#[test]
fn a_clock_that_is_asked_late_tells_nobody_any_more() {
    let server = acceptor();
    let inbox = ShortString::from_static("control");
    server.acceptor.set_control(Some(inbox));
    let now = epoch();
    let (_, mut running) = run(job(server.accept(delivery(now, noticing()))), now);
    let late = running.deadline() + Running::GRACE;
    assert!(matches!(running.poll(late), Some(Due::GiveUp)));
    assert!(running.cancellation().is_cancelled());
    assert_eq!(server.stats().noticed, 0);
}

#[test]
fn a_handler_that_was_stopped_was_stopped_by_its_caller_or_by_the_clock() {
    let (server, mut running, now) = told(epoch());
    // By the clock, which runs a little ahead of that of whoever finishes it.
    assert!(running.poll(running.deadline()).is_none());
    let answered = status(running.finish(now, Ending::Cancelled).settlement);
    assert_eq!(answered.reason(), Some(&Reason::HandlerTimedOut));
    // By the clock of its own driver, before ours has come round.
    let (_, running, _) = told(epoch());
    let deadline = running.deadline();
    let answered = status(running.finish(deadline, Ending::Cancelled).settlement);
    assert_eq!(answered.reason(), Some(&Reason::HandlerTimedOut));
    assert_eq!(server.stats().cancelled, 0);
    // By its caller, who is not there to be answered, even if the deadline passes meanwhile.
    let (server, mut running, _) = told(epoch());
    assert!(server.acceptor.handle_cancel(&cancel("42")));
    assert!(running.poll(running.deadline()).is_none());
    let finished = running.finish(deadline, Ending::Cancelled);
    assert!(matches!(
        finished.settlement,
        Settlement::Settle(Verdict::Ack(_))
    ));
    assert_eq!(server.stats().cancelled, 1);
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

#[test]
fn an_error_of_a_handler_that_comes_after_its_deadline_says_that_the_deadline_passed() {
    let error = || Ending::Answered(Err(Status::out_of_range("stopped")));
    // The clock has told it to stop.
    let (server, mut running, now) = told(epoch());
    assert!(running.poll(running.deadline()).is_none());
    let answered = status(running.finish(now, error()).settlement);
    assert_eq!(answered.reason(), Some(&Reason::HandlerTimedOut));
    assert_eq!(answered.certainty(), Certainty::Executed);
    assert_eq!(server.stats().failed, 1);
    // It has looked at the time itself.
    let (_, running, _) = told(epoch());
    let deadline = running.deadline();
    let answered = status(running.finish(deadline, error()).settlement);
    assert_eq!(answered.reason(), Some(&Reason::HandlerTimedOut));
    // In time it is its own.
    let (_, running, now) = told(epoch());
    let answered = status(running.finish(now, error()).settlement);
    assert_eq!(answered.code(), Code::OutOfRange);
    // A result is a result, and what did not run did not run.
    let (_, running, _) = told(epoch());
    let (_, answer, _) = reply(running.finish(deadline, ok("1")).settlement);
    assert_eq!(&decode_reply(answer).unwrap().body[..], b"1");
    let (_, running, _) = told(epoch());
    let unknown = Status::framework(Reason::UnknownMethod, "no such method");
    let refused = running.finish(deadline, Ending::Answered(Err(unknown)));
    let refused = status(refused.settlement);
    assert_eq!(refused.reason(), Some(&Reason::UnknownMethod));
}
