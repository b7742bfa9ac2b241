//! Who does not run: too many hops, too late by the caller's clock, too many, or nothing begins.

use super::*;

fn with(headers: &[(&str, i64)]) -> Message {
    let mut message = request();
    for (name, value) in headers {
        message.headers.insert(name, *value).unwrap();
    }
    message
}

#[test]
fn a_request_that_has_come_through_too_many_services_ends_here() {
    let now = epoch();
    let server = acceptor();
    let (request, _running) = run(
        job(server.accept(delivery(now, with(&[(wire::HOPS, 8)])))),
        now,
    );
    assert_eq!(request.hops, 8);
    for hops in [9, i64::MAX] {
        let refused = settlement(server.accept(delivery(now, with(&[(wire::HOPS, hops)]))));
        let status = status(refused);
        assert_eq!(status.reason(), Some(&Reason::HopLimit));
        assert_eq!(status.certainty(), Certainty::NotExecuted);
    }
    // What is no number of services has come through none.
    let (request, _running) = run(
        job(server.accept(delivery(now, with(&[(wire::HOPS, -1)])))),
        now,
    );
    assert_eq!(request.hops, 0);
}

#[test]
fn the_time_in_the_queue_counts_when_the_clocks_agree() {
    let now = epoch();
    let unix = i64::try_from(UNIX_MS).unwrap();
    let second = Duration::from_secs(1);
    let left = |timeout: i64, deadline: i64| {
        let headers = [(wire::TIMEOUT_MS, timeout), (wire::DEADLINE_MS, deadline)];
        let waiting = job(acceptor().accept(delivery(now, with(&headers))));
        waiting.deadline() - now
    };
    assert_eq!(left(10_000, unix + 10_000), 10 * second);
    assert_eq!(left(10_000, unix + 4_000), 4 * second);
    assert_eq!(left(10_000, unix - 5_000), Duration::ZERO);
    // The caller's clock runs ahead, by little and by much.
    assert_eq!(left(10_000, unix + 12_000), 10 * second);
    assert_eq!(left(10_000, unix + 3_600_000), 10 * second);
    // And behind by much: its deadline is not believed.
    assert_eq!(left(10_000, unix - 60_001), 10 * second);
    for nonsense in [i64::MIN, -1, 0, i64::MAX] {
        assert_eq!(left(10_000, nonsense), 10 * second, "{nonsense}");
    }
}

#[test]
fn a_clock_that_is_not_believed_is_counted() {
    let now = epoch();
    let server = acceptor();
    let headers = [(wire::TIMEOUT_MS, 1_000), (wire::DEADLINE_MS, 5)];
    let waiting = job(server.accept(delivery(now, with(&headers))));
    assert_eq!(server.stats().skewed, 1);
    drop(waiting);
}

/// A worker whose clock is ahead of its callers' by more than they have time.
#[test]
fn a_clock_by_which_everything_is_overdue_for_a_while_is_not_believed() {
    let start = epoch();
    let server = acceptor();
    let unix = i64::try_from(UNIX_MS).unwrap();
    let expiring = |deadline_ms: i64, expires: bool| {
        let mut message = with(&[(wire::TIMEOUT_MS, 5_000), (wire::DEADLINE_MS, deadline_ms)]);
        message.expiration = expires.then(|| Expiration::after(Duration::from_secs(5)));
        message
    };
    // How much time a request has that comes then; what time of day it is matters no more than how far
    // it is from the hint.
    let left = |second: u64, message: Message| {
        let now = start + Duration::from_secs(second);
        job(server.accept(delivery(now, message))).deadline() - now
    };
    let whole = Duration::from_secs(5);
    let late = |second| left(second, expiring(unix - 20_000, true));
    assert_eq!((late(0), late(9)), (Duration::ZERO, Duration::ZERO));
    // One that came in time: what was late has been held up.
    assert_eq!(left(10, expiring(unix + 5_000, true)), whole);
    assert_eq!((late(11), late(20)), (Duration::ZERO, Duration::ZERO));
    assert_eq!(server.stats().skewed, 0);
    // Nothing else comes.
    assert_eq!((late(21), late(3_600)), (whole, whole));
    assert_eq!(server.stats().skewed, 2);
    // What has no expiration may have waited in its queue, and proves nothing either way.
    assert_eq!(left(3_601, expiring(unix - 20_000, false)), Duration::ZERO);
    assert_eq!(late(3_602), whole);
    // What may have been refused before is refused again.
    let mut again = delivery(start + 721 * whole, expiring(unix - 20_000, true));
    again.redelivered = true;
    let now = again.received_at;
    let refused = status(refused(job(server.accept(again)), now));
    assert_eq!(refused.reason(), Some(&Reason::Expired));
    assert_eq!(refused.certainty(), Certainty::MaybeExecuted);
    // The clocks agree again.
    assert_eq!(left(3_606, expiring(unix + 5_000, true)), whole);
    assert_eq!(late(3_607), Duration::ZERO);
}

