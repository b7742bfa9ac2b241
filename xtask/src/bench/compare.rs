//! `cargo xtask bench compare`: ours and hand-written loops, in turns.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::cell::{Bench, Cell, Each, Outcome, Span};
use super::environment::Environment;
use super::page;
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
    /// Write a page with plots to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Options {
    /// The rows of those cells that are asked for.
    fn wanted(&self, cells: Vec<Cell>) -> Vec<Row> {
        let is_wanted = |cell: &Cell| {
            let name = cell.to_string();
            self.only.is_empty() || self.only.iter().any(|part| name.contains(part))
        };
        cells.into_iter().filter(is_wanted).map(Row::new).collect()
    }
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
    pub(super) const fn new(cell: Cell) -> Self {
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
    let mut rows = options.wanted(cells(options.quick));
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
    let mut steady = options.wanted(at_half_the_load(&rows));
    for round in 1..=rounds {
        if !steady.is_empty() {
            eprintln!("at half the load, round {round} of {rounds}");
        }
        for row in &mut steady {
            let outcome = attempt(&bench, &row.cell, span)?;
            row.rounds.push(outcome);
        }
    }
    count_allocations(&bench, &mut rows)?;
    rows.append(&mut steady);
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
        write(path, serde_json::to_string_pretty(&report)?)?;
    }
    if let Some(path) = &options.html {
        write(path, page::page(&report)?)?;
    }
    Ok(complete(&report.rows))
}

/// Whether all rows could be measured in all rounds.
pub(super) fn complete(rows: &[Row]) -> Verdict {
    let is_complete = |row: &Row| row.rounds.iter().all(Option::is_some);
    if rows.iter().all(is_complete) {
        Verdict::Passed
    } else {
        Verdict::Failed
    }
}

pub(super) fn write(path: &Path, text: String) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
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

/// Ours and the loop by hand under the same load, which is half of what the slower of the two can
/// do; nothing unless both were measured.
fn at_half_the_load(rows: &[Row]) -> Vec<Cell> {
    let saturated = STEADY.map(|what| {
        let cell = Cell::new(what, Some(false), 64);
        let row = rows.iter().find(|row| row.cell == cell)?;
        Some(row.spread(|outcome| outcome.calls_per_second)?.median)
    });
    let [Some(one), Some(other)] = saturated else {
        return Vec::new();
    };
    let rate = (one.min(other) / 2.0) as u32;
    STEADY.map(|what| Cell::at_a_rate(what, rate)).to_vec()
}

/// What is compared.
fn cells(quick: bool) -> Vec<Cell> {
    let mut cells = Vec::new();
    let kinds: [&[&str]; 2] = if quick {
        [&ON_A_BROKER, &[]]
    } else {
        [&ON_A_BROKER, &FURTHER]
    };
    for in_flight in [1, 64] {
        for confirms in [false, true] {
            for what in kinds.concat() {
                cells.push(Cell::new(what, Some(confirms), in_flight));
            }
        }
    }
    let lapin = |what, in_flight| Cell::new(what, Some(false), in_flight);
    if !quick {
        cells.extend(["lapin-task", "lapin-steps"].map(|what| lapin(what, 64)));
        cells.push(lapin("lapin", 4096));
        for in_flight in [8, 512] {
            cells.extend(CURVES.map(|what| lapin(what, in_flight)));
        }
    }
    cells.push(lapin("ours-lapin", 4096));
    for (what, numbers) in IN_PROCESS {
        let of_this = numbers
            .iter()
            .map(|in_flight| Cell::new(what, None, *in_flight));
        cells.extend(of_this);
    }
    cells
}

const ON_A_BROKER: [&str; 5] = ["floor", "lapin", "ours-lapin", "amiquip", "ours-amiquip"];

/// A third client library, and ours through an adapter and with threads, for sync beside async.
const FURTHER: [&str; 4] = [
    "amqprs",
    "ours-lapin-blocking",
    "ours-amiquip-async",
    "ours-amiquip-threads",
];

/// With further points between one call and many.
const CURVES: [&str; 6] = [
    "floor",
    "lapin",
    "ours-lapin",
    "amiquip",
    "ours-amiquip",
    "amqprs",
];

const STEADY: [&str; 2] = ["lapin", "ours-lapin"];

const IN_PROCESS: [(&str, &[usize]); 5] = [
    ("tarpc", &[1, 64]),
    ("ours-memory", &[1, 64]),
    ("mpsc", &[1]),
    ("ours-memory-blocking", &[1, 64]),
    ("machines", &[1]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_run_is_a_part_of_the_whole() {
        let (all, quick) = (cells(false), cells(true));
        assert!(quick.iter().all(|cell| all.contains(cell)) && quick.len() < all.len());
    }

    #[test]
    fn nothing_is_loaded_by_half_of_what_was_not_measured() {
        let rows: Vec<_> = cells(true).into_iter().map(Row::new).collect();
        assert_eq!(at_half_the_load(&rows), []);
    }
}
