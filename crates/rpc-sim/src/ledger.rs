//! The ledger: every call, every attempt, every execution, written down as it happens, by people who
//! do not ask the machines what they think.

use std::collections::HashMap;

use rpc_proto::{Certainty, Message, Pushback, ShortString};

use crate::rule::{Breach, Rule};
use crate::setting::Setting;
use crate::time::{MS, Micros};

/// A call, from its beginning to its end.
#[derive(Debug, Default)]
pub(crate) struct Call {
    /// Begun, and by then due.
    pub(crate) begun: Option<(Micros, Micros)>,
    pub(crate) ended: Option<(Micros, End)>,
    /// Its client was killed: nobody waits.
    pub(crate) orphaned: bool,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) executions: Vec<Execution>,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Ok,
    Failed(Certainty, String),
    /// The caller did not wait for it.
    GivenUp,
}

/// One attempt at a call.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) at: Micros,
    pub(crate) message_id: Option<ShortString>,
    pub(crate) ended: Option<Failure>,
    pub(crate) redeliveries: usize,
    /// How often of these the broker did not say so: it had forgotten.
    pub(crate) forgotten: usize,
    /// An answer of any kind reached the broker, or it is certain that none will.
    pub(crate) answered: bool,
    /// How often the request was handed on to the quarantine queue.
    pub(crate) forwarded: usize,
    /// How often of these the broker did not answer for it: it ran where it was.
    pub(crate) disowned: usize,
    /// The broker or its crash took the request away.
    pub(crate) gone: Option<&'static str>,
    pub(crate) dead_lettered: bool,
}

/// How an attempt failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) at: Micros,
    pub(crate) certainty: Certainty,
    /// What the service said of trying again.
    pub(crate) pushback: Option<Pushback>,
    /// Because there were too many.
    pub(crate) shed: bool,
    /// One lost connection ended this attempt and others with it: that costs no token.
    pub(crate) loss: bool,
}

/// One start of a handler.
#[derive(Debug)]
pub(crate) struct Execution {
    pub(crate) at: Micros,
    /// The place of its attempt among those of the call.
    pub(crate) attempt: usize,
    pub(crate) worker: usize,
    pub(crate) message_id: Option<ShortString>,
    /// Which life of the worker.
    pub(crate) life: u32,
    /// When it ended, and whether it had run to an end of its own.
    pub(crate) finished: Option<(Micros, bool)>,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) calls: Vec<Call>,
    attempts: HashMap<ShortString, (usize, usize)>,
    pub(crate) breaches: Vec<Breach>,
    pub(crate) now: Micros,
    pub(crate) counts: Counts,
    /// Requests are acknowledged before they run.
    at_most_once: bool,
    budgets: Vec<Budget>,
}

/// What a client process has earned and spent.
#[derive(Clone, Copy, Debug, Default)]
struct Budget {
    successes: u64,
    retries: u64,
}

/// How much happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Calls begun.
    pub calls: u64,
    /// Calls that ended with a result.
    pub ok: u64,
    /// Calls that ended with an error.
    pub failed: u64,
    /// Attempts.
    pub attempts: u64,
    /// Handlers started.
    pub executions: u64,
    /// Deliveries marked as repeated.
    pub redeliveries: u64,
    /// Events of the world.
    pub events: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.ok += other.ok;
        self.failed += other.failed;
        self.attempts += other.attempts;
        self.executions += other.executions;
        self.redeliveries += other.redeliveries;
        self.events += other.events;
    }
}

impl Ledger {
    pub(crate) fn new(setting: &Setting) -> Self {
        let mut calls = Vec::new();
        calls.resize_with(setting.calls.len(), Call::default);
        Self {
            calls,
            attempts: HashMap::new(),
            breaches: Vec::new(),
            now: 0,
            counts: Counts::default(),
            at_most_once: setting.at_most_once,
            budgets: vec![Budget::default(); setting.clients],
        }
    }

