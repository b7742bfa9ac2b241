//! What is tried again, one rule after the other, then everything in any order.

use proptest::prelude::*;

use super::*;
use crate::Pushback;

/// One call, its client's budget, and the clock.
struct Call {
    attempts: Attempts,
    budget: Budget,
    now: Instant,
}

impl Call {
    #[expect(clippy::disallowed_methods, reason = "where the fake clock starts")]
    fn new(idempotent: bool, wait: bool) -> Self {
        let now = Instant::now();
        let policy = RetryPolicy::default();
        Self {
            attempts: Attempts::new(policy, now + TIMEOUT, 7)
                .idempotent(idempotent)
                .wait_for_ready(wait),
            budget: Budget::new(&policy),
            now,
        }
    }

    fn plain() -> Self {
        Self::new(false, false)
    }

    fn fails(&mut self, error: CallError) -> Next {
        self.attempts
            .handle_outcome(self.now, &self.budget, Err(error))
    }

    /// How long the next attempt has to wait; nothing when there is none.
    fn wait(&mut self, error: CallError) -> Option<Duration> {
        match self.fails(error) {
            Next::Done(_) => None,
            Next::RetryAt(at) => Some(at - self.now),
            Next::WhenUp { after, .. } => Some(after - self.now),
        }
    }

    fn error(&mut self, error: CallError) -> CallError {
        match self.fails(error) {
            Next::Done(Err(error)) => error,
            next => panic!("it goes on: {next:?}"),
        }
    }
}

fn publish(kind: ErrorKind) -> CallError {
    CallError::Publish(TransportError::new(kind, "fake", "publish"))
}

fn unsent() -> CallError {
    CallError::Publish(lost().unsent())
}

/// As a broker refuses that is in this process: it knows that it has not taken the message.
fn full() -> CallError {
    let cause = TransportError::new(ErrorKind::Refused, "fake", "publish");
    CallError::Publish(cause.unsent())
}

fn down(kind: ErrorKind) -> CallError {
    CallError::BrokerDown(TransportError::new(kind, "fake", "connect"))
}

fn refusal(reason: Reason, pushback: Option<Pushback>) -> CallError {
    let status = Status::framework(reason, "no");
    CallError::Remote(match pushback {
        Some(pushback) => status.with_pushback(pushback),
        None => status,
    })
}

fn refusal_of_redelivered(reason: Reason) -> CallError {
    CallError::Remote(Status::framework(reason, "no").of_redelivered(true))
}

fn unanswered() -> CallError {
    CallError::DeadlineExceeded {
        certainty: Certainty::MaybeExecuted,
        confirmed: true,
    }
}

fn after(millis: u64) -> Option<Pushback> {
    Some(Pushback::After(Duration::from_millis(millis)))
}

fn is_about(wait: Duration, millis: u64) -> bool {
    let millis = Duration::from_millis(millis);
    (millis / 5 * 4..=millis / 5 * 6).contains(&wait)
}

#[test]
fn what_was_never_sent_goes_again_when_there_is_a_connection() {
    let mut call = Call::plain();
    let Next::WhenUp { after, until } = call.fails(unsent()) else {
        panic!("it was not executed");
    };
    assert_eq!((after, until), (call.now, call.now + TIMEOUT));
    let Next::WhenUp { after, .. } = call.fails(unsent()) else {
        panic!("it was not executed");
    };
    assert!(is_about(after - call.now, 100), "nothing spins");
    assert_eq!(
        call.attempts.begin(call.now, call_id(1)).number,
        1,
        "it costs nothing"
    );
    assert_eq!(call.budget.tokens(), 10);
}

#[test]
fn without_a_connection_a_call_waits_only_when_told_to_or_when_it_had_one() {
    assert!(Call::plain().wait(down(ErrorKind::Connect)).is_none());
    assert_eq!(
        Call::new(false, true).wait(down(ErrorKind::Connect)),
        Some(Duration::ZERO)
    );
    let mut call = Call::plain();
    call.wait(unsent()).unwrap();
    assert!(call.wait(down(ErrorKind::Connect)).is_some());
}

#[test]
fn a_call_that_waits_for_a_connection_waits_whatever_is_amiss() {
    let mut call = Call::new(false, true);
    assert!(call.wait(down(ErrorKind::Unauthenticated)).is_some());
    assert_eq!(call.attempts.give_up().code(), Code::Unauthenticated);
}

