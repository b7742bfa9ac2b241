//! The rules of the ledger, and what is counted besides.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use rpc_core::Certainty;
use serde::Serialize;

use super::book::{Outcome, Record};
use super::clock::{Micros, micros};
use super::work::Execution;

/// What a run must keep besides the rules that always hold.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Rules {
    /// The share of calls that must be answered right.
    pub ok_share: f64,
    /// What may run more than once.
    pub duplicates: Duplicates,
    /// How late a call may end.
    pub overrun: Duration,
    /// How late a handler may start: the time between the check of the deadline and the first line of
    /// the handler, on a machine that is busy.
    pub slack: Duration,
}

/// What may run more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the checker knows all of them")]
pub enum Duplicates {
    /// Nothing.
    None,
    /// Requests that were delivered again, or sent again as another attempt: each as often as that.
    Accounted,
    /// Those too that came from a broker which was killed. What it had delivered comes again, and its
    /// word for "delivered before" was lost with it.
    OfTheBroker,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            ok_share: 0.0,
            duplicates: Duplicates::Accounted,
            overrun: Duration::from_secs(1),
            slack: Duration::from_millis(250),
        }
    }
}

impl Rules {
    /// Every call must be answered right.
    #[must_use]
    pub const fn all_right(mut self) -> Self {
        self.ok_share = 1.0;
        self
    }

    /// This share of the calls must be answered right.
    #[must_use]
    pub const fn with_ok_share(mut self, share: f64) -> Self {
        self.ok_share = share;
        self
    }

    /// Sets how late a call may end.
    #[must_use]
    pub const fn with_overrun(mut self, overrun: Duration) -> Self {
        self.overrun = overrun;
        self
    }

    /// Sets what may run more than once.
    #[must_use]
    pub const fn with_duplicates(mut self, duplicates: Duplicates) -> Self {
        self.duplicates = duplicates;
        self
    }
}

/// What came of all calls and all executions.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Tally {
    /// Calls begun.
    pub calls: u64,
    /// Calls that ended with the right answer.
    pub ok: u64,
    /// Calls that ended with a typed error.
    pub typed_errors: u64,
    /// Calls that ended later than the overrun allows, or not at all.
    pub hung: u64,
    /// Calls that ended with a wrong answer.
    pub wrong: u64,
    /// Calls that never ended, and executions of calls that were never made.
    pub unaccounted: u64,
    /// Times that a handler began.
    pub executions: u64,
    /// Calls of which a handler began.
    pub distinct: u64,
    /// Executions of requests that were delivered before.
    pub redeliveries: u64,
    /// Calls that ended as *not executed*, and were.
    pub not_executed_but_ran: u64,
    /// How long after its deadline the latest call ended, in milliseconds.
    pub max_overrun_ms: u64,
    /// Executions of further attempts.
    pub retries: u64,
    /// Calls that ended as *executed*, with an answer or an error, and of which no handler began.
    pub executed_but_did_not_run: u64,
    /// Executions that began after the deadline of their call, beyond the slack.
    pub expired_but_ran: u64,
    /// Calls that ran more often than their attempts and redeliveries account for.
    pub unaccounted_duplicates: u64,
    /// Typed errors by their reason.
    pub errors: BTreeMap<String, u64>,
}

#[derive(Default)]
struct Runs {
    all: u64,
    fresh: u64,
    attempts: u64,
    latest: Micros,
}

impl Tally {
    /// Counts.
    #[must_use]
    pub fn of(records: &[Record], work: &[Execution], rules: &Rules) -> Self {
        let mut tally = Self {
            calls: records.len() as u64,
            executions: work.len() as u64,
            ..Self::default()
        };
        let mut runs: HashMap<u64, Runs> = HashMap::new();
        for execution in work {
            let runs = runs.entry(execution.key).or_default();
            runs.all += 1;
            runs.fresh += u64::from(!execution.redelivered);
            runs.attempts = runs.attempts.max(execution.attempt);
            runs.latest = runs.latest.max(execution.started);
            tally.redeliveries += u64::from(execution.redelivered);
            tally.retries += u64::from(execution.attempt > 1);
        }
        tally.distinct = runs.len() as u64;
        for (key, record) in (0u64..).zip(records) {
            tally.count(record, &runs.remove(&key).unwrap_or_default(), rules);
        }
        // What is left belongs to no call.
        tally.unaccounted += runs.len() as u64;
        tally
    }

