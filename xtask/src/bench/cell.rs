//! What is measured at a time, by which program, and what it says.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rabbitmq_node::Node;
use serde::{Deserialize, Serialize};

use crate::provision::{self, Broker, URL_VARIABLE};
use crate::run::{announced, capture, show, watch};
use crate::workspace::{Metadata, cargo};

/// One row of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Cell {
    pub(super) what: &'static str,
    /// Whether the broker confirms; `None` where there is no broker.
    pub(super) confirms: Option<bool>,
    pub(super) in_flight: usize,
    /// Calls per second, whether or not the last ones were answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate: Option<u32>,
    pub(super) body: usize,
    pub(super) workers: usize,
    pub(super) clients: usize,
}

impl Cell {
    pub(super) const fn new(what: &'static str, confirms: Option<bool>, in_flight: usize) -> Self {
        Self {
            what,
            confirms,
            in_flight,
            rate: None,
            body: BODY,
            workers: 1,
            clients: 1,
        }
    }

    /// At so many calls per second, without confirms.
    pub(super) const fn at_a_rate(what: &'static str, rate: u32) -> Self {
        let mut this = Self::new(what, Some(false), 1);
        this.rate = Some(rate);
        this
    }

    /// Whether it is the same, whatever the rate is if there is one.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let same = Self {
            rate: self.rate,
            ..other.clone()
        };
        self.rate.is_some() == other.rate.is_some() && *self == same
    }

    /// What the program is told of it.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--what".to_owned(), self.what.to_owned()];
        if self.confirms == Some(true) {
            arguments.push("--confirms".to_owned());
        }
        let numbers = [
            ("--in-flight", Some(self.in_flight)),
            ("--body", Some(self.body)),
            ("--workers", Some(self.workers)),
            ("--clients", Some(self.clients)),
            ("--rate", self.rate.map(|rate| rate as usize)),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                arguments.extend([name.to_owned(), number.to_string()]);
            }
        }
        arguments
    }
}

/// Its name, by which `--only` finds it.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)?;
        match self.confirms {
            Some(true) => f.write_str("/confirms")?,
            Some(false) => f.write_str("/bare")?,
            None => {}
        }
        match self.rate {
            Some(rate) => write!(f, "/at-{rate}")?,
            None => write!(f, "/{}", self.in_flight)?,
        }
        for (name, number, usual) in [
            ("bytes", self.body, BODY),
            ("workers", self.workers, 1),
            ("clients", self.clients, 1),
        ] {
            if number != usual {
                write!(f, "/{number}-{name}")?;
            }
        }
        Ok(())
    }
}

/// What the program says of one cell.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Outcome {
    pub(super) calls_per_second: f64,
    pub(super) latency_us: Latency,
    pub(super) cpu_us: Each,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) allocations: Option<Each>,
    pub(super) memory_mib: Each,
    pub(super) threads: Each,
    pub(super) descriptors: Each,
}

/// Microseconds from sending a request to having its answer.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Latency {
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
    /// Quantiles between 0 and 1, and what they are.
    pub(super) quantiles: Vec<(f64, f64)>,
}

/// A figure for each of the parties; those that are not there have none.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Each {
    pub(super) caller: f64,
    pub(super) worker: Option<f64>,
    pub(super) broker: Option<f64>,
}

impl Each {
    /// Of all that is not the broker.
    pub(super) fn both(&self) -> f64 {
        self.caller + self.worker.unwrap_or(0.0)
    }
}

/// The programs that measure, and the broker that they do it on.
#[derive(Debug)]
pub(super) struct Bench {
    programs: PathBuf,
    url: String,
    node: Option<Node>,
    /// What the broker is.
    pub(super) broker: String,
}

/// How long, and with which of the programs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) seconds: f64,
    pub(super) warm_up: f64,
    /// Whether allocations are counted. Times are not comparable then.
    pub(super) counting: bool,
}

impl Bench {
    /// Builds the programs, and starts a broker unless one is named.
    pub(super) fn open() -> Result<Self> {
        let source = provision::for_benches()?;
        let metadata = Metadata::load()?;
        let arguments = ["build", "--release", "--locked", "-p", "rpc-baseline"];
        let built = announced("building the programs", || {
            show(cargo(&arguments), BUILD_LIMIT)
        })?;
        if !built.success() {
            bail!("cargo build {}", built.describe());
        }
        let (url, node, broker) = match source {
            Broker::Given(url) => (url, None, "a broker that was named".to_owned()),
            Broker::Installed(installation) => {
                let version = installation.version().unwrap_or_default();
                let node = provision::start_node(Node::builder().installation(installation))?;
                (node.url(), Some(node), format!("RabbitMQ {version}"))
            }
        };
        Ok(Self {
            programs: metadata.target_directory.join("release"),
            url,
            node,
            broker,
        })
    }

