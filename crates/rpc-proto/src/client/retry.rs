//! What may be tried again of a call that has ended badly, when, and how often.
//!
//! | the attempt | is tried again |
//! |---|---|
//! | was not executed, and its connection had ended | when there is another one; costs nothing |
//! | was not executed, and the worker stops or sheds | at once, or when the service says; costs nothing |
//! | was not executed: nobody listens, or no connection | if the call is to wait for that; costs nothing |
//! | was not executed: the broker refused it, or failed | a few times, while there are tokens |
//! | was not executed for another reason | never: it would fail again |
//! | may have been executed | if it is idempotent, a few times, while there are tokens |
//! | was executed, or its deadline has passed | never |
//!
//! Never past the deadline, nor so late that less is left than twice the time an answer usually
//! takes: such an attempt mostly ends as "no reply in time, and maybe executed", where the one before
//! had said why, and perhaps that nothing ran. As the usual time is that of all methods together, it
//! is not believed against more than half of the time that the whole call has. And all attempts
//! carry one `message_id`.

mod budget;
mod usual;

use std::time::{Duration, Instant};

pub use self::budget::Budget;
use super::{Attempt, CallError};
use crate::jitter::Jitter;
use crate::mutants::{Mutant, is};
use crate::wire::Reply;
use crate::{
    CallId, Certainty, Code, ErrorKind, Origin, Pushback, Reason, ShortString, Status,
    deadline_after,
};

/// How often a client tries again what may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// The wait after the first attempt that counts, give or take a fifth. It doubles with each.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// How many attempts there are at most, with the first, when each may have been executed or was
    /// refused by the broker.
    pub max_attempts: u32,
    /// How many successes give a token back that a failure has cost.
    pub successes_per_token: u32,
    /// How many tokens the client has at most. At half of them or fewer, attempts that may have been
    /// executed or that the broker refused are not repeated: retries of many callers must not become
    /// the load.
    pub tokens: u32,
    /// Whether what was certainly not executed is tried again as well.
    pub transparent: bool,
}

impl RetryPolicy {
    /// Nothing is ever tried again.
    #[must_use]
    pub fn never() -> Self {
        Self {
            max_attempts: 1,
            transparent: false,
            ..Self::default()
        }
    }

    /// Sets how many attempts there are at most, with the first.
    #[must_use]
    pub const fn with_max_attempts(mut self, max_attempts: u32) -> Self {
        self.max_attempts = max_attempts;
        self
    }

    /// Sets the first wait between attempts, and the longest.
    #[must_use]
    pub const fn with_waits(mut self, first: Duration, longest: Duration) -> Self {
        self.first = first;
        self.longest = longest;
        self
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(1),
            max_attempts: 4,
            successes_per_token: 10,
            tokens: 10,
            transparent: true,
        }
    }
}

/// A wait for somebody to listen that does not fit into the time that is left is made shorter, but not
/// than this.
const SHORTEST_LOOK: Duration = Duration::from_millis(20);

/// What to do after an attempt.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a driver must handle all of them")]
pub enum Next {
    /// The call has ended.
    Done(Result<Reply, CallError>),
    /// The next attempt, at that time.
    RetryAt(Instant),
    /// The next attempt as soon as there is a connection, but not before `after`. When there is none
    /// by `until`, [`Attempts::give_up`].
    WhenUp {
        /// The earliest moment.
        after: Instant,
        /// The latest moment.
        until: Instant,
    },
}

/// The attempts at one call.
#[derive(Debug)]
pub struct Attempts {
    policy: RetryPolicy,
    deadline: Instant,
    hops: u32,
    idempotent: bool,
    wait_for_ready: bool,
    /// The key that all attempts carry: as given, or made of the first.
    message_id: Option<ShortString>,
    first: Option<CallId>,
    /// When the first attempt began, and the last.
    since: Option<Instant>,
    begun: Option<Instant>,
    /// Whether any attempt found a connection to be made on.
    tried: bool,
    /// Attempts that count, with the one that runs.
    number: u32,
    /// Further attempts, that cost nothing.
    transparent: u32,
    /// Whether there has been a connection for this call: then it may wait for the next.
    was_up: bool,
    jitter: Jitter,
    /// The error to end with where nothing better comes. One after which the call may have been
    /// executed stays: no later attempt can take that back.
    kept: Option<CallError>,
}

impl Attempts {
    /// Of a call that must end by `deadline`. The seed keeps the waits of many callers apart.
    #[must_use]
    pub const fn new(policy: RetryPolicy, deadline: Instant, seed: u64) -> Self {
        Self {
            policy,
            deadline,
            hops: 0,
            idempotent: false,
            wait_for_ready: false,
            message_id: None,
            first: None,
            since: None,
            begun: None,
            tried: false,
            number: 1,
            transparent: 0,
            was_up: false,
            jitter: Jitter::new(seed),
            kept: None,
        }
    }

