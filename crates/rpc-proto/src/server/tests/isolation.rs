//! Who may begin beside whom in a process that a request may kill.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use super::super::isolation::Isolation;
use super::*;

/// Turns of one server, asked for at times of the test's choice.
struct Floor {
    isolation: Arc<Isolation>,
    start: Instant,
}

impl Floor {
    fn of(handlers: usize) -> Self {
        let isolation = Arc::new(Isolation::new());
        isolation.limit(handlers);
        Self {
            isolation,
            start: epoch(),
        }
    }

    fn arrive(&self, part: Part) -> Turn {
        self.isolation.arrive(part)
    }

    /// When to ask again, in milliseconds from the start; none where it has begun. Its deadline is
    /// a minute off.
    fn ask(&self, turn: &mut Turn, ms: u64) -> Option<u64> {
        self.ask_due(turn, ms, 60_000)
    }

    fn ask_due(&self, turn: &mut Turn, ms: u64, deadline: u64) -> Option<u64> {
        let at = |ms| self.start + Duration::from_millis(ms);
        let again = turn.poll_begin(at(ms), at(deadline))?;
        Some(again.duration_since(self.start).as_millis() as u64)
    }

    fn begun(&self, part: Part, ms: u64) -> Turn {
        let mut turn = self.arrive(part);
        assert_eq!(self.ask(&mut turn, ms), None, "{part:?} waits");
        turn
    }
}

fn has_changed(turn: &Turn) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    pin!(turn.changed()).poll(&mut context).is_ready()
}

#[test]
fn ordinary_work_runs_beside_other_work_at_once() {
    let floor = Floor::of(1);
    let all = [floor.begun(Part::Work, 0), floor.begun(Part::Work, 0)];
    drop(all);
    drop(floor.begun(Part::Suspect, 0));
}

#[test]
fn no_work_begins_until_what_is_passed_on_is_acknowledged_for_certain() {
    let floor = Floor::of(16);
    let forward = floor.begun(Part::Forward, 0);
    let mut work = floor.arrive(Part::Work);
    assert_eq!(floor.ask(&mut work, 0), Some(500));
    assert!(!has_changed(&work));
    drop(forward);
    assert!(has_changed(&work));
    assert_eq!(floor.ask(&mut work, 100), Some(150), "the ack is not out");
    assert_eq!(floor.ask(&mut work, 149), Some(150));
    assert_eq!(floor.ask(&mut work, 150), None);
    // Nothing is left to look out for.
    drop(floor.begun(Part::Work, 150));
}

#[test]
fn nothing_is_passed_on_while_work_runs_that_may_kill_and_none_begins_before_it() {
    let floor = Floor::of(16);
    let running = floor.begun(Part::Work, 0);
    let mut forward = floor.arrive(Part::Forward);
    assert_eq!(floor.ask(&mut forward, 0), Some(500));
    let mut work = floor.arrive(Part::Work);
    assert!(floor.ask(&mut work, 1).is_some());
    drop(running);
    assert!(has_changed(&forward));
    assert_eq!(floor.ask(&mut forward, 2), None);
    // The next ones go along.
    drop(floor.begun(Part::Forward, 3));
    assert!(floor.ask(&mut work, 4).is_some());
}

#[test]
fn a_suspect_runs_alone_and_keeps_work_out_from_its_arrival_to_its_settlement() {
    let floor = Floor::of(16);
    let running = floor.begun(Part::Work, 0);
    let mut suspect = floor.arrive(Part::Suspect);
    assert!(floor.ask(&mut suspect, 0).is_some());
    let mut work = floor.arrive(Part::Work);
    assert!(floor.ask(&mut work, 0).is_some(), "a suspect is in hand");
    let mut forward = floor.arrive(Part::Forward);
    drop(running);
    assert!(
        floor.ask(&mut suspect, 1).is_some(),
        "one is to be passed on"
    );
    assert_eq!(floor.ask(&mut forward, 1), None);
    drop(forward);
    assert_eq!(floor.ask(&mut suspect, 2), Some(52), "its ack is not out");
    assert_eq!(floor.ask(&mut suspect, 52), None);
    let mut forward = floor.arrive(Part::Forward);
    assert!(floor.ask(&mut forward, 53).is_some());
    assert!(floor.ask(&mut work, 53).is_some());
    drop(suspect);
    assert_eq!(floor.ask(&mut forward, 54), None);
    drop(forward);
    // The broker has the acknowledgement of a suspect when the next one comes.
    assert_eq!(floor.ask(&mut floor.arrive(Part::Suspect), 55), Some(105));
}

#[test]
fn nobody_waits_for_slow_handlers_longer_than_a_second() {
    for (slow, part) in [
        (Part::Work, Part::Forward),
        (Part::Suspect, Part::Forward),
        (Part::Work, Part::Suspect),
        (Part::Suspect, Part::Suspect),
        (Part::Forward, Part::Work),
        (Part::Suspect, Part::Work),
    ] {
        let floor = Floor::of(16);
        let _slow = floor.begun(slow, 0);
        let mut turn = floor.arrive(part);
        assert_eq!(floor.ask(&mut turn, 100), Some(600), "{part:?}");
        assert_eq!(floor.ask(&mut turn, 600), Some(1_100), "{part:?}");
        assert_eq!(floor.ask(&mut turn, 1_099), Some(1_100), "{part:?}");
        assert_eq!(floor.ask(&mut turn, 1_100), None, "{part:?}");
    }
}

