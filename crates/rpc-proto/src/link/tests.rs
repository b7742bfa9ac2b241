//! A link by a clock that is moved by hand.

use super::*;

fn cause(kind: ErrorKind) -> TransportError {
    TransportError::new(kind, "test", "connect")
}

fn link(endpoints: usize) -> (Link, Instant) {
    let now = Instant::now();
    (Link::new(endpoints, Backoff::default(), 1, now), now)
}

/// Fails the attempt that is due, and tells how long the next one has to wait.
fn fail(link: &mut Link, now: &mut Instant, kind: ErrorKind) -> Duration {
    assert!(matches!(link.poll(*now), Step::Dial(_)));
    link.handle_failed(*now, cause(kind));
    let Step::Wait(until) = link.poll(*now) else {
        panic!("a failed attempt is followed by a wait");
    };
    let wait = until - *now;
    *now = until;
    wait
}

#[test]
fn waits_double_up_to_the_longest_and_never_vanish() {
    let (mut link, mut now) = link(1);
    for round in 0..40 {
        let wait = fail(&mut link, &mut now, ErrorKind::Connect);
        let most = Duration::from_millis(100 << round.min(16)).min(Duration::from_secs(2));
        assert!(wait >= most / 2 && wait <= most, "{round}: {wait:?}");
    }
}

#[test]
fn where_the_operator_must_act_the_waits_grow_longer() {
    let (mut link, mut now) = link(1);
    let last = (0..20)
        .map(|_| fail(&mut link, &mut now, ErrorKind::Unauthenticated))
        .last();
    assert!(last.unwrap() >= Duration::from_secs(15));
}

#[test]
fn the_operator_is_needed_when_every_address_refuses() {
    let (mut link, mut now) = link(2);
    fail(&mut link, &mut now, ErrorKind::Unauthenticated);
    assert!(!link.needs_operator(), "the other address may do");
    fail(&mut link, &mut now, ErrorKind::Denied);
    assert!(link.needs_operator());
    assert!(matches!(link.poll(now), Step::Dial(_)));
    assert!(link.needs_operator(), "it is only being tried again");
    let up = link.handle_up(now).unwrap();
    assert!(!link.needs_operator());
    link.handle_lost(now, up, cause(ErrorKind::NotFound));
    assert!(
        !link.needs_operator(),
        "a queue that is gone may be declared"
    );
}

#[test]
fn a_failure_is_news_once_until_its_kind_changes_or_it_has_been_up() {
    let (mut link, mut now) = link(1);
    let mut news = |kinds: &[ErrorKind]| -> Vec<bool> {
        let mut seen = Vec::new();
        for kind in kinds {
            assert!(matches!(link.poll(now), Step::Dial(_)));
            seen.push(link.handle_failed(now, cause(*kind)));
            now += Duration::from_secs(60);
        }
        assert!(matches!(link.poll(now), Step::Dial(_)));
        let up = link.handle_up(now).unwrap();
        link.handle_lost(now, up, cause(ErrorKind::Closed));
        now += Duration::from_secs(60);
        seen
    };
    use ErrorKind::{Connect, Denied};
    assert_eq!(
        news(&[Connect, Connect, Denied, Denied]),
        [true, false, true, false]
    );
    assert_eq!(news(&[Denied]), [true]);
}

#[test]
fn all_addresses_are_tried_before_the_waits_grow() {
    let (mut link, mut now) = link(3);
    let mut tried = Vec::new();
    for _ in 0..3 {
        let Step::Dial(endpoint) = link.poll(now) else {
            panic!("an attempt is due");
        };
        tried.push(endpoint);
        link.handle_failed(now, cause(ErrorKind::Connect));
        let Step::Wait(until) = link.poll(now) else {
            panic!("a failed attempt is followed by a wait");
        };
        assert!(until - now <= Duration::from_millis(100));
        now = until;
    }
    tried.sort_unstable();
    assert_eq!(tried, [0, 1, 2]);
}

