//! Runs one cell: starts workers and callers, lets them warm up, and looks at all counts at both
//! ends of the window.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use amqp_broker::AmqpUrl;
use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::cell::Cell;
use crate::meter::{Meter, Stage};
use crate::program::Allocations;
use crate::roles;
use crate::usage::{self, Usage};
use crate::worker::Worker;

/// How long is measured, and whom to look at.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Seconds to measure
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// Seconds of calls before that
    #[arg(long, default_value_t = 0.5)]
    pub(crate) warm_up: f64,
    /// The process of the broker, whose processor time is told too
    #[arg(long)]
    pub(crate) broker_pid: Option<u32>,
}

/// What is printed of one cell.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    #[serde(flatten)]
    cell: Cell,
    seconds: f64,
    calls: u64,
    calls_per_second: f64,
    /// Microseconds from sending a request to having its answer.
    latency_us: Latency,
    /// Microseconds of processor time for each call.
    cpu_us: Each,
    /// For each call; absent where nobody counts.
    allocations: Option<Each>,
    /// Resident memory at the end, in MiB.
    memory_mib: Each,
    threads: Each,
    /// Open files and sockets at the end.
    descriptors: Each,
}

/// A figure for each of the parties.
#[derive(Clone, Copy, Debug, Serialize)]
struct Each {
    caller: f64,
    /// Absent where the worker is in the same process.
    worker: Option<f64>,
    /// Absent where there is none, or it is somebody else's.
    broker: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Latency {
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
    /// Each with what it is.
    quantiles: Vec<(f64, f64)>,
}

/// Makes the calls of a cell and counts them.
pub(crate) fn run(
    url: Option<&str>,
    cell: Cell,
    options: &Options,
    allocations: Option<Allocations>,
) -> Result<Outcome> {
    let mut run = Run::start(url, cell, options, allocations)?;
    let outcome = run.window(options.seconds)?;
    run.stop()?;
    Ok(outcome)
}

/// Calls that are being made, and may be looked at for a while.
struct Run {
    cell: Cell,
    parties: Parties,
    meter: Arc<Meter>,
    ended: Receiver<Result<()>>,
}

impl Run {
    /// Starts workers and callers, and returns when they are warm.
    fn start(
        url: Option<&str>,
        mut cell: Cell,
        options: &Options,
        allocations: Option<Allocations>,
    ) -> Result<Self> {
        if cell.queue.is_empty() {
            cell.queue = format!("rpc-bench.{}", uuid::Uuid::new_v4().simple());
        }
        let address: Option<AmqpUrl> = url.map(str::parse).transpose()?;
        let mut parties = Parties {
            workers: Vec::new(),
            broker: options.broker_pid.filter(|_| cell.what.is_on_a_broker()),
            allocations,
        };
        if let Some(url) = url.filter(|_| cell.what.is_on_a_broker()) {
            for _ in 0..cell.workers.get() {
                parties.workers.push(Worker::start(url, &cell)?);
            }
        }
        let meter = Meter::new(cell.clients.get());
        let (sender, ended) = mpsc::channel();
        let (calling, of) = (Arc::clone(&meter), cell.clone());
        thread::spawn(move || {
            // Where nobody waits for it, an error was found before.
            let _ = sender.send(roles::call(address.as_ref(), &of, &calling));
        });

        let begun = Instant::now();
        let limit = limit(&cell);
        while meter.stage() == Stage::Opening {
            ensure!(
                begun.elapsed() < limit,
                "not all clients had an answer in time"
            );
            watch(&ended, Duration::from_millis(1))?;
        }
        watch(&ended, Duration::from_secs_f64(options.warm_up))?;
        Ok(Self {
            cell,
            parties,
            meter,
            ended,
        })
    }

    /// Measures for so long.
    fn window(&mut self, seconds: f64) -> Result<Outcome> {
        self.meter.take();
        let before = self.parties.look()?;
        self.meter.set(Stage::Measuring);
        watch(&self.ended, Duration::from_secs_f64(seconds))?;
        self.meter.set(Stage::WarmingUp);
        let after = self.parties.look()?;
        Outcome::of(&self.cell, &self.meter.take(), &before, &after)
    }

