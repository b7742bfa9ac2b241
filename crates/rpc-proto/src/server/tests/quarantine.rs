//! Requests that may have killed a worker: passed on, run one at a time, given up.

use super::*;

const LIMIT: u32 = 3;

fn server() -> Bench {
    let mut policy = policy();
    let queue = ShortString::from_static("fib.quarantine");
    policy.quarantine = Some(Quarantine::new(queue, LIMIT));
    Bench::new(policy)
}

fn again(now: Instant, message: Message) -> Delivery {
    Delivery {
        redelivered: true,
        ..delivery(now, message)
    }
}

fn counted(count: i64) -> Message {
    let mut message = request();
    message.headers.insert(wire::DELIVERY_COUNT, count).unwrap();
    message
}

fn forward(accepted: Accepted) -> Forward {
    match accepted {
        Accepted::Forward(forward) => *forward,
        other => panic!("not passed on: {other:?}"),
    }
}

#[test]
fn a_suspect_is_passed_on_with_all_that_it_came_with_and_the_time_that_is_left() {
    let now = epoch();
    let server = server();
    let mut message = counted(1);
    message.kind = Some(ShortString::from_static("fib"));
    message.expiration = Some(Expiration::after(Duration::from_secs(10)));
    message.headers.insert("tenant", "blue").unwrap();
    let mut delivery = again(now, message.clone());
    delivery.received_at = now;
    let later = now + Duration::from_secs(4);
    let passed = forward(server.intake.accept(delivery, later, UNIX_MS));
    assert_eq!(passed.to.routing_key(), &"fib.quarantine");
    message.expiration = Some(Expiration::after(Duration::from_secs(6)));
    message.headers.remove(wire::DELIVERY_COUNT);
    assert_eq!(passed.message, message);
    let settled = passed.then.handle_publish(Ok(()));
    assert!(matches!(
        settled,
        Forwarded::Settle(Verdict::Ack(token)) if token.tag() == 7
    ));
    assert_eq!(server.stats().forwarded, 1);
}

#[test]
fn without_a_quarantine_queue_a_suspect_runs_where_it_is() {
    let now = epoch();
    let server = server();
    for (kind, runs) in [
        (ErrorKind::NoRoute, true),
        (ErrorKind::Refused, true),
        (ErrorKind::Closed, false),
        (ErrorKind::Timeout, false),
    ] {
        let passed = forward(server.accept(again(now, request())));
        let error = TransportError::new(kind, "fake", "publish");
        match passed.then.handle_publish(Err(&error)) {
            Forwarded::Run(job) => {
                assert!(runs, "{kind:?}");
                let (_, running) = run(*job, now);
                drop(running.finish(now, ok("1")));
            }
            Forwarded::Settle(verdict) => {
                assert!(!runs && matches!(verdict, Verdict::Requeue(_)), "{kind:?}");
            }
        }
    }
}

#[test]
fn a_suspect_that_is_not_passed_on_goes_back() {
    let now = epoch();
    let server = server();
    let passed = forward(server.accept(again(now, request())));
    server.acceptor.drain();
    let settled = passed.hand_back(now);
    assert!(matches!(settled, Settlement::Settle(Verdict::Requeue(token)) if token.tag() == 7));
    assert_eq!((server.stats().forwarded, server.stats().requeued), (0, 1));
}

#[test]
fn a_suspect_that_comes_too_late_is_not_passed_on() {
    let now = epoch();
    let mut message = request();
    message.expiration = Some(Expiration::after(Duration::from_secs(1)));
    let delivery = again(now, message);
    let later = now + Duration::from_secs(1);
    let refused = settlement(server().intake.accept(delivery, later, UNIX_MS));
    assert_eq!(status(refused).reason(), Some(&Reason::Expired));
}

#[test]
fn a_poison_runs_up_to_the_limit_and_is_dead_lettered_then() {
    let now = epoch();
    let server = server();
    let lane = server.acceptor.intake(Lane::Quarantine);
    for count in 0..LIMIT {
        let first = count == 0;
        let message = if first {
            request()
        } else {
            counted(count.into())
        };
        let delivery = Delivery {
            redelivered: !first,
            ..delivery(now, message)
        };
        let (request, running) = run(job(lane.accept(delivery, now, UNIX_MS)), now);
        assert!(request.redelivered, "it was delivered elsewhere");
        drop(running);
    }
    let last = again(now, counted(LIMIT.into()));
    let (_, message, then) = reply(settlement(lane.accept(last, now, UNIX_MS)));
    let said = decode_reply(message).unwrap_err();
    assert_eq!(said.reason(), Some(&Reason::Poison));
    assert_eq!(
        (said.code(), said.certainty()),
        (Code::Aborted, Certainty::MaybeExecuted)
    );
    assert!(matches!(
        then.handle_publish(Ok(())),
        Verdict::Discard(token) if token.tag() == 7
    ));
    assert_eq!(server.stats().poisoned, 1);
}

#[test]
fn a_poison_that_awaits_no_reply_is_dead_lettered_too() {
    let now = epoch();
    let lane = server().acceptor.intake(Lane::Quarantine);
    let mut message = counted(LIMIT.into());
    message.reply_to = None;
    let settled = settlement(lane.accept(again(now, message), now, UNIX_MS));
    assert!(matches!(settled, Settlement::Settle(Verdict::Discard(_))));
}

#[test]
fn where_deliveries_are_not_counted_the_second_one_is_the_last() {
    let now = epoch();
    let lane = server().acceptor.intake(Lane::Quarantine);
    let refused = settlement(lane.accept(again(now, request()), now, UNIX_MS));
    assert_eq!(status(refused).reason(), Some(&Reason::Poison));
}
