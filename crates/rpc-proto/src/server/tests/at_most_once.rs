//! At most once: acknowledged, then run, and never put back.

use super::*;

fn server() -> Bench {
    let mut policy = policy();
    policy.guarantee = Guarantee::AtMostOnce;
    Bench::new(policy)
}

fn ack_first(job: Job, now: Instant) -> (AckToken, AfterAck) {
    match job.begin(now) {
        Begun::AckFirst(token, then) => (token, then),
        other => panic!("not acknowledged first: {other:?}"),
    }
}

#[test]
fn the_acknowledgement_goes_out_before_the_handler_runs() {
    let now = epoch();
    let server = server();
    let (token, then) = ack_first(job(server.accept(delivery(now, request()))), now);
    assert_eq!(token.tag(), 7);
    let (_, running) = then.handle_ack(now, Ok(())).unwrap();
    let (_, _, then) = reply(running.finish(now, ok("1")).settlement);
    assert!(matches!(then.handle_publish(Ok(())), Verdict::Settled));
}

#[test]
fn without_its_acknowledgement_it_does_not_run_and_nobody_is_answered() {
    let now = epoch();
    let server = server();
    let (_, then) = ack_first(job(server.accept(delivery(now, request()))), now);
    let lost = TransportError::new(ErrorKind::Closed, "fake", "ack");
    let left = then.handle_ack(now, Err(&lost)).unwrap_err();
    assert!(left.is_empty());
    assert_eq!(server.stats().unacknowledged, 1);
}

#[test]
fn a_reply_that_fails_does_not_put_the_request_back() {
    let now = epoch();
    let server = server();
    let (_, then) = ack_first(job(server.accept(delivery(now, request()))), now);
    let (_, running) = then.handle_ack(now, Ok(())).unwrap();
    let (_, _, then) = reply(running.finish(now, ok("1")).settlement);
    let lost = TransportError::new(ErrorKind::Closed, "fake", "publish");
    assert!(matches!(then.handle_publish(Err(&lost)), Verdict::Settled));
    assert_eq!(
        (server.stats().requeued, server.stats().undeliverable),
        (0, 1)
    );
}

#[test]
fn what_may_have_run_does_not_run_again() {
    let now = epoch();
    let again = Delivery {
        redelivered: true,
        ..delivery(now, request())
    };
    let status = status(settlement(server().accept(again)));
    assert_eq!(status.reason(), Some(&Reason::Redelivered));
    assert_eq!(status.certainty(), Certainty::MaybeExecuted);
}

#[test]
fn a_worker_that_stops_says_that_it_has_not_begun() {
    let now = epoch();
    let server = server();
    let waiting = job(server.accept(delivery(now, request())));
    server.acceptor.drain();
    let status = status(refused(waiting, now));
    assert_eq!(status.reason(), Some(&Reason::Draining));
    assert_eq!(status.certainty(), Certainty::NotExecuted);
}