#[test]
fn a_queue_that_may_come_is_waited_for_only_when_told_to() {
    assert!(Call::plain().wait(publish(ErrorKind::NoRoute)).is_none());
    let mut call = Call::new(false, true);
    for expected in [100, 200, 400, 800, 1000, 1000] {
        let wait = call.wait(publish(ErrorKind::NoRoute)).unwrap();
        assert!(is_about(wait, expected), "{expected}: {wait:?}");
    }
}

#[test]
fn a_queue_that_may_come_is_looked_for_until_the_time_is_over() {
    let mut call = Call::new(false, true);
    call.now += Duration::from_millis(1);
    let (deadline, mut looks) = (call.attempts.deadline(), 0);
    while let Some(wait) = call.wait(publish(ErrorKind::NoRoute)) {
        call.now += wait;
        looks += 1;
        assert!(call.now < deadline, "not after its time");
    }
    let left = deadline - call.now;
    assert!(left <= Duration::from_millis(20), "{left:?}");
    assert!(looks < 45, "nor all the time: {looks}");
}

#[test]
fn a_worker_that_stops_passes_its_requests_on() {
    let mut call = Call::plain();
    let draining = || refusal(Reason::Draining, None);
    assert_eq!(call.wait(draining()), Some(Duration::ZERO));
    assert!(is_about(call.wait(draining()).unwrap(), 100));
}

#[test]
fn push_back_is_obeyed_to_the_millisecond() {
    let mut call = Call::plain();
    for millis in [0, 1, 40, 29_999] {
        let shed = refusal(Reason::Shed, after(millis));
        assert_eq!(call.wait(shed), Some(Duration::from_millis(millis)));
    }
    assert_eq!(call.budget.tokens(), 10);
    for pushback in [None, Some(Pushback::Never), after(30_000)] {
        let mut call = Call::plain();
        let error = call.error(refusal(Reason::Shed, pushback));
        assert_eq!(error.reason(), Reason::Shed);
    }
}

#[test]
fn what_would_fail_again_is_not_tried_again() {
    let closed = CallError::Closed {
        certainty: Certainty::NotExecuted,
    };
    let large = CallError::RequestTooLarge { len: 2, limit: 1 };
    let cancelled = CallError::GivenUp {
        certainty: Certainty::MaybeExecuted,
    };
    for error in [
        cancelled,
        closed,
        large,
        CallError::NotSent(lost()),
        CallError::TooManyInFlight { limit: 1 },
        publish(ErrorKind::Blocked),
        publish(ErrorKind::TooLarge),
        publish(ErrorKind::Unsupported),
        publish(ErrorKind::Denied),
        CallError::ConnectionLost(TransportError::new(ErrorKind::Denied, "fake", "publish")),
        publish(ErrorKind::NotFound),
        refusal(Reason::UnknownMethod, None),
        refusal(Reason::RequestUndecodable, after(1)),
        refusal(Reason::Expired, after(1)),
        refusal(Reason::HopLimit, None),
        refusal(Reason::KeyReused, None),
        refusal(Reason::Poison, after(1)),
        refusal_of_redelivered(Reason::UnknownMethod),
        unanswered(),
        CallError::Remote(Status::new(Code::Unavailable, "no")),
        refusal(Reason::HandlerPanicked, after(1)),
    ] {
        let mut call = Call::new(true, true);
        assert!(call.wait(error.clone()).is_none(), "{error:?}");
    }
}

#[test]
fn what_may_have_run_is_repeated_only_when_that_does_no_harm() {
    for error in [
        CallError::ConnectionLost(lost()),
        publish(ErrorKind::Closed),
        publish(ErrorKind::Refused),
        publish(ErrorKind::Other),
        refusal_of_redelivered(Reason::Draining),
    ] {
        assert!(Call::new(false, true).wait(error.clone()).is_none());
        let mut call = Call::new(true, false);
        for expected in [100, 200, 400] {
            let wait = call.wait(error.clone()).unwrap();
            assert!(is_about(wait, expected), "{expected}: {wait:?}");
        }
        assert!(call.wait(error).is_none(), "four attempts are enough");
    }
}