#[test]
fn generations_count_up_and_an_earlier_one_is_no_news() {
    let (mut link, mut now) = link(1);
    assert_eq!(link.poll(now), Step::Dial(0));
    let first = link.handle_up(now).unwrap();
    assert_eq!(first, Generation::FIRST);
    assert_eq!(link.poll(now), Step::Watch);
    assert!(link.handle_lost(now, first, cause(ErrorKind::Closed)));
    assert!(!link.handle_lost(now, first, cause(ErrorKind::Closed)));
    now += Duration::from_secs(1);
    assert_eq!(link.poll(now), Step::Dial(0));
    let second = link.handle_up(now).unwrap();
    assert!(second > first);
    assert!(!link.handle_lost(now, first, cause(ErrorKind::Closed)));
    assert!(matches!(link.state(), LinkState::Up(generation) if generation == second));
}

#[test]
fn a_connection_that_never_holds_is_made_more_and_more_rarely() {
    let (mut link, mut now) = link(1);
    let mut waits = Vec::new();
    for _ in 0..8 {
        assert_eq!(link.poll(now), Step::Dial(0));
        let generation = link.handle_up(now).unwrap();
        link.handle_lost(now, generation, cause(ErrorKind::Closed));
        let Step::Wait(until) = link.poll(now) else {
            panic!("a loss is followed by a wait");
        };
        waits.push(until - now);
        now = until;
    }
    assert!(waits[7] >= Duration::from_secs(1), "{waits:?}");
    assert_eq!(link.poll(now), Step::Dial(0));
    let generation = link.handle_up(now).unwrap();
    now += Duration::from_secs(10);
    link.handle_lost(now, generation, cause(ErrorKind::Closed));
    let Step::Wait(until) = link.poll(now) else {
        panic!("a loss is followed by a wait");
    };
    assert!(until - now <= Duration::from_millis(100));
}

#[test]
fn a_transport_that_was_given_is_lost_for_good() {
    let now = Instant::now();
    let mut link = Link::given(now);
    assert!(matches!(link.state(), LinkState::Up(Generation::FIRST)));
    assert!(link.handle_lost(now, Generation::FIRST, cause(ErrorKind::Closed)));
    assert_eq!(link.poll(now), Step::Stop);
    assert!(matches!(link.state(), LinkState::Lost(_)));
}

#[test]
fn abandoned_it_dials_no_more_and_says_why() {
    let (mut link, now) = link(1);
    link.abandon(cause(ErrorKind::Other));
    assert_eq!(link.poll(now), Step::Stop);
    assert!(matches!(link.state(), LinkState::Lost(cause) if cause.kind() == ErrorKind::Other));
    link.close();
    link.abandon(cause(ErrorKind::Other));
    assert!(matches!(link.state(), LinkState::Closed));
}

#[test]
fn every_state_but_up_says_what_the_trouble_is() {
    let trouble = |link: &Link| link.state().trouble().map(|cause| cause.kind());
    let (mut link, now) = link(1);
    assert_eq!(trouble(&link), Some(ErrorKind::Connect), "not yet");
    assert_eq!(link.poll(now), Step::Dial(0));
    link.handle_failed(now, cause(ErrorKind::Denied));
    assert_eq!(trouble(&link), Some(ErrorKind::Denied));
    let mut given = Link::given(now);
    assert_eq!(trouble(&given), None);
    given.handle_lost(now, Generation::FIRST, cause(ErrorKind::NotFound));
    assert_eq!(trouble(&given), Some(ErrorKind::NotFound));
    given.close();
    assert_eq!(trouble(&given), Some(ErrorKind::Closed));
}

#[test]
fn closed_it_stays_closed_whatever_happens() {
    let (mut link, now) = link(1);
    assert_eq!(link.poll(now), Step::Dial(0));
    link.close();
    assert_eq!(link.handle_up(now), None);
    link.handle_failed(now, cause(ErrorKind::Connect));
    assert_eq!(link.poll(now), Step::Stop);
    assert!(matches!(link.state(), LinkState::Closed));
}
