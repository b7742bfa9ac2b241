//! `cargo xtask bench scale`: what becomes of throughput and latency when one number grows.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use super::cell::{Bench, Cell, Outcome, Span};
use super::compare::{Row, attempt, complete, write};
use super::environment::Environment;
use super::plots::{self, Curve};
use super::{page, table};
use crate::Verdict;
use crate::run::echo;

/// Options of `scale`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Options {
    /// Only a few points of each curve, in short rounds
    #[arg(long)]
    quick: bool,
    /// How often each point is measured [default: 3, with --quick 1]
    #[arg(long)]
    rounds: Option<usize>,
    /// For how long, in seconds [default: 2, with --quick 0.5]
    #[arg(long)]
    seconds: Option<f64>,
    /// Only this curve
    #[arg(long, value_enum)]
    only: Option<Dimension>,
    /// Write all figures of all rounds to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with plots to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// What grows.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Dimension {
    InFlight,
    Body,
    Workers,
    Clients,
}

impl Dimension {
    const ALL: [Self; 4] = [Self::InFlight, Self::Body, Self::Workers, Self::Clients];

    const fn title(self) -> &'static str {
        match self {
            Self::InFlight => "calls in flight",
            Self::Body => "bytes of a request and of its answer, 16 in flight",
            Self::Workers => "worker processes, 64 in flight",
            Self::Clients => "clients with connections of their own, one call each, 64 at least",
        }
    }

    const fn numbers(self) -> &'static [usize] {
        match self {
            Self::InFlight => &[1, 4, 16, 64, 256, 1024, 4096],
            Self::Body => &[0, 64, 1024, 16 << 10, 128 << 10, 1 << 20],
            Self::Workers => &[1, 2, 4, 8],
            Self::Clients => &[1, 10, 100, 1000],
        }
    }

    const fn whats(self) -> &'static [&'static str] {
        match self {
            // By hand nobody would open a thousand connections.
            Self::Clients => &["ours-lapin", "ours-amiquip"],
            _ => &["floor", "lapin", "ours-lapin", "amiquip", "ours-amiquip"],
        }
    }

    fn cell(self, what: &'static str, number: usize) -> Cell {
        let mut cell = Cell::new(what, Some(false), 64);
        match self {
            Self::InFlight => cell.in_flight = number,
            Self::Body => (cell.in_flight, cell.body) = (16, number),
            Self::Workers => cell.workers = number,
            Self::Clients => (cell.in_flight, cell.clients) = (number.max(64), number),
        }
        cell
    }

    fn number(self, cell: &Cell) -> f64 {
        let number = match self {
            Self::InFlight => cell.in_flight,
            // There is no doubling from nothing to something.
            Self::Body => cell.body.max(1),
            Self::Workers => cell.workers,
            Self::Clients => cell.clients,
        };
        number as f64
    }
}

/// One thing that grew, and what was measured.
#[derive(Debug, Serialize)]
struct Series {
    over: Dimension,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Report {
    environment: Environment,
    seconds: f64,
    series: Vec<Series>,
}

/// The command `bench scale`.
pub(super) fn run(options: &Options) -> Result<Verdict> {
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 3 });
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
    let mut series = Vec::new();
    for over in Dimension::ALL {
        if options.only.is_some_and(|only| only != over) {
            continue;
        }
        let mut rows = rows(over, options.quick);
        for round in 1..=rounds {
            eprintln!("{}, round {round} of {rounds}", over.title());
            for row in &mut rows {
                let outcome = attempt(&bench, &row.cell, span)?;
                row.rounds.push(outcome);
            }
        }
        series.push(Series { over, rows });
    }
    bench.close()?;
    let report = Report {
        environment,
        seconds,
        series,
    };
    echo(&format!("\n{}", report.environment.describe()));
    for Series { over, rows } in &report.series {
        echo(&format!("\n{}\n\n{}", over.title(), table::rows(rows)));
    }
    if let Some(path) = &options.json {
        write(path, serde_json::to_string_pretty(&report)?)?;
    }
    if let Some(path) = &options.html {
        write(path, page(&report)?)?;
    }
    let all = report.series.iter().map(|series| complete(&series.rows));
    Ok(
        if all.into_iter().all(|verdict| verdict == Verdict::Passed) {
            Verdict::Passed
        } else {
            Verdict::Failed
        },
    )
}

fn rows(over: Dimension, quick: bool) -> Vec<Row> {
    let numbers = over.numbers();
    let last = numbers.len() - 1;
    let mut rows = Vec::new();
    for (at, number) in numbers.iter().enumerate() {
        if quick && ![0, last / 2, last].contains(&at) {
            continue;
        }
        let cells = over.whats().iter().map(|what| over.cell(what, *number));
        rows.extend(cells.map(Row::new));
    }
    rows
}

fn page(report: &Report) -> Result<String> {
    let mut body = String::from("<h1>RPC over a broker, at scale</h1>");
    body += &page::environment(&report.environment);
    body += "<p>Without confirms. Medians of the rounds.</p>";
    for Series { over, rows } in &report.series {
        body += &format!("<h2>Against {}</h2><div class=grid>", over.title());
        let throughput = curves(*over, rows, |outcome| outcome.calls_per_second / 1e3);
        let latency = curves(*over, rows, |outcome| outcome.latency_us.p99 / 1e3);
        let memory = curves(*over, rows, |outcome| outcome.memory_mib.both());
        for (title, curves, unit, logarithmic) in [
            ("Throughput", throughput, "thousand calls/s", false),
            ("p99", latency, "ms", true),
            ("Memory of caller and workers", memory, "MiB", true),
        ] {
            let plot = plots::against(over.title(), &curves, unit, logarithmic)?;
            body += &page::card(title, &plot);
        }
        body += &format!("</div><div class='card scroll'>{}</div>", page::all(rows));
    }
    Ok(page::frame(&body))
}

fn curves(over: Dimension, rows: &[Row], figure: impl Fn(&Outcome) -> f64) -> Vec<Curve> {
    let of = |what: &&str| {
        let rows = rows.iter().filter(|row| row.cell.what == *what);
        let points = rows.filter_map(|row| {
            let median = row.spread(&figure)?.median;
            Some((over.number(&row.cell), median))
        });
        Curve {
            name: (**what).to_owned(),
            points: points.collect(),
        }
    };
    over.whats().iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_run_has_both_ends_of_each_curve() {
        for over in Dimension::ALL {
            let (all, quick) = (rows(over, false), rows(over, true));
            assert!(quick.len() < all.len());
            let ends = |rows: &[Row]| {
                let number = |row: Option<&Row>| row.map(|row| over.number(&row.cell));
                (number(rows.first()), number(rows.last()))
            };
            assert_eq!(ends(&all), ends(&quick));
        }
    }

    #[test]
    fn every_client_has_a_call() {
        let cell = Dimension::Clients.cell("ours-lapin", 1000);
        assert_eq!((cell.clients, cell.in_flight), (1000, 1000));
        assert_eq!(Dimension::Clients.cell("ours-lapin", 10).in_flight, 64);
    }
}