    pub(crate) fn breach(&mut self, rule: Rule, call: Option<usize>, detail: impl Into<String>) {
        self.breaches.push(Breach {
            rule,
            at: self.now,
            call,
            detail: detail.into(),
        });
    }

    pub(crate) fn begun(&mut self, call: usize, deadline: Micros) {
        self.counts.calls += 1;
        self.calls[call].begun = Some((self.now, deadline));
    }

    /// The caller has been told. `late_from` is when the process last was able to tell anybody.
    pub(crate) fn ended(&mut self, call: usize, end: End, late_from: Micros) {
        match end {
            End::Ok => self.counts.ok += 1,
            End::Failed(..) => self.counts.failed += 1,
            End::GivenUp => {}
        }
        let now = self.now;
        let record = &mut self.calls[call];
        let Some((_, deadline)) = record.begun else {
            return self.breach(Rule::EndsOnce, Some(call), "ended before it began");
        };
        if let Some((_, earlier)) = &record.ended {
            let detail = format!("{end:?} after {earlier:?}");
            return self.breach(Rule::EndsOnce, Some(call), detail);
        }
        record.ended = Some((now, end));
        if now > deadline.max(late_from) + SLACK {
            let over = now - deadline;
            self.breach(Rule::EndsInTime, Some(call), format!("{over} us too late"));
        }
    }

    pub(crate) fn attempt(&mut self, call: usize, message: &Message) {
        self.counts.attempts += 1;
        let Some(correlation_id) = message.correlation_id.clone() else {
            return self.breach(Rule::Attempts, Some(call), "without a correlation id");
        };
        let place = self.calls[call].attempts.len();
        let known = self.attempts.insert(correlation_id, (call, place));
        self.calls[call].attempts.push(Attempt {
            at: self.now,
            message_id: message.message_id.clone(),
            ended: None,
            redeliveries: 0,
            forgotten: 0,
            answered: false,
            forwarded: 0,
            disowned: 0,
            gone: None,
            dead_lettered: false,
        });
        if known.is_some() {
            self.breach(
                Rule::Attempts,
                Some(call),
                "a correlation id was used twice",
            );
        }
    }

    /// A client process begins, with a budget of its own.
    pub(crate) fn fresh_budget(&mut self, client: usize) {
        self.budgets[client] = Budget::default();
    }

    /// A retry that costs: what it is retried for may have run.
    pub(crate) fn charged(&mut self, client: usize, call: usize) {
        let budget = &mut self.budgets[client];
        budget.retries += 1;
        // Ten tokens, of which the lower five are never spent; a success gives a tenth.
        if budget.retries * 10 > 50 + budget.successes {
            let detail = format!("{budget:?}");
            self.breach(Rule::Budget, Some(call), detail);
        }
    }

    pub(crate) fn rewarded(&mut self, client: usize) {
        self.budgets[client].successes += 1;
    }

    /// The attempt that is open has failed.
    pub(crate) fn attempt_failed(&mut self, call: usize, failure: Failure) {
        if let Some(attempt) = self.calls[call].attempts.last_mut() {
            attempt.ended = Some(failure);
        }
    }

    /// A handler starts. Returns the numbers of the call and of this execution of it.
    pub(crate) fn executed(&mut self, message: &Started<'_>) -> Option<(usize, usize)> {
        self.counts.executions += 1;
        let (call, attempt) = self.find(message.correlation_id)?;
        let at = self.now;
        self.calls[call].executions.push(Execution {
            at,
            attempt,
            worker: message.worker,
            message_id: message.message_id.cloned(),
            life: message.life,
            finished: None,
        });
        Some((call, self.calls[call].executions.len() - 1))
    }

    pub(crate) fn finished(&mut self, (call, execution): (usize, usize), by_itself: bool) {
        self.calls[call].executions[execution].finished = Some((self.now, by_itself));
    }

    pub(crate) fn find(&self, correlation_id: Option<&ShortString>) -> Option<(usize, usize)> {
        self.attempts.get(correlation_id?).copied()
    }