    /// Sets whether it does no harm to run it twice.
    #[must_use]
    pub const fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    /// Sets whether it waits for a connection, and for somebody to listen.
    #[must_use]
    pub const fn wait_for_ready(mut self, wait: bool) -> Self {
        self.wait_for_ready = wait;
        self
    }

    /// Sets through how many services it has come.
    #[must_use]
    pub const fn hops(mut self, hops: u32) -> Self {
        self.hops = hops;
        self
    }

    /// Sets the key that all attempts carry; without one it is the identity of the first.
    #[must_use]
    pub fn message_id(mut self, message_id: Option<ShortString>) -> Self {
        self.message_id = message_id;
        self
    }

    /// The next attempt, under this new identity.
    pub fn begin(&mut self, now: Instant, id: CallId) -> Attempt {
        self.since.get_or_insert(now);
        self.begun = Some(now);
        let first = *self.first.get_or_insert(id);
        let id = if is(Mutant::ReusedId) { first } else { id };
        let first = if is(Mutant::NewMessageId) { id } else { first };
        let known = |known: &ShortString| Some(known.clone());
        Attempt {
            hops: self.hops,
            message_id: self
                .message_id
                .as_ref()
                .map_or_else(|| (first != id).then(|| first.to_correlation_id()), known),
            number: self.number,
            ..Attempt::new(id, self.deadline)
        }
    }

    /// When the call must have ended.
    #[must_use]
    pub const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// An attempt has ended.
    pub fn handle_outcome(
        &mut self,
        now: Instant,
        budget: &Budget,
        outcome: Result<Reply, CallError>,
    ) -> Next {
        let error = match outcome {
            Ok(reply) => {
                let begun = self.begun.unwrap_or(now);
                budget.handle_success(now.saturating_duration_since(begun));
                return Next::Done(Ok(reply));
            }
            Err(error) => error,
        };
        if costs(&error) {
            budget.handle_failure();
        }
        self.tried |= !matches!(error, CallError::BrokerDown(_));
        match self.judge(now, budget, &error) {
            Some(next) => {
                self.keep(error);
                next
            }
            None => Next::Done(Err(self.last(error))),
        }
    }

    /// Nothing came of the wait: the error that the call ends with.
    #[must_use]
    pub fn give_up(&mut self) -> CallError {
        self.kept.take().unwrap_or(CallError::DeadlineExceeded {
            certainty: Certainty::NotExecuted,
            confirmed: false,
        })
    }

    fn judge(&mut self, now: Instant, budget: &Budget, error: &CallError) -> Option<Next> {
        let next = match error.certainty() {
            Certainty::Executed => None,
            Certainty::MaybeExecuted => self.repeat(now, budget, error),
            Certainty::NotExecuted if !self.policy.transparent => None,
            Certainty::NotExecuted if strains(error) => self.repeat(now, budget, error),
            Certainty::NotExecuted => self.renew(now, error),
        }?;
        let latest = self.latest(budget);
        let (earliest, next) = match next {
            Next::Done(_) => return None,
            Next::RetryAt(at) if at >= latest && is_no_route(error) => {
                // Somebody may come to listen until then, and to look costs nothing.
                let sooner = now + latest.saturating_duration_since(now) / 2;
                let soonest = deadline_after(now, SHORTEST_LOOK);
                (sooner.max(soonest), Next::RetryAt(sooner))
            }
            Next::RetryAt(at) => (at, next),
            Next::WhenUp { after, until } => {
                let until = until.min(latest);
                (after, Next::WhenUp { after, until })
            }
        };
        let in_time = earliest < latest || is(Mutant::RetryPastDeadline);
        in_time.then_some(next)
    }

    /// When another attempt must have begun, to be of use.
    fn latest(&self, budget: &Budget) -> Instant {
        let (Some(since), true) = (self.since, self.tried) else {
            return self.deadline;
        };
        let whole = self.deadline.saturating_duration_since(since);
        let needed = budget.usual_time().saturating_mul(2).min(whole / 2);
        self.deadline.checked_sub(needed).unwrap_or(self.deadline)
    }

    /// After an attempt that was not executed, and is no sign of load.
    fn renew(&mut self, now: Instant, error: &CallError) -> Option<Next> {
        let next = match error {
            // Whatever the cause: a broker that starts refuses good passwords too.
            CallError::BrokerDown(_) if self.wait_for_ready || self.was_up => {
                self.when_up_soon(now)
            }
            CallError::Publish(cause) => match cause.kind() {
                ErrorKind::Closed | ErrorKind::Connect => {
                    self.was_up = true;
                    self.when_up_soon(now)
                }
                ErrorKind::NoRoute if self.wait_for_ready => {
                    Next::RetryAt(deadline_after(now, self.backoff(self.transparent)))
                }
                _ => return None,
            },
            CallError::Remote(status) => Next::RetryAt(self.after_refusal(now, status)?),
            _ => return None,
        };
        self.transparent = self.transparent.saturating_add(1);
        Some(next)
    }