    /// Measures one cell.
    pub(super) fn measure(&self, cell: &Cell, span: Span) -> Result<Outcome> {
        let span_limit = Duration::from_secs_f64(span.seconds + span.warm_up);
        let clients = u32::try_from(cell.clients)?;
        let limit = span_limit + SET_UP_LIMIT + CLIENT_LIMIT.saturating_mul(clients);
        let (ended, output) = capture(self.command("call", cell, span), limit)?;
        if !ended.success() {
            bail!("{cell}: it {}", ended.describe());
        }
        serde_json::from_str(&output).with_context(|| format!("{cell}: unreadable: {output}"))
    }

    /// Measures one cell again and again.
    pub(super) fn soak(
        &self,
        cell: &Cell,
        span: Span,
        every: f64,
        mut on_outcome: impl FnMut(Outcome),
    ) -> Result<()> {
        let mut command = self.command("soak", cell, span);
        command.args(["--every", &every.to_string()]);
        let limit = Duration::from_secs_f64(span.seconds + every) + SET_UP_LIMIT;
        let mut other = Vec::new();
        let ended = watch(command, limit, |line| match serde_json::from_str(line) {
            Ok(outcome) => on_outcome(outcome),
            Err(_) => other.push(line.to_owned()),
        })?;
        if !ended.success() {
            bail!("{cell}: it {}: {}", ended.describe(), other.join("\n"));
        }
        Ok(())
    }

    fn command(&self, role: &str, cell: &Cell, span: Span) -> Command {
        let name = if span.counting {
            "rpc-baseline-counting"
        } else {
            "rpc-baseline"
        };
        let mut url = self.url.clone();
        if cell.clients > 1 {
            // lapin takes 64 frames of memory for each connection.
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str("frame_max=16384");
        }
        let mut command = Command::new(self.programs.join(name));
        command
            .env(URL_VARIABLE, url)
            .arg(role)
            .args(cell.arguments())
            .args(["--seconds", &span.seconds.to_string()])
            .args(["--warm-up", &span.warm_up.to_string()]);
        if let Some(pid) = self.node.as_ref().and_then(Node::pid) {
            command.args(["--broker-pid", &pid.to_string()]);
        }
        command
    }

    /// Stops the broker.
    pub(super) fn close(self) -> Result<()> {
        if let Some(mut node) = self.node {
            node.stop()?;
        }
        Ok(())
    }
}

/// Bytes of a request when nothing else is said.
const BODY: usize = 8;

const BUILD_LIMIT: Duration = Duration::from_secs(3600);

/// Starting workers, connecting, and the last answers.
const SET_UP_LIMIT: Duration = Duration::from_secs(150);

/// What each further client may add to that.
const CLIENT_LIMIT: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cell_has_a_name_that_can_be_filtered() {
        let mut cell = Cell::new("lapin", Some(true), 64);
        assert_eq!(cell.to_string(), "lapin/confirms/64");
        cell.rate = Some(500);
        assert_eq!(cell.to_string(), "lapin/confirms/at-500");
        assert_eq!(Cell::new("mpsc", None, 1).to_string(), "mpsc/1");
        cell = Cell::new("floor", Some(false), 16);
        (cell.body, cell.clients) = (0, 10);
        assert_eq!(cell.to_string(), "floor/bare/16/0-bytes/10-clients");
    }

    #[test]
    fn cells_are_alike_at_any_two_rates() {
        let at = |rate| Cell::at_a_rate("lapin", rate);
        assert!(at(1).is_like(&at(2)));
        let closed = Cell::new("lapin", Some(false), 1);
        assert!(!at(1).is_like(&closed) && !closed.is_like(&at(1)));
        assert!(!at(1).is_like(&Cell::at_a_rate("ours-lapin", 1)));
    }

    #[test]
    fn program_is_told_all_of_it() {
        let cell = Cell::new("floor", Some(true), 64);
        let told = cell.arguments().join(" ");
        let expected = "--what floor --confirms --in-flight 64 --body 8 --workers 1 --clients 1";
        assert_eq!(told, expected);
    }
}