#[test]
fn what_the_broker_had_no_room_for_is_tried_again_even_if_it_must_not_run_twice() {
    let failed = TransportError::new(ErrorKind::Other, "fake", "publish").unsent();
    for error in [full(), CallError::Publish(failed)] {
        assert_eq!(error.certainty(), Certainty::NotExecuted);
        for idempotent in [false, true] {
            let mut call = Call::new(idempotent, false);
            for expected in [100, 200, 400] {
                let wait = call.wait(error.clone()).unwrap();
                assert!(is_about(wait, expected), "{expected}: {wait:?}");
            }
            let last = call.error(error.clone());
            assert_eq!(last.certainty(), Certainty::NotExecuted);
            assert_eq!(call.budget.tokens(), 6, "each has cost one");
        }
    }
}

#[test]
fn a_full_queue_is_not_filled_by_retries_however_certain_the_refusals_are() {
    let mut call = Call::plain();
    let mut again = 0;
    for _ in 0..100 {
        let policy = RetryPolicy::default();
        call.attempts = Attempts::new(policy, call.now + TIMEOUT, 7);
        again += u32::from(call.wait(full()).is_some());
    }
    assert_eq!(again, 4, "until half of the tokens are gone");
    assert!(call.wait(unsent()).is_some(), "which is another matter");
}

#[test]
fn all_attempts_carry_one_key_and_their_number() {
    let mut call = Call::new(true, false);
    let first = call.attempts.begin(call.now, call_id(1));
    assert_eq!((first.number, first.message_id), (1, None));
    call.fails(CallError::ConnectionLost(lost()));
    let second = call.attempts.begin(call.now, call_id(2));
    assert_eq!(second.number, 2);
    assert_eq!(second.message_id, Some(call_id(1).to_correlation_id()));

    let own = Some(ShortString::from_static("order-7"));
    let mut call = Call::new(true, false);
    call.attempts = call.attempts.message_id(own.clone()).hops(3);
    let first = call.attempts.begin(call.now, call_id(1));
    assert_eq!((first.hops, first.message_id), (3, own.clone()));
    assert_eq!(call.attempts.begin(call.now, call_id(2)).message_id, own);
}

#[test]
fn no_later_attempt_takes_back_that_an_earlier_one_may_have_run() {
    let mut call = Call::new(true, false);
    call.fails(CallError::ConnectionLost(lost()));
    let error = call.error(refusal(Reason::UnknownMethod, None));
    assert_eq!(error.reason(), Reason::ConnectionLost);

    let mut call = Call::new(true, true);
    call.fails(CallError::ConnectionLost(lost()));
    call.fails(publish(ErrorKind::NoRoute));
    assert_eq!(call.attempts.give_up().reason(), Reason::ConnectionLost);

    let mut call = Call::new(true, false);
    call.fails(CallError::ConnectionLost(lost()));
    let error = call.error(CallError::Remote(Status::out_of_range("94")));
    assert_eq!(error.certainty(), Certainty::Executed);
}

#[test]
fn a_lost_connection_is_one_event_and_costs_no_token() {
    let mut call = Call::new(true, false);
    call.fails(CallError::ConnectionLost(lost()));
    call.fails(publish(ErrorKind::Closed));
    assert_eq!(call.budget.tokens(), 10);
    call.fails(publish(ErrorKind::Refused));
    assert_eq!(call.budget.tokens(), 9);
}

#[test]
fn with_the_budget_spent_nothing_is_repeated_and_what_did_not_run_still_is() {
    let mut call = Call::new(true, false);
    for _ in 0..5 {
        call.budget.handle_failure();
    }
    assert!(call.wait(CallError::ConnectionLost(lost())).is_none());
    assert!(call.wait(unsent()).is_some());
}

#[test]
fn never_means_never() {
    let mut call = Call::new(true, true);
    call.attempts = Attempts::new(RetryPolicy::never(), call.now + TIMEOUT, 7).idempotent(true);
    for error in [unsent(), full(), CallError::ConnectionLost(lost())] {
        assert!(call.wait(error).is_none());
    }
}

#[test]
fn without_transparent_attempts_only_what_may_have_run_is_repeated() {
    let policy = RetryPolicy {
        transparent: false,
        ..RetryPolicy::default()
    };
    let mut call = Call::new(true, true);
    call.attempts = Attempts::new(policy, call.now + TIMEOUT, 7).idempotent(true);
    assert!(call.wait(publish(ErrorKind::Refused)).is_some());
    for error in [unsent(), full()] {
        assert!(call.wait(error).is_none());
    }
}