    /// The number of the call that a message belongs to, for the trace.
    pub(crate) fn number(&self, message: &Message) -> u64 {
        self.find(message.correlation_id.as_ref())
            .map_or(u64::MAX, |(call, _)| call as u64)
    }

    fn attempt_of(&mut self, message: &Message) -> Option<&mut Attempt> {
        let (call, attempt) = self.find(message.correlation_id.as_ref())?;
        self.calls[call].attempts.get_mut(attempt)
    }

    // What the broker reports.

    pub(crate) fn delivered(&mut self, message: &Message, redelivered: bool, forgotten: bool) {
        let again = redelivered || forgotten;
        self.counts.redeliveries += u64::from(again);
        if let Some(attempt) = self.attempt_of(message) {
            attempt.redeliveries += usize::from(again);
            attempt.forgotten += usize::from(forgotten && !redelivered);
        }
    }

    /// A reply was put into an inbox, or nobody was there to take it.
    pub(crate) fn answered(&mut self, message: &Message) {
        if message.kind.as_ref() == Some(&rpc_proto::wire::REPLY_TYPE)
            && let Some(attempt) = self.attempt_of(message)
        {
            attempt.answered = true;
        }
    }

    /// A request is in the quarantine queue, whether or not the broker will say so.
    pub(crate) fn quarantined(&mut self, message: &Message, confirmed: bool) {
        if let Some(attempt) = self.attempt_of(message) {
            attempt.forwarded += 1;
            attempt.disowned += usize::from(!confirmed);
        }
    }

    /// A reply will never reach its caller, and the worker knows it.
    pub(crate) fn unanswerable(&mut self, correlation_id: Option<&ShortString>) {
        if let Some((call, attempt)) = self.find(correlation_id) {
            self.calls[call].attempts[attempt].answered = true;
        }
    }

    /// A handler was stopped, because somebody said that nobody awaits its answer.
    pub(crate) fn cancelled(&mut self, correlation_id: Option<&ShortString>) {
        let Some((call, place)) = self.find(correlation_id) else {
            return;
        };
        let record = &mut self.calls[call];
        let attempt = &mut record.attempts[place];
        attempt.answered = true;
        if record.ended.is_none() && !record.orphaned && attempt.ended.is_none() {
            self.breach(Rule::Cancelled, Some(call), "stopped, and its caller waits");
        }
    }

    /// A worker has acknowledged a request.
    pub(crate) fn acknowledged(&mut self, message: &Message) {
        let nobody = message.reply_to.is_none() || self.at_most_once;
        let Some((call, attempt)) = self.find(message.correlation_id.as_ref()) else {
            return;
        };
        let attempt = &self.calls[call].attempts[attempt];
        if !nobody && !attempt.answered && attempt.forwarded == 0 {
            self.breach(
                Rule::AnswerBeforeAck,
                Some(call),
                "acknowledged and not answered",
            );
        }
    }

    pub(crate) fn gone(&mut self, message: &Message, why: &'static str) {
        if let Some(attempt) = self.attempt_of(message) {
            attempt.gone = Some(why);
        }
    }

    pub(crate) fn dead_lettered(&mut self, message: &Message) {
        if let Some(attempt) = self.attempt_of(message) {
            attempt.dead_lettered = true;
        }
    }

    pub(crate) fn unknown_tag(&mut self, consumer: u64, tag: u64) {
        let detail = format!("delivery {tag} of consumer {consumer} is not open");
        self.breach(Rule::TokenOnce, None, detail);
    }
}

/// A request as its handler gets it.
#[derive(Debug)]
pub(crate) struct Started<'a> {
    pub(crate) correlation_id: Option<&'a ShortString>,
    pub(crate) message_id: Option<&'a ShortString>,
    pub(crate) worker: usize,
    pub(crate) life: u32,
}

/// How much later than its deadline a call may end: timers here are exact.
const SLACK: Micros = 5 * MS;
