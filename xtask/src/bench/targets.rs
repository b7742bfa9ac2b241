//! What the project wants of itself, as ratios of rows that were measured in the same rounds.

use serde::Serialize;

use super::cell::{Cell, Outcome};
use super::compare::Row;
use super::statistics::Spread;

/// A figure or a ratio that is wanted.
#[derive(Clone, Debug)]
struct Target {
    name: &'static str,
    /// The row that is judged.
    of: Cell,
    /// The row that it is held against; none for a plain figure.
    to: Option<Cell>,
    figure: Figure,
    bound: Bound,
}

#[derive(Clone, Copy, Debug)]
enum Figure {
    Throughput,
    /// Processor time of caller and worker together, in microseconds.
    Cpu,
    /// The 99th percentile of the latency, in microseconds.
    P99,
    /// The median of the latency, in nanoseconds.
    Nanoseconds,
    Allocations,
}

#[derive(Clone, Copy, Debug)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// How a target came out.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Judged {
    pub(super) name: &'static str,
    pub(super) of: String,
    pub(super) to: String,
    pub(super) wanted: String,
    pub(super) is: Spread,
    pub(super) met: bool,
}

impl Target {
    /// Judges by the rounds in which both rows were measured; `None` when there are none.
    fn judge(&self, rows: &[Row]) -> Option<Judged> {
        let find = |cell: &Cell| rows.iter().find(|row| row.cell.is_like(cell));
        let of = find(&self.of)?;
        let to = match &self.to {
            Some(to) => Some(find(to)?),
            None => None,
        };
        let values = self.figure.of(of);
        let is = match to {
            None => Spread::of(values.into_iter().flatten()),
            Some(to) => {
                let pairs = values.into_iter().zip(self.figure.of(to));
                Spread::of(pairs.filter_map(|(of, to)| Some(of? / to?)))
            }
        }?;
        let (wanted, met) = match self.bound {
            Bound::AtLeast(bound) => (format!("≥ {bound}"), is.median >= bound),
            Bound::AtMost(bound) => (format!("≤ {bound}"), is.median <= bound),
        };
        Some(Judged {
            name: self.name,
            of: of.cell.to_string(),
            to: to.map(|to| to.cell.to_string()).unwrap_or_default(),
            wanted,
            is,
            met,
        })
    }
}

impl Figure {
    /// For each round.
    fn of(self, row: &Row) -> Vec<Option<f64>> {
        if matches!(self, Self::Allocations) {
            return vec![row.allocations.map(|each| each.both())];
        }
        let figure = |outcome: &Outcome| match self {
            Self::Throughput | Self::Allocations => outcome.calls_per_second,
            Self::Cpu => outcome.cpu_us.both(),
            Self::P99 => outcome.latency_us.p99,
            Self::Nanoseconds => outcome.latency_us.p50 * 1e3,
        };
        let rounds = row.rounds.iter();
        rounds.map(|outcome| outcome.as_ref().map(figure)).collect()
    }
}

/// Judges all that can be.
pub(super) fn judge(rows: &[Row]) -> Vec<Judged> {
    let mut targets = targets();
    targets.extend(fastest(rows));
    let judged = targets.iter().filter_map(|target| target.judge(rows));
    judged.collect()
}

/// The quickest of ours with many calls against bare frames.
fn fastest(rows: &[Row]) -> Option<Target> {
    let median = |row: &&Row| row.spread(|outcome| outcome.calls_per_second);
    let ours = rows.iter().filter(|row| {
        let Cell { what, confirms, .. } = row.cell;
        what.starts_with("ours") && confirms == Some(false) && row.cell.is_like(&bare(what, 64))
    });
    let fastest = ours.max_by(|a, b| {
        let [a, b] = [a, b].map(|row| median(row).map_or(0.0, |spread| spread.median));
        a.total_cmp(&b)
    })?;
    Some(Target {
        name: "our quickest against bare frames",
        of: fastest.cell.clone(),
        to: Some(bare("floor", 64)),
        figure: Figure::Throughput,
        bound: Bound::AtLeast(0.8),
    })
}

