//! Running one seed, running many, and making a broken one small.

use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::mix::{Fault, Faults, Mix};
use crate::outcome::{Outcome, Report};
use crate::rule::{Breach, Rule};
use crate::setting::Setting;
use crate::world::World;

/// What to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// Faults that do not happen, whatever the seed says.
    pub without: Faults,
    /// Only the first so many calls.
    pub calls: Option<usize>,
    /// Keep the trace.
    pub keep_trace: bool,
}

impl Options {
    /// All of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            without: Faults::NONE,
            calls: None,
            keep_trace: false,
        }
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}", self.seed)?;
        if let Some(calls) = self.calls {
            write!(f, ", {calls} calls")?;
        }
        Ok(())
    }
}

/// Runs one seed. When it breaks a promise, the outcome has the trace.
#[must_use]
pub fn run(seed: u64) -> Outcome {
    let outcome = run_with(Options::new(seed));
    if outcome.breaches.is_empty() {
        return outcome;
    }
    // As it did before, or there is nothing to be learnt from the trace.
    same_again(&outcome)
}

/// Runs one seed twice.
#[must_use]
pub fn run_twice(seed: u64) -> Outcome {
    same_again(&run_with(Options::new(seed)))
}

/// Does again what came out like this, keeps its trace if a promise is broken, and takes it for one
/// that the trace is the same.
fn same_again(first: &Outcome) -> Outcome {
    let mut second = run_with(Options {
        keep_trace: true,
        ..first.options
    });
    if second.trace_hash != first.trace_hash {
        let (one, two) = (first.trace_hash, second.trace_hash);
        let last = second.trace.last().map_or(0, |line| line.at);
        second.breaches.insert(
            0,
            Breach {
                rule: Rule::SameTrace,
                at: last,
                call: None,
                detail: format!("its trace was {one:016x}, and is {two:016x}"),
            },
        );
    }
    if second.breaches.is_empty() {
        second.trace = Vec::new();
    }
    second
}

/// Runs one seed with options.
#[must_use]
pub fn run_with(options: Options) -> Outcome {
    let mix = Mix::draw(options.seed, options.without);
    let setting = Setting::draw(options.seed, &mix, options.calls);
    let mut world = World::new(options.seed, mix, setting, options.keep_trace);
    // What the world looked like when a machine panicked is what somebody wants to read.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
        let said = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        let detail = said.unwrap_or("a panic without words");
        world.ledger.breach(Rule::NoPanic, None, detail);
    }
    Outcome {
        options,
        faults: mix.faults(),
        counts: world.ledger.counts,
        trace_hash: world.wire.trace.hash(),
        breaches: world.ledger.breaches,
        trace: world.wire.trace.into_lines(),
    }
}

/// Runs seeds on two threads, until one too many is broken or `progress`, which is told how many are
/// done, says not to go on.
pub fn run_seeds(seeds: Range<u64>, progress: impl Fn(u64) -> bool + Sync) -> Report {
    let report = Mutex::new(Report::default());
    let done = AtomicU64::new(0);
    each(
        seeds,
        || (),
        |outcome| {
            let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
            report.seeds += 1;
            report.counts += outcome.counts;
            if !outcome.breaches.is_empty() {
                report.broken.push(outcome);
            }
            let enough = report.broken.len() >= ENOUGH;
            drop(report);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1) && !enough
        },
    );
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.broken.sort_by_key(|outcome| outcome.options.seed);
    report
}

/// Looks for the first broken seed, on two threads, each of which does `before` first.
#[must_use]
pub fn hunt(seeds: Range<u64>, before: impl Fn() + Sync) -> Option<Outcome> {
    let found: Mutex<Option<Outcome>> = Mutex::new(None);
    each(seeds, before, |outcome| {
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        if !outcome.breaches.is_empty() {
            let first = found
                .as_ref()
                .is_none_or(|known| outcome.options.seed < known.options.seed);
            if first {
                *found = Some(outcome);
            }
        }
        // The other thread finishes the seed it is at, which may be an earlier one.
        found.is_none()
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Runs seeds in order, on two threads, for as long as `take` wants more.
fn each(seeds: Range<u64>, before: impl Fn() + Sync, take: impl Fn(Outcome) -> bool + Sync) {
    let next = AtomicU64::new(seeds.start);
    let stopped = AtomicBool::new(false);
    let work = || {
        before();
        while !stopped.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let outcome = if seed.is_multiple_of(SAMPLE) {
                run_twice(seed)
            } else {
                run(seed)
            };
            if !take(outcome) {
                stopped.store(true, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(work);
        }
    });
}

/// Makes a broken seed small: as few kinds of fault and as few calls as still break the same rule.
///
/// Returns the outcome as it was when it breaks nothing.
#[must_use]
pub fn shrink(outcome: Outcome) -> Outcome {
    let Some(rule) = outcome.breaches.first().map(|breach| breach.rule) else {
        return outcome;
    };
    let mut best = Options {
        keep_trace: false,
        ..outcome.options
    };
    let breaks = |options: Options| {
        let mut outcome = run_with(options);
        if rule == Rule::SameTrace {
            outcome = same_again(&outcome);
        }
        let breaches = outcome.breaches;
        breaches.first().is_some_and(|breach| breach.rule == rule)
    };
    for &fault in Fault::ALL {
        let fewer = Options {
            without: best.without.with(fault),
            ..best
        };
        if breaks(fewer) {
            best = fewer;
        }
    }
    let mut most = usize::try_from(outcome.counts.calls).unwrap_or(usize::MAX);
    while most > 1 {
        let half = most / 2;
        let fewer = Options {
            calls: Some(half),
            ..best
        };
        if !breaks(fewer) {
            break;
        }
        (best, most) = (fewer, half);
    }
    same_again(&run_with(best))
}

const THREADS: usize = 2;
/// Of so many seeds one is run twice.
const SAMPLE: u64 = 1_000;
/// Broken seeds after which there is no point in looking for more.
const ENOUGH: usize = 5;
