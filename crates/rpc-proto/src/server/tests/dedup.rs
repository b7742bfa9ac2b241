//! The same request again: it joins, or is answered from the store.

use std::sync::Arc;

use super::*;

fn server() -> Bench {
    let mut policy = policy();
    policy.dedup = Some(Arc::new(MemoryDedup::default()));
    Bench::new(policy)
}

/// An attempt at one call, under this correlation id and delivery tag.
fn attempt(now: Instant, id: &'static str, tag: u64) -> Delivery {
    let message = Message {
        correlation_id: Some(ShortString::from_static(id)),
        message_id: Some(ShortString::from_static("m-1")),
        ..request()
    };
    Delivery {
        token: Some(AckToken::new(ConsumerId::unique(), tag)),
        ..delivery(now, message)
    }
}

fn answered(settlement: Settlement, id: &str, tag: u64) -> Message {
    let (_, message, then) = reply(settlement);
    assert_eq!(message.correlation_id.as_ref().unwrap().as_str(), id);
    assert!(matches!(then.handle_publish(Ok(())), Verdict::Ack(token) if token.tag() == tag));
    message
}

#[test]
fn what_was_answered_is_answered_again_and_does_not_run_again() {
    let now = epoch();
    let server = server();
    let (_, running) = run(job(server.accept(attempt(now, "a", 1))), now);
    let first = answered(running.finish(now, ok("1")).settlement, "a", 1);
    let again = Delivery {
        redelivered: true,
        ..attempt(now, "a", 2)
    };
    let second = answered(settlement(server.accept(again)), "a", 2);
    assert_eq!(first, second);
    let third = answered(settlement(server.accept(attempt(now, "b", 3))), "b", 3);
    assert_eq!((first.body, first.headers), (third.body, third.headers));
    assert_eq!((server.stats().ok, server.stats().replayed), (1, 2));
}

#[test]
fn the_error_of_a_handler_is_an_answer_and_a_refusal_is_none() {
    let now = epoch();
    let server = server();
    let (_, running) = run(job(server.accept(attempt(now, "a", 1))), now);
    let unknown = Status::framework(Reason::UnknownMethod, "no such method");
    drop(running.finish(now, Ending::Answered(Err(unknown))));
    let (_, running) = run(job(server.accept(attempt(now, "b", 2))), now);
    drop(running.finish(now, Ending::Answered(Err(Status::out_of_range("187")))));
    let status = status(settlement(server.accept(attempt(now, "c", 3))));
    assert_eq!(status.code(), Code::OutOfRange);
}

#[test]
fn what_comes_while_it_runs_is_answered_together_with_it() {
    let now = epoch();
    let server = server();
    let waiting = job(server.accept(attempt(now, "b", 2)));
    let (_, running) = run(job(server.accept(attempt(now, "a", 1))), now);
    assert!(matches!(
        server.accept(attempt(now, "c", 3)),
        Accepted::Joined
    ));
    assert!(matches!(waiting.begin(now), Begun::Joined));
    let finished = running.finish(now, ok("1"));
    answered(finished.settlement, "a", 1);
    let [third, second] = <[_; 2]>::try_from(finished.joined).unwrap();
    answered(third, "c", 3);
    answered(second, "b", 2);
    assert_eq!((server.stats().ok, server.stats().joined), (1, 2));
}

#[test]
fn a_request_whose_run_was_lost_runs_again() {
    let now = epoch();
    let server = server();
    let (_, running) = run(job(server.accept(attempt(now, "a", 1))), now);
    drop(running);
    let (_, running) = run(job(server.accept(attempt(now, "a", 2))), now);
    answered(running.finish(now, ok("1")).settlement, "a", 2);
}

#[test]
fn requests_of_other_methods_or_without_a_key_are_others() {
    let now = epoch();
    let server = server();
    let mut other = attempt(now, "a", 1);
    other.message.kind = Some(ShortString::from_static("double"));
    let mut without = attempt(now, "a", 1);
    without.message.message_id = None;
    for delivery in [attempt(now, "a", 1), other, without] {
        let (_, running) = run(job(server.accept(delivery)), now);
        drop(running.finish(now, ok("1")));
    }
    assert_eq!(server.stats().ok, 3);
}

#[test]
fn nobody_cancels_what_another_one_awaits() {
    let now = epoch();
    let server = server();
    server
        .acceptor
        .set_control(Some(ShortString::from_static("control")));
    let mut delivery = attempt(now, "a", 1);
    let on = crate::HeaderValue::Flag(true);
    delivery.message.headers.insert(wire::NOTICES, on).unwrap();
    let (_, mut running) = run(job(server.accept(delivery)), now);
    assert!(matches!(
        running.poll(running.poll_timeout()),
        Some(Due::Notice(..))
    ));
    assert!(matches!(
        server.accept(attempt(now, "b", 2)),
        Accepted::Joined
    ));
    let cancel = Message {
        correlation_id: Some(ShortString::from_static("a")),
        kind: Some(wire::CANCEL_TYPE),
        ..Message::default()
    };
    assert!(!server.acceptor.handle_cancel(&cancel));
    assert!(!running.cancellation().is_cancelled());
}