    /// Lets the last calls be answered.
    fn stop(self) -> Result<()> {
        self.meter.set(Stage::Stopping);
        self.ended
            .recv_timeout(limit(&self.cell))
            .context("the last calls were not answered in time")?
    }
}

impl Outcome {
    fn of(cell: &Cell, latencies: &Histogram<u32>, before: &Look, after: &Look) -> Result<Self> {
        let calls = latencies.len();
        ensure!(calls > 0, "no call was answered while it was measured");
        let seconds = (after.at - before.at).as_secs_f64();
        let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
        let per_call = |after: u64, before: u64| (after - before) as f64 / calls as f64;
        Ok(Self {
            cell: cell.clone(),
            seconds,
            calls,
            calls_per_second: calls as f64 / seconds,
            latency_us: Latency {
                mean: latencies.mean() / 1e3,
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                p999: at(0.999),
                max: latencies.max() as f64 / 1e3,
                quantiles: QUANTILES.map(|quantile| (quantile, at(quantile))).to_vec(),
            },
            cpu_us: after.each(before, |after, before| {
                let used = after.processor.saturating_sub(before.processor);
                used.as_secs_f64() * 1e6 / calls as f64
            }),
            memory_mib: after.each(before, |after, _| after.memory as f64 / f64::from(1 << 20)),
            threads: after.each(before, |after, _| after.threads as f64),
            descriptors: Each {
                caller: after.descriptors.0 as f64,
                worker: after.workers.map(|_| after.descriptors.1 as f64),
                broker: None,
            },
            allocations: before
                .allocations
                .zip(after.allocations)
                .map(|(before, after)| Each {
                    caller: per_call(after.0, before.0),
                    worker: cell
                        .what
                        .is_on_a_broker()
                        .then(|| per_call(after.1, before.1)),
                    broker: None,
                }),
        })
    }
}

/// Looks at one cell again and again, and prints a line for each time.
pub(crate) fn soak(url: Option<&str>, cell: Cell, options: &Options, every: f64) -> Result<()> {
    let mut run = Run::start(url, cell, options, None)?;
    let begun = Instant::now();
    while begun.elapsed().as_secs_f64() < options.seconds {
        println!("{}", serde_json::to_string(&run.window(every)?)?);
    }
    run.stop()
}

/// Waits, and fails as soon as the callers have ended.
fn watch(ended: &Receiver<Result<()>>, time: Duration) -> Result<()> {
    match ended.recv_timeout(time) {
        Err(RecvTimeoutError::Timeout) => Ok(()),
        Ok(Err(error)) => Err(error),
        Ok(Ok(())) | Err(RecvTimeoutError::Disconnected) => bail!("the callers ended too early"),
    }
}

struct Parties {
    workers: Vec<Worker>,
    broker: Option<u32>,
    allocations: Option<Allocations>,
}

/// All counts at one moment.
struct Look {
    at: Instant,
    caller: Usage,
    workers: Option<Usage>,
    broker: Option<Usage>,
    /// Of the caller and of all workers, if somebody counts.
    allocations: Option<(u64, u64)>,
    /// Of the caller and of all workers.
    descriptors: (usize, usize),
}

impl Parties {
    fn look(&mut self) -> Result<Look> {
        let mut workers = None;
        let mut allocated = 0;
        let mut descriptors = (usage::descriptors(None)?, 0);
        for worker in &mut self.workers {
            let pid = Some(worker.pid());
            let usage = Usage::of(pid)?;
            let sum: &mut Usage = workers.get_or_insert_default();
            sum.processor += usage.processor;
            sum.memory += usage.memory;
            sum.threads += usage.threads;
            descriptors.1 += usage::descriptors(pid)?;
            if self.allocations.is_some() {
                allocated += worker.allocations()?;
            }
        }
        let broker = self.broker.map(|pid| Usage::of(Some(pid))).transpose()?;
        Ok(Look {
            allocations: self.allocations.map(|count| (count(), allocated)),
            descriptors,
            caller: Usage::of(None)?,
            workers,
            broker,
            at: Instant::now(),
        })
    }
}

impl Look {
    fn each(&self, before: &Self, figure: impl Fn(&Usage, &Usage) -> f64) -> Each {
        let both = |after: &Option<Usage>, before: &Option<Usage>| {
            Some(figure(after.as_ref()?, before.as_ref()?))
        };
        Each {
            caller: figure(&self.caller, &before.caller),
            worker: both(&self.workers, &before.workers),
            broker: both(&self.broker, &before.broker),
        }
    }
}

/// How long the first and the last answers may take, with connecting and closing.
fn limit(cell: &Cell) -> Duration {
    let clients = u32::try_from(cell.clients.get()).unwrap_or(u32::MAX);
    Duration::from_secs(60) + Duration::from_millis(200).saturating_mul(clients)
}

/// Enough for a curve.
const QUANTILES: [f64; 14] = [
    0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.9975, 0.999, 0.9995, 0.9999,
];
