//! What is not tried again because too little time is left for an answer.

use super::*;

/// A call of ten seconds that may run twice, after so many answers that took this long each.
struct Call {
    attempts: Attempts,
    budget: Budget,
    begun: Instant,
}

const WHOLE: Duration = Duration::from_secs(10);

impl Call {
    fn usually(took: Duration) -> Self {
        let begun = Bench::down(Limits::default()).now;
        let policy = RetryPolicy::default();
        let budget = Budget::new(&policy);
        budget.handle_success(took);
        let attempts = Attempts::new(policy, begun + WHOLE, 7).idempotent(true);
        Self {
            attempts,
            budget,
            begun,
        }
    }

    /// An attempt that begins and fails when so much of the time is left.
    fn fails(&mut self, left: Duration, error: CallError) -> Next {
        let now = self.begun + WHOLE.saturating_sub(left);
        self.attempts.begin(now, CallId::from_bits(1));
        self.attempts.handle_outcome(now, &self.budget, Err(error))
    }
}

fn cause(kind: ErrorKind) -> TransportError {
    TransportError::new(kind, "fake", "publish")
}

/// Goes again at once, when there is a connection.
fn unsent() -> CallError {
    CallError::Publish(cause(ErrorKind::Closed).unsent())
}

fn begin(call: &mut Call) {
    call.attempts.begin(call.begun, CallId::from_bits(0));
}

#[test]
fn an_attempt_needs_twice_the_time_that_an_answer_usually_takes() {
    for (left, again) in [(2001, true), (2000, false), (10, false)] {
        let mut call = Call::usually(Duration::from_secs(1));
        begin(&mut call);
        let next = call.fails(Duration::from_millis(left), unsent());
        match next {
            Next::WhenUp { until, .. } if again => {
                assert_eq!(until, call.begun + WHOLE - Duration::from_secs(2));
            }
            Next::Done(Err(error)) if !again => {
                assert_eq!(error.certainty(), Certainty::NotExecuted, "as it was");
            }
            next => panic!("{left}: {next:?}"),
        }
    }
}

#[test]
fn the_wait_before_it_counts() {
    let refused = |wait| {
        let pushback = crate::Pushback::After(Duration::from_millis(wait));
        CallError::Remote(Status::framework(Reason::Shed, "no").with_pushback(pushback))
    };
    for (wait, again) in [(900, true), (1100, false)] {
        let mut call = Call::usually(Duration::from_secs(1));
        begin(&mut call);
        let next = call.fails(Duration::from_secs(3), refused(wait));
        assert_eq!(matches!(next, Next::RetryAt(_)), again, "{wait}: {next:?}");
    }
}

#[test]
fn more_than_half_of_the_time_of_a_call_is_enough_for_any_attempt() {
    let mut call = Call::usually(Duration::from_secs(3600));
    begin(&mut call);
    assert!(matches!(
        call.fails(Duration::from_millis(5001), unsent()),
        Next::WhenUp { .. }
    ));
    assert!(matches!(
        call.fails(Duration::from_millis(5000), unsent()),
        Next::Done(_)
    ));
}

#[test]
fn what_has_not_been_tried_yet_waits_for_a_connection_to_the_end() {
    let mut call = Call::usually(Duration::from_secs(4));
    call.attempts = call.attempts.wait_for_ready(true);
    begin(&mut call);
    let down = || CallError::BrokerDown(cause(ErrorKind::Connect));
    let Next::WhenUp { until, .. } = call.fails(Duration::from_secs(3), down()) else {
        panic!("it waits");
    };
    assert_eq!(until, call.begun + WHOLE);
}

#[test]
fn an_attempt_is_measured_by_itself() {
    let mut call = Call::usually(Duration::from_millis(1));
    begin(&mut call);
    let _ = call.fails(Duration::from_secs(9), unsent());
    let late = call.begun + Duration::from_secs(5);
    let soon = late + Duration::from_millis(1);
    call.attempts.begin(late, CallId::from_bits(2));
    let reply = wire::decode_reply(Message {
        kind: Some(wire::REPLY_TYPE),
        ..Message::default()
    });
    let answered = call
        .attempts
        .handle_outcome(soon, &call.budget, Ok(reply.unwrap()));
    assert!(matches!(answered, Next::Done(Ok(_))));
    assert_eq!(call.budget.usual_time(), Duration::from_millis(1));
}
