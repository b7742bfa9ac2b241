//! The ledger: every call, every attempt, every execution, written down as it happens, by people who
//! do not ask the machines what they think.

mod record;
mod way;

use std::collections::HashMap;

use rpc_proto::{Message, ShortString};

pub use self::record::Counts;
pub(crate) use self::record::{Attempt, Call, End, Execution, Failure, Refusal, Started};
pub(crate) use self::way::{DELIVERY_LIMIT, EXPIRED, REJECTED, is_poison};
use crate::rule::{Breach, Rule};
use crate::setting::Setting;
use crate::time::{MS, Micros};

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
    /// How often a request in quarantine is delivered in vain before it is poison, if ever.
    limit: Option<u32>,
    budgets: Vec<Budget>,
}

/// What a client process has earned and spent.
#[derive(Clone, Copy, Debug, Default)]
struct Budget {
    successes: u64,
    retries: u64,
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
            // A queue that does not count gives nobody a second chance.
            limit: setting
                .quarantine
                .map(|limit| if setting.quorum { limit } else { 1 }),
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
            ..Attempt::default()
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
}

/// How much later than its deadline a call may end: timers here are exact.
const SLACK: Micros = 5 * MS;