    fn count(&mut self, record: &Record, runs: &Runs, rules: &Rules) {
        match record.ended {
            None => {
                self.unaccounted += 1;
                self.hung += 1;
            }
            Some(ended) => {
                let overrun = ended.saturating_sub(record.deadline);
                self.max_overrun_ms = self.max_overrun_ms.max(overrun / 1_000);
                self.hung += u64::from(overrun > micros(rules.overrun));
            }
        }
        match &record.outcome {
            None => {}
            Some(Outcome::Right) => {
                self.ok += 1;
                self.executed_but_did_not_run += u64::from(runs.all == 0);
            }
            Some(Outcome::Wrong) => self.wrong += 1,
            Some(Outcome::Failed {
                reason, certainty, ..
            }) => {
                self.typed_errors += 1;
                *self.errors.entry(reason.clone()).or_default() += 1;
                let denied = *certainty == Certainty::NotExecuted;
                self.not_executed_but_ran += u64::from(denied && runs.all > 0);
                let claimed = *certainty == Certainty::Executed;
                self.executed_but_did_not_run += u64::from(claimed && runs.all == 0);
            }
        }
        let late = runs.latest > record.deadline + micros(rules.slack);
        self.expired_but_ran += u64::from(late);
        let excused = match rules.duplicates {
            Duplicates::None => runs.all <= 1,
            // The first delivery of each attempt is the one that is not marked as redelivered.
            Duplicates::Accounted => runs.fresh <= runs.attempts,
            Duplicates::OfTheBroker => true,
        };
        self.unaccounted_duplicates += u64::from(!excused);
    }

