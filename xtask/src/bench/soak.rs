//! `cargo xtask bench soak`: what only time shows.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use super::cell::{Bench, Cell, Outcome, Span};
use super::compare::write;
use super::environment::Environment;
use super::statistics::Spread;
use super::table::number;
use crate::Verdict;
use crate::run::echo;

/// Options of `soak`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Options {
    /// For how long
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Which of ours
    #[arg(long, default_value = "ours-lapin", value_parser = OURS)]
    what: String,
    /// How many calls are open at a time
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Write all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Report {
    environment: Environment,
    cell: Cell,
    /// Seconds from one to the next.
    every: f64,
    looks: Vec<Outcome>,
}

/// The command `bench soak`, with the default guarantees.
pub(super) fn run(options: &Options) -> Result<Verdict> {
    let what = OURS.into_iter().find(|what| *what == options.what);
    let cell = Cell::new(what.unwrap_or(OURS[0]), Some(true), options.in_flight);
    let span = Span {
        seconds: options.minutes * 60.0,
        warm_up: 1.0,
        counting: false,
    };
    // A hundred lines or so.
    let every = (span.seconds / 100.0).max(1.0);
    let bench = Bench::open()?;
    let environment = Environment::look(bench.broker.clone())?;
    eprintln!("{cell} for {} minutes", options.minutes);
    let mut looks: Vec<Outcome> = Vec::new();
    bench.soak(&cell, span, every, |outcome| {
        eprintln!(
            "  {:>6.0} s {:>8} calls/s, p99 {:>7} µs, {:>6} MiB, {} descriptors, {} threads",
            every * (looks.len() + 1) as f64,
            number(outcome.calls_per_second),
            number(outcome.latency_us.p99),
            number(outcome.memory_mib.both()),
            outcome.descriptors.both(),
            outcome.threads.both(),
        );
        looks.push(outcome);
    })?;
    bench.close()?;
    let report = Report {
        environment,
        cell,
        every,
        looks,
    };
    echo(&format!("\n{}\n", report.environment.describe()));
    let mut verdict = Verdict::Passed;
    for growth in growths(&report.looks) {
        let grew = growth.is_too_much();
        if grew {
            verdict = Verdict::Failed;
        }
        echo(&format!(
            "{:24} {:>8} then {:>8} {}",
            growth.of,
            number(growth.early),
            number(growth.late),
            if grew { "GREW" } else { "" },
        ));
    }
    if let Some(path) = &options.json {
        write(path, serde_json::to_string_pretty(&report)?)?;
    }
    Ok(verdict)
}

/// The medians of the second quarter and of the last.
struct Growth {
    of: &'static str,
    early: f64,
    late: f64,
    /// By how much it may grow; without, whatever it likes.
    slack: Option<f64>,
}

impl Growth {
    fn is_too_much(&self) -> bool {
        let slack = self.slack.map(|slack| slack + self.early * PART);
        slack.is_some_and(|slack| self.late > self.early + slack)
    }
}

fn growths(looks: &[Outcome]) -> Vec<Growth> {
    type Figure = fn(&Outcome) -> f64;
    let figures: [(&str, Figure, Option<f64>); 5] = [
        ("memory, MiB", |look| look.memory_mib.both(), Some(4.0)),
        ("descriptors", |look| look.descriptors.both(), Some(4.0)),
        ("threads", |look| look.threads.both(), Some(4.0)),
        ("p99, µs", |look| look.latency_us.p99, None),
        ("calls/s", |look| look.calls_per_second, None),
    ];
    let quarter = looks.len() / 4;
    let of = |(of, figure, slack): (&'static str, Figure, Option<f64>)| {
        let median = |part: &[Outcome]| Spread::of(part.iter().map(figure));
        Some(Growth {
            of,
            early: median(looks.get(quarter..quarter * 2)?)?.median,
            late: median(looks.get(looks.len() - quarter..)?)?.median,
            slack,
        })
    };
    figures.into_iter().filter_map(of).collect()
}

const OURS: [&str; 4] = [
    "ours-lapin",
    "ours-lapin-blocking",
    "ours-amiquip",
    "ours-amiquip-async",
];

/// By what part of itself a figure may grow, besides its slack.
const PART: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_too_much_beyond_its_slack() {
        let growth = |late, slack| Growth {
            of: "memory",
            early: 100.0,
            late,
            slack,
        };
        assert!(!growth(113.0, Some(4.0)).is_too_much());
        assert!(growth(115.0, Some(4.0)).is_too_much());
        assert!(!growth(1e9, None).is_too_much());
    }

    #[test]
    fn nothing_grows_in_no_time() {
        assert_eq!(growths(&[]).len(), 0);
    }
}
