//! Requests whose replies cost a connection each.

use super::*;

fn again(now: Instant, message: Message) -> Delivery {
    Delivery {
        redelivered: true,
        ..delivery(now, message)
    }
}

fn named(id: &'static str) -> Message {
    Message {
        message_id: Some(ShortString::from_static(id)),
        ..request()
    }
}

fn lost() -> TransportError {
    TransportError::new(ErrorKind::Closed, "fake", "publish")
}

/// Runs it, if it may; and this becomes of its reply. Whether it ran.
fn round(server: &Bench, delivery: Delivery, result: Result<(), &TransportError>) -> bool {
    let now = delivery.received_at;
    let job = match server.accept(delivery) {
        Accepted::Job(job) => job,
        Accepted::Settlement(Settlement::Settle(verdict)) => {
            assert!(matches!(verdict, Verdict::GiveUp(token) if token.tag() == 7));
            return false;
        }
        other => panic!("{other:?}"),
    };
    let (_, running) = run(job, now);
    let (_, _, then) = reply(running.finish(now, ok("1")).settlement);
    let verdict = then.handle_publish(result);
    assert_eq!(matches!(verdict, Verdict::Requeue(_)), result.is_err());
    true
}

#[test]
fn a_request_whose_reply_costs_a_connection_each_time_is_not_run_for_ever() {
    let now = epoch();
    let without = |change: fn(&mut Message)| {
        let mut message = request();
        change(&mut message);
        message
    };
    for message in [
        named("m-1"),
        without(|_| {}),
        without(|message| message.correlation_id = None),
    ] {
        let server = acceptor();
        assert!(round(&server, delivery(now, message.clone()), Err(&lost())));
        for _ in 0..3 {
            assert!(round(&server, again(now, message.clone()), Err(&lost())));
        }
        for given_up in 1..4 {
            assert!(!round(&server, again(now, message.clone()), Ok(())));
            assert_eq!(server.stats().undeliverable, given_up);
        }
        assert_eq!((server.stats().ok, server.stats().requeued), (4, 4));
    }
}

#[test]
fn a_reply_that_is_confirmed_takes_the_strikes_away() {
    let now = epoch();
    let server = acceptor();
    let broken = lost();
    let results = [Err(&broken), Err(&broken), Ok(())].into_iter().cycle();
    for result in results.take(12) {
        assert!(round(&server, again(now, named("m-1")), result));
    }
}

#[test]
fn a_reply_that_never_went_out_has_not_ended_the_connection() {
    let now = epoch();
    let server = acceptor();
    let unsent = lost().unsent();
    for _ in 0..12 {
        assert!(round(&server, again(now, named("m-1")), Err(&unsent)));
    }
}

#[test]
fn strikes_are_against_one_request_of_one_caller() {
    let now = epoch();
    let server = acceptor();
    while round(&server, again(now, named("m-1")), Err(&lost())) {}
    let mut elsewhere = named("m-1");
    elsewhere.reply_to = Some(ShortString::from_static("inbox-2"));
    for other in [named("m-2"), elsewhere] {
        assert!(round(&server, again(now, other), Ok(())));
    }
    // One that was not delivered before is not even looked up.
    assert!(round(&server, delivery(now, named("m-1")), Ok(())));
}

#[test]
fn a_refusal_that_costs_the_connection_counts_too() {
    let now = epoch();
    let server = acceptor();
    let long = || Message {
        body: Bytes::from(vec![b'1'; 101]),
        ..named("m-1")
    };
    for _ in 0..3 {
        let (_, _, then) = reply(settlement(server.accept(again(now, long()))));
        assert!(matches!(
            then.handle_publish(Err(&lost())),
            Verdict::Requeue(_)
        ));
    }
    let settled = settlement(server.accept(again(now, long())));
    assert!(matches!(settled, Settlement::Settle(Verdict::GiveUp(_))));
}

#[test]
fn poison_that_cannot_be_told_to_its_caller_is_rejected_all_the_same() {
    let now = epoch();
    let mut policy = policy();
    policy.quarantine = Some(Quarantine::new(ShortString::from_static("quarantine"), 2));
    let server = Bench::new(policy);
    let lane = server.acceptor.intake(Lane::Quarantine);
    let delivered = |count: i64| {
        let mut message = named("m-1");
        let _ = message.headers.insert(wire::DELIVERY_COUNT, count);
        lane.accept(again(now, message), now, UNIX_MS)
    };
    for count in 2..5 {
        let (_, _, then) = reply(settlement(delivered(count)));
        let verdict = then.handle_publish(Err(&lost()));
        assert!(matches!(verdict, Verdict::Requeue(_)));
    }
    let settled = settlement(delivered(5));
    assert!(matches!(settled, Settlement::Settle(Verdict::Discard(token)) if token.tag() == 7));
    // Another copy, which has not been delivered often enough.
    let settled = settlement(delivered(1));
    assert!(matches!(settled, Settlement::Settle(Verdict::GiveUp(token)) if token.tag() == 7));
}