    /// The rules that do not hold, in words.
    #[must_use]
    pub fn breaches(&self, rules: &Rules) -> Vec<String> {
        let mut breaches = Vec::new();
        let mut none = |count: u64, what: &str| {
            if count > 0 {
                breaches.push(format!("{count} {what}"));
            }
        };
        none(self.hung, "calls ended too late or not at all");
        none(self.wrong, "calls got a wrong answer");
        none(
            self.unaccounted,
            "calls or executions are not accounted for",
        );
        none(
            self.not_executed_but_ran,
            "calls ended as not executed and ran",
        );
        none(
            self.executed_but_did_not_run,
            "calls ended as executed and did not run",
        );
        none(self.expired_but_ran, "requests ran after their deadline");
        none(
            self.unaccounted_duplicates,
            "calls ran more often than redeliveries and attempts account for",
        );
        let ended = self.ok + self.wrong + self.typed_errors;
        if ended + self.hung < self.calls {
            breaches.push(format!("{} calls, and {ended} ends", self.calls));
        }
        // Shares are for people; a single call in a million is not lost in the rounding.
        let missing = self.calls.saturating_sub(self.ok) as f64;
        if missing > self.calls as f64 * (1.0 - rules.ok_share) + 1e-6 {
            breaches.push(format!(
                "{} of {} calls were answered, and {:.2} % must be",
                self.ok,
                self.calls,
                rules.ok_share * 100.0
            ));
        }
        breaches
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rpc_core::Code;

    fn ended(after_the_deadline: i64, outcome: Outcome) -> Record {
        let deadline: Micros = 10_000_000;
        Record {
            begun: 0,
            deadline,
            ended: Some(deadline.saturating_add_signed(after_the_deadline)),
            outcome: Some(outcome),
        }
    }

    fn failed(certainty: Certainty) -> Outcome {
        Outcome::Failed {
            code: Code::Unavailable,
            reason: "NO_ROUTE".into(),
            certainty,
        }
    }

    fn run(key: u64, attempt: u64, redelivered: bool) -> Execution {
        Execution {
            attempt,
            redelivered,
            ..Execution::fresh(key, 5_000_000, None)
        }
    }

    fn breaches(records: &[Record], work: &[Execution], rules: Rules) -> Vec<String> {
        Tally::of(records, work, &rules).breaches(&rules)
    }

    #[test]
    fn a_clean_run_breaks_no_rule() {
        let records = [
            ended(-5, Outcome::Right),
            ended(900_000, failed(Certainty::NotExecuted)),
        ];
        let rules = Rules::default().with_ok_share(0.5);
        assert!(breaches(&records, &[run(0, 1, false)], rules).is_empty());
        let tally = Tally::of(&records, &[run(0, 1, false)], &rules);
        assert_eq!(
            (tally.ok, tally.typed_errors, tally.max_overrun_ms),
            (1, 1, 900)
        );
        assert_eq!(tally.errors["NO_ROUTE"], 1);
    }

    #[test]
    fn not_executed_that_ran_is_the_worst() {
        let records = [ended(0, failed(Certainty::NotExecuted))];
        let found = breaches(&records, &[run(0, 1, false)], Rules::default());
        assert_eq!(found, ["1 calls ended as not executed and ran"]);
        let records = [ended(0, failed(Certainty::MaybeExecuted))];
        assert!(breaches(&records, &[run(0, 1, false)], Rules::default()).is_empty());
    }

    #[test]
    fn executed_means_that_it_ran() {
        for outcome in [Outcome::Right, failed(Certainty::Executed)] {
            let records = [ended(0, outcome)];
            let found = breaches(&records, &[], Rules::default());
            assert_eq!(found, ["1 calls ended as executed and did not run"]);
            assert!(breaches(&records, &[run(0, 1, false)], Rules::default()).is_empty());
        }
    }

    #[test]
    fn a_late_end_hangs_and_no_end_is_not_accounted_for() {
        let late = [ended(1_000_001, Outcome::Right)];
        let found = breaches(&late, &[run(0, 1, false)], Rules::default());
        assert_eq!(found, ["1 calls ended too late or not at all"]);
        let open = Record {
            ended: None,
            outcome: None,
            ..ended(0, Outcome::Right)
        };
        assert_eq!(breaches(&[open], &[], Rules::default()).len(), 2);
    }

    #[test]
    fn what_ran_twice_needs_a_redelivery_or_an_attempt() {
        let records = [ended(0, Outcome::Right)];
        let twice = [run(0, 1, false), run(0, 1, false)];
        let again = [run(0, 1, false), run(0, 1, true)];
        let retried = [run(0, 1, false), run(0, 2, false)];
        let rules = Rules::default();
        assert_eq!(breaches(&records, &twice, rules).len(), 1);
        assert!(breaches(&records, &again, rules).is_empty());
        assert!(breaches(&records, &retried, rules).is_empty());
        let strict = rules.with_duplicates(Duplicates::None);
        assert_eq!(breaches(&records, &again, strict).len(), 1);
    }

    #[test]
    fn work_for_nobody_and_work_too_late_are_found() {
        let records = [ended(0, Outcome::Right)];
        let stray = [run(0, 1, false), run(5, 1, false)];
        assert_eq!(breaches(&records, &stray, Rules::default()).len(), 1);
        let late = Execution {
            started: 10_300_000,
            ..run(0, 1, false)
        };
        assert_eq!(breaches(&records, &[late], Rules::default()).len(), 1);
    }

    #[test]
    fn one_wrong_call_in_a_million_is_not_lost_in_a_share() {
        let mut tally = Tally {
            calls: 1_000_000,
            ok: 999_999,
            typed_errors: 1,
            ..Tally::default()
        };
        let rules = Rules::default().all_right();
        assert_eq!(tally.breaches(&rules).len(), 1);
        tally.ok += 1;
        tally.typed_errors = 0;
        assert!(tally.breaches(&rules).is_empty());
    }
}