/// The fixed ones.
fn targets() -> Vec<Target> {
    use Bound::{AtLeast, AtMost};
    use Figure::{Allocations, Cpu, Nanoseconds, P99, Throughput};
    let ratio = |name, figure, of, to, bound| Target {
        name,
        of,
        to: Some(to),
        figure,
        bound,
    };
    let plain = |name, figure, of, bound| Target {
        name,
        of,
        to: None,
        figure,
        bound,
    };
    let (lapin, amiquip) = ("ours-lapin", "ours-amiquip");
    let lapin_64 = bare(lapin, 64);
    vec![
        ratio(
            "lapin against the loop by hand",
            Throughput,
            lapin_64.clone(),
            bare("lapin", 64),
            AtLeast(1.0),
        ),
        ratio(
            "lapin, processor time",
            Cpu,
            lapin_64.clone(),
            bare("lapin", 64),
            AtMost(1.1),
        ),
        ratio(
            "lapin, default guarantees",
            Throughput,
            confirmed(lapin, 64),
            confirmed("lapin", 64),
            AtLeast(1.0),
        ),
        ratio(
            "lapin against bare frames",
            Throughput,
            lapin_64.clone(),
            bare("floor", 64),
            AtLeast(0.7),
        ),
        ratio(
            "amiquip, one call at a time",
            Throughput,
            bare(amiquip, 1),
            bare("amiquip", 1),
            AtLeast(0.95),
        ),
        ratio(
            "amiquip, many calls",
            Throughput,
            bare(amiquip, 64),
            bare("amiquip", 64),
            AtLeast(1.0),
        ),
        ratio(
            "lapin, what guarantees leave",
            Throughput,
            confirmed(lapin, 64),
            lapin_64.clone(),
            AtLeast(0.8),
        ),
        ratio(
            "amiquip, what guarantees leave",
            Throughput,
            confirmed(amiquip, 64),
            bare(amiquip, 64),
            AtLeast(0.8),
        ),
        ratio(
            "lapin, very many calls",
            Throughput,
            bare(lapin, 4096),
            lapin_64,
            AtLeast(0.9),
        ),
        ratio(
            "lapin, p99 at half the load",
            P99,
            Cell::at_a_rate(lapin, 1),
            Cell::at_a_rate("lapin", 1),
            AtMost(1.1),
        ),
        ratio(
            "memory async, one call",
            Throughput,
            local("ours-memory", 1),
            local("tarpc", 1),
            AtLeast(1.5),
        ),
        ratio(
            "memory async, many calls",
            Throughput,
            local("ours-memory", 64),
            local("tarpc", 64),
            AtLeast(1.5),
        ),
        ratio(
            "memory blocking, one call",
            Throughput,
            local("ours-memory-blocking", 1),
            local("mpsc", 1),
            AtLeast(0.5),
        ),
        plain(
            "machines, ns of a life",
            Nanoseconds,
            local("machines", 1),
            AtMost(500.0),
        ),
        plain(
            "machines, allocations of a life",
            Allocations,
            local("machines", 1),
            AtMost(6.0),
        ),
    ]
}

const fn bare(what: &'static str, in_flight: usize) -> Cell {
    Cell::new(what, Some(false), in_flight)
}

const fn confirmed(what: &'static str, in_flight: usize) -> Cell {
    Cell::new(what, Some(true), in_flight)
}

const fn local(what: &'static str, in_flight: usize) -> Cell {
    Cell::new(what, None, in_flight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cell::{Each, Latency};

    fn row(cell: Cell, rates: &[f64]) -> Row {
        let each = Each {
            caller: 1.0,
            worker: None,
            broker: None,
        };
        let mut row = Row::new(cell);
        row.rounds = rates
            .iter()
            .map(|rate| {
                Some(Outcome {
                    calls_per_second: *rate,
                    latency_us: Latency::default(),
                    cpu_us: each,
                    allocations: None,
                    memory_mib: each,
                    threads: each,
                    descriptors: each,
                })
            })
            .collect();
        row
    }

    #[test]
    fn ratio_is_taken_round_by_round() {
        let rows = [
            row(bare("ours-lapin", 64), &[10.0, 30.0, 50.0]),
            row(bare("lapin", 64), &[10.0, 20.0, 100.0]),
        ];
        let judged = targets()[0].judge(&rows).expect("both were measured");
        let Spread { median, low, high } = judged.is;
        assert_eq!((median, low, high), (1.0, 0.5, 1.5));
        assert!(judged.met);
    }

    #[test]
    fn target_without_its_rows_is_not_judged() {
        let rows = [row(bare("ours-lapin", 64), &[10.0])];
        assert!(targets()[0].judge(&rows).is_none());
        assert!(fastest(&rows).is_some_and(|target| target.judge(&rows).is_none()));
    }

    #[test]
    fn quickest_is_that_of_the_highest_median() {
        let rows = [
            row(bare("ours-lapin", 64), &[10.0, 90.0, 10.0]),
            row(bare("ours-amiquip", 64), &[20.0, 20.0, 20.0]),
            row(confirmed("ours-lapin", 64), &[99.0, 99.0, 99.0]),
        ];
        let fastest = fastest(&rows).expect("there are some");
        assert_eq!(fastest.of.what, "ours-amiquip");
    }

    #[test]
    fn machines_are_judged_by_their_median() {
        let mut rows = [row(local("machines", 1), &[4e6])];
        for outcome in rows[0].rounds.iter_mut().flatten() {
            outcome.latency_us.p50 = 0.25;
        }
        let judged = judge(&rows);
        assert_eq!((judged.len(), judged[0].is.median), (1, 250.0));
        assert!(judged[0].met);
    }
}
