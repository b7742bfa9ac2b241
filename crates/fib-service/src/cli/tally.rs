//! What a load run has come to: counts, latencies, failures by kind, and how that is printed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use rpc_core::CallError;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::Failure;
use super::failure::{call_error_kind, call_error_line};

/// Counts calls as they end.
#[derive(Debug)]
pub(crate) struct Tally {
    /// In nanoseconds, of the calls that succeeded.
    latencies: Histogram<u64>,
    errors: u64,
    /// How often each kind of failure came, and what the first of them said.
    kinds: BTreeMap<String, (u64, String)>,
}

impl Tally {
    pub(crate) fn new() -> Result<Self, Failure> {
        // Three digits, and as wide as need be.
        let latencies = Histogram::new(3).map_err(|error| {
            Failure::System("cannot make a histogram", std::io::Error::other(error))
        })?;
        Ok(Self {
            latencies,
            errors: 0,
            kinds: BTreeMap::new(),
        })
    }

    pub(crate) fn ok(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        // It grows as needed, and refuses only when it has nowhere left to grow.
        if self.latencies.record(nanos).is_err() {
            self.latencies.saturating_record(nanos);
        }
    }

    pub(crate) fn failed(&mut self, error: &CallError) {
        self.failed_as(call_error_kind(error), || call_error_line(error));
    }

    /// An answer that is not the number asked for.
    pub(crate) fn wrong(&mut self, n: u64, answer: u128) {
        self.failed_as("WRONG_ANSWER".into(), || {
            format!("WRONG_ANSWER: fib({n}) is not {answer}")
        });
    }

    fn failed_as(&mut self, kind: String, line: impl FnOnce() -> String) {
        self.errors += 1;
        self.kinds.entry(kind).or_insert_with(|| (0, line())).0 += 1;
    }

    pub(crate) fn calls(&self) -> u64 {
        self.latencies.len() + self.errors
    }

    /// One line for each kind of failure.
    pub(crate) fn error_lines(&self) -> impl Iterator<Item = String> {
        self.kinds
            .values()
            .map(|(count, first)| format!("{count} x {first}"))
    }

    /// The result of a run that took this long.
    pub(crate) fn report(&self, run: Setting, elapsed: Duration, cpu: Duration) -> Report {
        let calls = self.calls();
        let secs = elapsed.as_secs_f64();
        let at = |quantile| micros(self.latencies.value_at_quantile(quantile));
        Report {
            transport: run.transport,
            face: run.face,
            calls,
            ok: self.latencies.len(),
            errors: self.errors,
            inflight: run.inflight,
            secs: round(secs, 1_000.0),
            calls_per_sec: round(calls as f64 / secs.max(1e-9), 10.0),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: micros(self.latencies.max()),
            cpu_us_per_call: round(cpu.as_secs_f64() * 1e6 / calls.max(1) as f64, 100.0),
            cut_short: run.cut_short,
        }
    }
}

/// Under what conditions a run was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) transport: &'static str,
    pub(crate) face: &'static str,
    pub(crate) inflight: u32,
    pub(crate) cut_short: Option<Cut>,
}

/// What ends a run before its end.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) enum Cut {
    #[serde(rename = "connection lost")]
    ConnectionLost,
    #[serde(rename = "signal")]
    Signal,
}

/// The result of a run; as JSON one line of these fields.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    transport: &'static str,
    face: &'static str,
    calls: u64,
    ok: u64,
    errors: u64,
    inflight: u32,
    secs: f64,
    calls_per_sec: f64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
    cpu_us_per_call: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_short: Option<Cut>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            transport, face, ..
        } = self;
        writeln!(f, "{transport}, {face} face, {} in flight", self.inflight)?;
        writeln!(
            f,
            "calls    {} in {} s, {}/s: {} ok, {} failed",
            self.calls, self.secs, self.calls_per_sec, self.ok, self.errors
        )?;
        writeln!(
            f,
            "latency  p50 {}, p90 {}, p99 {}, p99.9 {}, max {}",
            time(self.p50_us),
            time(self.p90_us),
            time(self.p99_us),
            time(self.p999_us),
            time(self.max_us)
        )?;
        let whose = match *transport {
            "memory" => "callers, broker and service together",
            _ => "callers alone",
        };
        write!(f, "cpu      {} µs a call, {whose}", self.cpu_us_per_call)
    }
}

/// The processor time that this process has taken.
pub(crate) fn cpu_time() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    // Neither part of this clock can be negative.
    let secs = u64::try_from(spent.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(spent.tv_nsec).unwrap_or(0);
    Duration::new(secs, nanos)
}

fn time(micros: f64) -> String {
    if micros < 1_000.0 {
        format!("{micros} µs")
    } else {
        format!("{} ms", round(micros / 1_000.0, 100.0))
    }
}

fn micros(nanos: u64) -> f64 {
    round(nanos as f64 / 1_000.0, 10.0)
}

/// Keeps so many parts of one.
fn round(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use rpc_core::Status;

    use super::*;

    #[test]
    fn failures_are_counted_by_kind_and_the_first_of_each_is_quoted() {
        let mut tally = Tally::new().unwrap();
        tally.ok(Duration::from_micros(10));
        tally.wrong(3, 7);
        for n in 0..3 {
            let status = Status::out_of_range(format!("number {n}"));
            tally.failed(&CallError::Remote(status));
        }
        assert_eq!(tally.calls(), 5);
        assert_eq!(
            tally.error_lines().collect::<Vec<_>>(),
            [
                "3 x OUT_OF_RANGE (executed): number 0",
                "1 x WRONG_ANSWER: fib(3) is not 7"
            ]
        );
    }

    #[test]
    fn a_run_without_a_call_has_a_report() {
        let setting = Setting {
            transport: "memory",
            face: "async",
            inflight: 1,
            cut_short: None,
        };
        let report = Tally::new()
            .unwrap()
            .report(setting, Duration::ZERO, Duration::ZERO);
        let json = serde_json::to_string(&report).unwrap();
        assert!(json.starts_with(r#"{"transport":"memory","face":"async","calls":0,"ok":0,"#));
        assert!(!json.contains("null"), "{json}");
    }

    #[test]
    fn latencies_of_any_length_are_kept_to_three_digits() {
        let mut tally = Tally::new().unwrap();
        for micros in [1, 1_000, 60_000_000] {
            tally.ok(Duration::from_micros(micros));
        }
        let setting = Setting {
            transport: "memory",
            face: "async",
            inflight: 1,
            cut_short: None,
        };
        let report = tally.report(setting, Duration::from_secs(1), Duration::ZERO);
        assert!((report.p50_us - 1e3).abs() < 1.0, "{report:?}");
        assert!((report.max_us - 6e7).abs() < 6e4, "{report:?}");
    }

    #[test]
    fn processor_time_goes_on() {
        let before = cpu_time();
        let mut sum = 0u64;
        while cpu_time() == before {
            sum = std::hint::black_box(sum + 1);
        }
    }
}