#[derive(Clone, Debug)]
enum Outcome {
    Down,
    Draining,
    Full,
    Lost,
    NoRoute,
    Ok,
    Refused,
    Ran,
    Shed(u64),
    Unanswered,
    Unsent,
}

fn outcomes() -> impl Strategy<Value = Vec<(Outcome, u64)>> {
    let outcome = prop_oneof![
        2 => Just(Outcome::Down),
        2 => Just(Outcome::Draining),
        2 => Just(Outcome::Full),
        3 => Just(Outcome::Lost),
        2 => Just(Outcome::NoRoute),
        1 => Just(Outcome::Ok),
        3 => Just(Outcome::Refused),
        1 => Just(Outcome::Ran),
        2 => (0..5_000u64).prop_map(Outcome::Shed),
        1 => Just(Outcome::Unanswered),
        3 => Just(Outcome::Unsent),
    ];
    prop::collection::vec((outcome, 0..2_000u64), 1..40)
}

fn error_of(outcome: &Outcome) -> CallError {
    match outcome {
        Outcome::Down => down(ErrorKind::Connect),
        Outcome::Draining => refusal(Reason::Draining, None),
        Outcome::Full => full(),
        Outcome::Lost => CallError::ConnectionLost(lost()),
        Outcome::NoRoute => publish(ErrorKind::NoRoute),
        Outcome::Refused => publish(ErrorKind::Refused),
        Outcome::Ran | Outcome::Ok => CallError::Remote(Status::out_of_range("94")),
        Outcome::Shed(millis) => refusal(Reason::Shed, after(*millis)),
        Outcome::Unanswered => unanswered(),
        Outcome::Unsent => unsent(),
    }
}

proptest! {
    /// At most four attempts that count, none past the deadline; push-back to the millisecond; one
    /// key for all; tokens within their bounds; and "not executed" only when no attempt may have
    /// been.
    #[test]
    fn attempts_are_few_in_time_and_honest(
        outcomes in outcomes(), idempotent: bool, wait: bool, spent in 0..8u32,
    ) {
        let mut call = Call::new(idempotent, wait);
        let deadline = call.now + TIMEOUT;
        (0..spent).for_each(|_| call.budget.handle_failure());
        let (mut repeated, mut open, mut keys) = (0, false, Vec::new());
        for (id, (outcome, took)) in (1u64..).zip(outcomes) {
            prop_assert!(call.now < deadline, "begun past the deadline");
            let attempt = call.attempts.begin(call.now, call_id(id));
            prop_assert_eq!(attempt.deadline, deadline);
            keys.push(attempt.message_id.unwrap_or_else(|| attempt.id.to_correlation_id()));
            call.now = (call.now + Duration::from_millis(took)).min(deadline);
            let result = match outcome {
                Outcome::Ok => Ok(Reply { body: Bytes::new(), content_type: None }),
                ref failed => Err(error_of(failed)),
            };
            let maybe = matches!(outcome, Outcome::Lost | Outcome::Refused | Outcome::Unanswered);
            let next = call.attempts.handle_outcome(call.now, &call.budget, result);
            prop_assert!(call.budget.tokens() <= 10);
            open |= maybe;
            let at = match next {
                Next::Done(Ok(_)) => {
                    prop_assert!(matches!(outcome, Outcome::Ok));
                    break;
                }
                Next::Done(Err(error)) => {
                    if error.certainty() == Certainty::NotExecuted {
                        prop_assert!(!open);
                    }
                    break;
                }
                Next::RetryAt(at) => at,
                Next::WhenUp { after, until } => {
                    prop_assert_eq!(until, deadline);
                    after
                }
            };
            prop_assert!(at >= call.now && at < deadline);
            let counts = maybe || matches!(outcome, Outcome::Full);
            repeated += u32::from(counts);
            prop_assert!(!counts || call.budget.allows());
            prop_assert!(!maybe || idempotent);
            prop_assert!(repeated < 4);
            if let Outcome::Shed(millis) = outcome {
                prop_assert_eq!(at, call.now + Duration::from_millis(millis));
            }
            call.now = at;
        }
        prop_assert!(keys.windows(2).all(|pair| pair[0] == pair[1]));
        if open {
            prop_assert_ne!(call.attempts.give_up().certainty(), Certainty::Executed);
        }
    }
}
