//! What the project wants of itself, as ratios of rows that were measured in the same rounds.

use serde::Serialize;

use super::cell::{Cell, Outcome};
use super::compare::Row;
use super::statistics::Spread;

/// A ratio that is wanted.
#[derive(Clone, Debug)]
pub(super) struct Target {
    name: &'static str,
    /// The row that is judged, and the one that it is held against; none for a plain figure.
    of: Cell,
    to: Option<Cell>,
    figure: Figure,
    bound: Bound,
}

#[derive(Clone, Copy, Debug)]
enum Figure {
    Throughput,
    /// Processor time of caller and worker together.
    Cpu,
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
        let find = |cell: &Cell| rows.iter().find(|row| row.cell == *cell);
        let of = find(&self.of)?;
        let to = match &self.to {
            Some(to) => Some(find(to)?),
            None => None,
        };
        let ratios = of.rounds.iter().enumerate().filter_map(|(round, of)| {
            let value = self.figure.of(of.as_ref()?);
            match to {
                Some(to) => Some(value / self.figure.of(to.rounds.get(round)?.as_ref()?)),
                None => Some(value),
            }
        });
        let is = Spread::of(ratios)?;
        let (wanted, met) = match self.bound {
            Bound::AtLeast(bound) => (format!("≥ {bound}"), is.median >= bound),
            Bound::AtMost(bound) => (format!("≤ {bound}"), is.median <= bound),
        };
        Some(Judged {
            name: self.name,
            of: self.of.to_string(),
            to: self.to.as_ref().map(Cell::to_string).unwrap_or_default(),
            wanted,
            is,
            met,
        })
    }
}

impl Figure {
    fn of(self, outcome: &Outcome) -> f64 {
        match self {
            Self::Throughput => outcome.calls_per_second,
            Self::Cpu => outcome.cpu_us.both(),
        }
    }
}

/// Judges all that can be.
pub(super) fn judge(rows: &[Row]) -> Vec<Judged> {
    targets()
        .iter()
        .filter_map(|target| target.judge(rows))
        .collect()
}

fn targets() -> Vec<Target> {
    use Bound::{AtLeast, AtMost};
    use Figure::{Cpu, Throughput};
    let off = |what, in_flight| Cell::new(what, Some(false), in_flight);
    let on = |what, in_flight| Cell::new(what, Some(true), in_flight);
    let ratio = |name, figure, of, to, bound| Target {
        name,
        of,
        to: Some(to),
        figure,
        bound,
    };
    vec![
        ratio(
            "lapin against the best loop by hand",
            Throughput,
            off("ours-lapin", 64),
            off("lapin", 64),
            AtLeast(1.0),
        ),
        ratio(
            "its processor time",
            Cpu,
            off("ours-lapin", 64),
            off("lapin", 64),
            AtMost(1.1),
        ),
        ratio(
            "lapin with its default guarantees",
            Throughput,
            on("ours-lapin", 64),
            on("lapin", 64),
            AtLeast(1.0),
        ),
        ratio(
            "lapin against bare frames",
            Throughput,
            off("ours-lapin", 64),
            off("floor", 64),
            AtLeast(0.7),
        ),
        ratio(
            "amiquip, one call at a time",
            Throughput,
            off("ours-amiquip", 1),
            off("amiquip", 1),
            AtLeast(0.95),
        ),
        ratio(
            "amiquip, many calls",
            Throughput,
            off("ours-amiquip", 64),
            off("amiquip", 64),
            AtLeast(1.0),
        ),
        ratio(
            "lapin: what the guarantees cost",
            Throughput,
            on("ours-lapin", 64),
            off("ours-lapin", 64),
            AtLeast(0.8),
        ),
        ratio(
            "amiquip: what the guarantees cost",
            Throughput,
            on("ours-amiquip", 64),
            off("ours-amiquip", 64),
            AtLeast(0.8),
        ),
        ratio(
            "lapin, very many calls",
            Throughput,
            off("ours-lapin", 4096),
            off("ours-lapin", 64),
            AtLeast(0.9),
        ),
    ]
}
