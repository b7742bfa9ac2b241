//! `cargo xtask bench compare`: ours and hand-written loops, in turns.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::cell::{Bench, Cell, Each, Outcome, Span};
use super::environment::Environment;
use super::statistics::Spread;
use super::table;
use super::targets::{self, Judged};
use crate::Verdict;
use crate::run::{check_interrupted, echo};

/// Options of `compare`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Options {
    /// A minute or two: the most important rows, in short rounds
    #[arg(long)]
    quick: bool,
    /// How often each row is measured [default: 5, with --quick 3]
    #[arg(long)]
    rounds: Option<usize>,
    /// For how long, in seconds [default: 2, with --quick 0.5]
    #[arg(long)]
    seconds: Option<f64>,
    /// Only rows whose name contains one of these, such as ours-lapin/bare/64
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Write all figures of all rounds to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A cell and what was measured of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    #[serde(flatten)]
    pub(super) cell: Cell,
    /// One for each round; none where it failed.
    pub(super) rounds: Vec<Option<Outcome>>,
    /// For each call.
    pub(super) allocations: Option<Each>,
}

impl Row {
    const fn new(cell: Cell) -> Self {
        Self {
            cell,
            rounds: Vec::new(),
            allocations: None,
        }
    }

    /// A figure over all rounds.
    pub(super) fn spread(&self, figure: impl Fn(&Outcome) -> f64) -> Option<Spread> {
        Spread::of(self.rounds.iter().flatten().map(figure))
    }

    /// Its throughput as a part of another's, round by round.
    pub(super) fn against(&self, other: &Self) -> Option<Spread> {
        let pairs = self.rounds.iter().zip(&other.rounds);
        Spread::of(pairs.filter_map(|(one, other)| {
            Some(one.as_ref()?.calls_per_second / other.as_ref()?.calls_per_second)
        }))
    }
}

/// All that is written to files.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) environment: Environment,
    pub(super) seconds: f64,
    pub(super) rounds: usize,
    pub(super) rows: Vec<Row>,
    pub(super) targets: Vec<Judged>,
}

/// The command `bench compare`.
pub(super) fn run(options: &Options) -> Result<Verdict> {
    let mut rows: Vec<_> = cells(options.quick).into_iter().map(Row::new).collect();
    if !options.only.is_empty() {
        rows.retain(|row| {
            let name = row.cell.to_string();
            options.only.iter().any(|part| name.contains(part))
        });
    }
    if rows.is_empty() {
        bail!("no row has a name that contains one of {:?}", options.only);
    }
    let rounds = options.rounds.unwrap_or(if options.quick { 3 } else { 5 });
    let seconds = options
        .seconds
        .unwrap_or(if options.quick { 0.5 } else { 2.0 });
    let span = Span {
        seconds,
        warm_up: (seconds / 4.0).max(0.2),
        counting: false,
    };

    let bench = Bench::open()?;
    let environment = Environment::look(bench.broker.clone())?;
    if environment.is_busy() {
        eprintln!("others are at work on this machine: the numbers will be worth little");
    }
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for row in &mut rows {
            let outcome = attempt(&bench, &row.cell, span)?;
            row.rounds.push(outcome);
        }
    }
    count_allocations(&bench, &mut rows)?;
    bench.close()?;

    let targets = targets::judge(&rows);
    let report = Report {
        environment,
        seconds,
        rounds,
        rows,
        targets,
    };
    echo(&format!("\n{}\n", report.environment.describe()));
    echo(&table::rows(&report.rows).to_string());
    if !report.targets.is_empty() {
        echo(&format!("\n{}", table::targets(&report.targets)));
    }
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let complete = |row: &Row| row.rounds.iter().all(Option::is_some);
    Ok(if report.rows.iter().all(complete) {
        Verdict::Passed
    } else {
        Verdict::Failed
    })
}

/// Measures a cell, or says why it could not be.
pub(super) fn attempt(bench: &Bench, cell: &Cell, span: Span) -> Result<Option<Outcome>> {
    check_interrupted()?;
    match bench.measure(cell, span) {
        Ok(outcome) => {
            let Outcome {
                calls_per_second,
                latency_us,
                cpu_us,
                ..
            } = &outcome;
            eprintln!(
                "  {:30} {:>9} calls/s, p50 {:>6} µs, p99 {:>6} µs, CPU {:>5} µs",
                cell.to_string(),
                table::number(*calls_per_second),
                table::number(latency_us.p50),
                table::number(latency_us.p99),
                table::number(cpu_us.both()),
            );
            Ok(Some(outcome))
        }
        Err(error) => {
            check_interrupted()?;
            eprintln!("  {error:#}");
            Ok(None)
        }
    }
}

/// A short pass with the program that counts, in which nothing is timed.
fn count_allocations(bench: &Bench, rows: &mut [Row]) -> Result<()> {
    eprintln!("allocations");
    let span = Span {
        seconds: 0.3,
        warm_up: 0.2,
        counting: true,
    };
    for row in rows {
        check_interrupted()?;
        match bench.measure(&row.cell, span) {
            Ok(outcome) => row.allocations = outcome.allocations,
            Err(error) => eprintln!("  {error:#}"),
        }
    }
    check_interrupted()
}

/// What is compared.
fn cells(quick: bool) -> Vec<Cell> {
    let mut cells = Vec::new();
    for in_flight in [1, 64] {
        for confirms in [false, true] {
            for what in ON_A_BROKER {
                cells.push(Cell::new(what, Some(confirms), in_flight));
            }
        }
    }
    if !quick {
        for what in ["lapin-task", "lapin-steps"] {
            cells.push(Cell::new(what, Some(false), 64));
        }
        for in_flight in [1, 64] {
            for confirms in [false, true] {
                for what in OTHER_FACE {
                    cells.push(Cell::new(what, Some(confirms), in_flight));
                }
            }
        }
        for what in ["lapin", "ours-lapin"] {
            cells.push(Cell::new(what, Some(false), 4096));
        }
    }
    cells
}

const ON_A_BROKER: [&str; 5] = ["floor", "lapin", "ours-lapin", "amiquip", "ours-amiquip"];

/// Through an adapter, for sync beside async.
const OTHER_FACE: [&str; 2] = ["ours-lapin-blocking", "ours-amiquip-async"];
