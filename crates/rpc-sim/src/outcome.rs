//! What came of a seed, and of many.

use std::fmt;
use std::process::Command;

use crate::ledger::Counts;
use crate::mix::Faults;
use crate::rule::Breach;
use crate::run::Options;
use crate::trace::Line;

/// What came of one seed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// What was run.
    pub options: Options,
    /// The faults it had.
    pub faults: Faults,
    /// How much happened.
    pub counts: Counts,
    /// Of the whole trace: the same for the same options, always.
    pub trace_hash: u64,
    /// Broken promises. The world stops at the first.
    pub breaches: Vec<Breach>,
    /// The trace, if it was asked for.
    pub trace: Vec<Line>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            options,
            faults,
            counts,
            trace_hash,
            ..
        } = self;
        writeln!(
            f,
            "{options} at {}: {} calls, {} executions, trace {trace_hash:016x}, with {faults}",
            commit(),
            counts.calls,
            counts.executions,
        )?;
        for breach in &self.breaches {
            writeln!(f, "  broken: {breach}")?;
        }
        for line in &self.trace[self.trace.len().saturating_sub(TAIL)..] {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}

/// What came of many seeds.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Seeds that were run.
    pub seeds: u64,
    /// What happened in all of them.
    pub counts: Counts,
    /// Those that broke a promise, in the order of their seeds; no more than the first few.
    pub broken: Vec<Outcome>,
}

/// The commit that was run, so that a seed can be run again.
fn commit() -> String {
    Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "no commit".to_owned(), |text| text.trim().to_owned())
}

const TAIL: usize = 40;