#[test]
fn a_request_waits_for_no_more_than_half_the_time_it_has() {
    let floor = Floor::of(16);
    let _suspect = floor.begun(Part::Suspect, 0);
    let mut work = floor.arrive(Part::Work);
    assert_eq!(floor.ask_due(&mut work, 0, 200), Some(50));
    assert_eq!(floor.ask_due(&mut work, 50, 200), Some(100));
    assert_eq!(floor.ask_due(&mut work, 100, 200), None);
}

#[test]
fn patience_lets_no_more_handlers_run_than_were_asked_for() {
    let floor = Floor::of(1);
    let suspect = floor.begun(Part::Suspect, 0);
    let mut work = floor.arrive(Part::Work);
    floor.ask(&mut work, 0);
    assert_eq!(floor.ask_due(&mut work, 2_000, 9_000), Some(9_000));
    let mut late = floor.arrive(Part::Work);
    floor.ask(&mut late, 0);
    assert_eq!(
        floor.ask_due(&mut late, 9_000, 9_000),
        None,
        "to be refused"
    );
    drop((late, suspect));
    assert!(has_changed(&work));
    assert_eq!(floor.ask(&mut work, 2_001), None);
    let mut suspect = floor.arrive(Part::Suspect);
    floor.ask(&mut suspect, 3_000);
    assert_eq!(floor.ask_due(&mut suspect, 5_000, 9_000), Some(9_000));
    drop(work);
    assert!(has_changed(&suspect));
    assert_eq!(floor.ask(&mut suspect, 5_001), None);
}

#[test]
fn work_that_has_waited_for_half_a_second_goes_before_the_next_suspect() {
    let floor = Floor::of(16);
    let first = floor.begun(Part::Suspect, 0);
    let mut work = floor.arrive(Part::Work);
    floor.ask(&mut work, 0);
    assert_eq!(floor.ask(&mut work, 500), Some(1_000));
    drop(first);
    let mut next = floor.arrive(Part::Suspect);
    assert!(floor.ask(&mut next, 501).is_some(), "work insists");
    let mut forward = floor.arrive(Part::Forward);
    assert!(floor.ask(&mut forward, 501).is_some());
    assert_eq!(floor.ask(&mut work, 501), Some(551));
    assert_eq!(floor.ask(&mut work, 551), None);
    let mut second = floor.arrive(Part::Work);
    assert!(
        floor.ask(&mut second, 552).is_some(),
        "it has not waited yet"
    );
    drop(work);
    assert_eq!(floor.ask(&mut forward, 553), None);
}

#[test]
fn what_is_dropped_while_it_waits_keeps_nobody_out() {
    let floor = Floor::of(16);
    let running = floor.begun(Part::Work, 0);
    let mut dropped = [floor.arrive(Part::Suspect), floor.arrive(Part::Forward)];
    let mut insisting = floor.arrive(Part::Work);
    floor.ask(&mut insisting, 0);
    floor.ask(&mut insisting, 600);
    for turn in &mut dropped {
        assert!(floor.ask(turn, 600).is_some());
    }
    let mut suspect = floor.arrive(Part::Suspect);
    drop((insisting, dropped, running));
    assert_eq!(floor.ask(&mut suspect, 601), None);
}

#[test]
fn a_server_that_drains_lets_nothing_wait_that_it_hands_back() {
    let server = server_with_quarantine();
    let lane = server.acceptor.intake(Lane::Quarantine);
    let now = epoch();
    let accepted = lane.accept(delivery(now, request()), now, UNIX_MS);
    let mut suspect = server.acceptor.arrive(&accepted).unwrap();
    let soon = now + Duration::from_secs(10);
    assert_eq!(suspect.poll_begin(now, soon), None);
    let mut work = server.acceptor.work().unwrap();
    assert!(work.poll_begin(now, soon).is_some());
    server.acceptor.drain();
    assert!(has_changed(&work));
    assert_eq!(work.poll_begin(now, soon), None);
}

#[test]
fn a_server_without_quarantine_knows_no_turns() {
    let server = Bench::new(policy());
    let now = epoch();
    let accepted = server.accept(delivery(now, request()));
    assert!(server.acceptor.arrive(&accepted).is_none());
    assert!(server.acceptor.work().is_none());
}

#[test]
fn what_is_accepted_tells_its_part() {
    let server = server_with_quarantine();
    let now = epoch();
    let again = Delivery {
        redelivered: true,
        ..delivery(now, request())
    };
    let part = |accepted: &Accepted| server.acceptor.arrive(accepted).map(|turn| turn.part());
    let forward = server.accept(again);
    assert_eq!(part(&forward), Some(Part::Forward));
    assert_eq!(part(&server.accept(delivery(now, request()))), None);
    let lane = server.acceptor.intake(Lane::Quarantine);
    let suspect = lane.accept(delivery(now, request()), now, UNIX_MS);
    assert_eq!(part(&suspect), Some(Part::Suspect));
}

fn server_with_quarantine() -> Bench {
    let mut policy = policy();
    let queue = ShortString::from_static("fib.quarantine");
    policy.quarantine = Some(Quarantine::new(queue, 3));
    Bench::new(policy)
}