#[test]
fn requests_that_wait_for_too_long_are_shed_once_that_stays_so() {
    let now = epoch();
    let server = acceptor();
    let unix = i64::try_from(UNIX_MS).unwrap();
    let headers = [(wire::TIMEOUT_MS, 1_000), (wire::DEADLINE_MS, unix + 1_000)];
    let waiting = |_| job(server.accept(delivery(now, with(&headers))));
    let mut jobs = (0..4).map(waiting).collect::<Vec<_>>().into_iter();
    let mut next = |millis| {
        let at = now + Duration::from_millis(millis);
        jobs.next().unwrap().begin(at)
    };
    assert!(matches!(next(501), Begun::Run(..)));
    assert!(matches!(next(600), Begun::Run(..)));
    let Begun::Settle(shed) = next(601) else {
        panic!("it waited for too long, and so did those before it");
    };
    let status = status(shed);
    assert_eq!(status.reason(), Some(&Reason::Shed));
    assert_eq!(status.certainty(), Certainty::NotExecuted);
    let pushback = crate::Pushback::After(Duration::from_millis(101));
    assert_eq!(status.pushback(), Some(pushback));
    assert_eq!(server.stats().shed, 1);
    // Too late is too late, whatever the load.
    let Begun::Settle(late) = next(1_000) else {
        panic!("its deadline has passed");
    };
    assert_eq!(
        decode_reply(reply(late).1).unwrap_err().reason(),
        Some(&Reason::Expired)
    );
}

#[test]
fn what_was_shed_and_comes_again_does_not_run_elsewhere() {
    let now = epoch();
    let unix = i64::try_from(UNIX_MS).unwrap();
    let headers = [(wire::TIMEOUT_MS, 1_000), (wire::DEADLINE_MS, unix + 1_000)];
    let server = acceptor();
    let again = || {
        let mut again = delivery(now, with(&headers));
        again.redelivered = true;
        job(server.accept(again))
    };
    // Its acknowledgement was lost, and its caller was told that it has not run.
    let shed = status(refused(again(), now + Duration::from_millis(501)));
    assert_eq!(shed.reason(), Some(&Reason::Shed));
    assert_eq!(shed.certainty(), Certainty::MaybeExecuted);
    // It had not waited for so long that anybody could have refused it.
    let (_, running) = run(again(), now + Duration::from_millis(400));
    drop(running);
}

#[test]
fn not_executed_is_not_said_where_another_worker_may_think_otherwise() {
    let now = epoch();
    let unix = i64::try_from(UNIX_MS).unwrap();
    let second = Duration::from_secs(1);
    let expired = |deadline: i64, at: Instant| {
        let headers = [(wire::TIMEOUT_MS, 10_000), (wire::DEADLINE_MS, deadline)];
        let server = acceptor();
        let mut message = with(&headers);
        message.expiration = Some(Expiration::after(10 * second));
        let refused = refused(job(server.accept(delivery(now, message))), at);
        let status = status(refused);
        assert_eq!(status.reason(), Some(&Reason::Expired));
        status.certainty()
    };
    // By the caller's clock, as this worker understands it.
    let certainty = expired(unix + 1_000, now + 2 * second);
    assert_eq!(certainty, Certainty::MaybeExecuted);
    // By the clock of this process: its queue drops it, too.
    let certainty = expired(unix + 10_000, now + 10 * second);
    assert_eq!(certainty, Certainty::NotExecuted);
    // How long it has waited before, nobody knows: its caller does not say, or has a clock that is
    // ahead. Another worker starts to count anew.
    for headers in [
        vec![(wire::TIMEOUT_MS, 1_000)],
        vec![
            (wire::TIMEOUT_MS, 1_000),
            (wire::DEADLINE_MS, unix + 30_000),
        ],
    ] {
        let server = acceptor();
        let waiting = |_| job(server.accept(delivery(now, with(&headers))));
        shed_as_maybe_executed((0..2).map(waiting).collect(), now);
    }
}

fn shed_as_maybe_executed(jobs: Vec<Job>, now: Instant) {
    let mut jobs = jobs.into_iter();
    let mut next = |millis| {
        jobs.next()
            .unwrap()
            .begin(now + Duration::from_millis(millis))
    };
    assert!(matches!(next(600), Begun::Run(..)));
    let Begun::Settle(shed) = next(700) else {
        panic!("it waited for too long, and so did those before it");
    };
    assert_eq!(status(shed).certainty(), Certainty::MaybeExecuted);
}

#[test]
fn after_a_drain_nothing_begins_and_all_goes_to_other_workers() {
    let now = epoch();
    let server = acceptor();
    let waiting = job(server.accept(delivery(now, request())));
    let (_, running) = run(job(server.accept(delivery(now, request()))), now);
    server.acceptor.drain();
    let late = job(server.accept(delivery(now, request())));
    for job in [waiting, late] {
        let settled = refused(job, now);
        assert!(matches!(settled, Settlement::Settle(Verdict::Requeue(_))));
    }
    assert!(matches!(
        running.finish(now, ok("1")).settlement,
        Settlement::Reply { .. }
    ));
    assert_eq!(server.stats().requeued, 2);
}

#[test]
fn what_came_by_a_connection_that_is_lost_does_not_begin() {
    let now = epoch();
    let Bench { acceptor, intake } = acceptor();
    let waiting = job(intake.accept(delivery(now, request()), now, UNIX_MS));
    let (_, running) = run(
        job(intake.accept(delivery(now, request()), now, UNIX_MS)),
        now,
    );
    drop(intake);
    let settled = refused(waiting, now);
    assert!(matches!(settled, Settlement::Settle(Verdict::Requeue(_))));
    // What had begun is finished, and the next connection has an intake of its own.
    drop(running.finish(now, ok("1")));
    let next = acceptor.intake(Lane::Work);
    let (_, running) = run(
        job(next.accept(delivery(now, request()), now, UNIX_MS)),
        now,
    );
    drop(running);
}