    /// After an attempt that may have been executed, or that only adds to what the broker has to bear.
    fn repeat(&mut self, now: Instant, budget: &Budget, error: &CallError) -> Option<Next> {
        let harmless = self.idempotent
            || error.certainty() == Certainty::NotExecuted
            || is(Mutant::RetryNonIdempotent);
        let more = self.number < self.policy.max_attempts || is(Mutant::AttemptsWithoutEnd);
        if !harmless || !more || !budget.allows() {
            return None;
        }
        let mut next = deadline_after(now, self.backoff(self.number - 1));
        let mut up = false;
        match error {
            // The next one would be lost over the same publish.
            CallError::ConnectionLost(cause) if cause.kind() == ErrorKind::Denied => return None,
            CallError::ConnectionLost(_) => up = true,
            CallError::Publish(cause) => match cause.kind() {
                ErrorKind::Closed | ErrorKind::Connect => up = true,
                ErrorKind::Other | ErrorKind::Refused => {}
                _ => return None,
            },
            CallError::Remote(status) => match status.pushback() {
                Some(Pushback::Never) => return None,
                Some(Pushback::After(wait)) if passes(status) => next = deadline_after(now, wait),
                None if passes(status) && status.reason() != Some(&Reason::Shed) => {}
                _ => return None,
            },
            _ => return None,
        }
        self.number += 1;
        if !up {
            return Some(Next::RetryAt(next));
        }
        self.was_up = true;
        Some(self.when_up(next))
    }

    /// When a request is sent again that the service did not run, if at all.
    fn after_refusal(&mut self, now: Instant, status: &Status) -> Option<Instant> {
        match (status.reason()?, status.pushback()) {
            (Reason::Shed, Some(_)) if is(Mutant::PushbackIgnored) => Some(self.soon(now)),
            (Reason::Draining | Reason::Shed, Some(Pushback::After(wait))) => {
                Some(deadline_after(now, wait))
            }
            (Reason::Draining, None) => Some(self.soon(now)),
            _ => None,
        }
    }

    const fn when_up(&self, after: Instant) -> Next {
        Next::WhenUp {
            after,
            until: self.deadline,
        }
    }

    fn when_up_soon(&mut self, now: Instant) -> Next {
        let after = self.soon(now);
        self.when_up(after)
    }

    /// At once the first time; then after a wait, so that nothing spins.
    fn soon(&mut self, now: Instant) -> Instant {
        match self.transparent.checked_sub(1) {
            None => now,
            Some(round) => deadline_after(now, self.backoff(round)),
        }
    }

    fn backoff(&mut self, round: u32) -> Duration {
        let doubled = self.policy.first.saturating_mul(1 << round.min(16));
        let wait = doubled.min(self.policy.longest);
        self.jitter.between(wait / 5 * 4, wait / 5 * 6)
    }

    fn keep(&mut self, error: CallError) {
        let open = |error: &CallError| error.certainty() != Certainty::NotExecuted;
        let last = is(Mutant::LastErrorSpeaksForAll);
        if open(&error) || last || !self.kept.as_ref().is_some_and(open) {
            self.kept = Some(error);
        }
    }

    /// The error of the whole call, of which `error` is that of the last attempt.
    fn last(&mut self, error: CallError) -> CallError {
        self.keep(error);
        self.give_up()
    }
}

/// Whether a failure counts against the budget: the service, or the way to it, is in trouble. A lost
/// connection ends many calls and is one event, and the link that makes the next one waits itself.
fn costs(error: &CallError) -> bool {
    match error {
        CallError::GivenUp { .. } | CallError::Closed { .. } | CallError::ConnectionLost(_) => {
            false
        }
        CallError::Publish(cause) if cause.kind() == ErrorKind::Closed => false,
        error => error.certainty() == Certainty::MaybeExecuted || strains(error),
    }
}

/// Whether nobody listens.
fn is_no_route(error: &CallError) -> bool {
    matches!(error, CallError::Publish(cause) if cause.kind() == ErrorKind::NoRoute)
}

/// Whether the broker had no room for the request, or failed at it. Where that is certain the request
/// did not run, and yet a repetition is not free: what is full gets the same once more. It must not be
/// hopeless either, or a caller who knows more would be served worse.
fn strains(error: &CallError) -> bool {
    matches!(error, CallError::Publish(cause)
        if matches!(cause.kind(), ErrorKind::Refused | ErrorKind::Other))
}

/// Whether what the framework of the service objects to will pass.
fn passes(status: &Status) -> bool {
    status.origin() == Origin::Framework
        && match status.reason() {
            Some(Reason::Draining | Reason::Shed) => true,
            Some(Reason::Other(_)) => status.code() == Code::Unavailable,
            _ => false,
        }
}
