//! The criterion benchmarks on a private broker, and their results as one table.
//!
//! The numbers are criterion's own, read from the files it leaves, so that the table and its HTML
//! report never disagree.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use rabbitmq_node::Node;
use serde::Deserialize;

use crate::Verdict;
use crate::provision::{self, Broker, URL_VARIABLE};
use crate::run::{announced, echo, show};
use crate::workspace::{Metadata, cargo};

/// Runs them with these arguments, such as a part of a benchmark's name.
pub(super) fn run(args: &[String]) -> Result<Verdict> {
    let source = provision::for_benches()?;
    let metadata = Metadata::load()?;
    let mut arguments = vec!["bench", "--locked", "-p", "rpc-benches"];
    let build = [&arguments[..], &["--no-run"]].concat();
    let built = announced("building the benchmarks", || {
        show(cargo(&build), BUILD_LIMIT)
    })?;
    if !built.success() {
        return Ok(Verdict::Failed);
    }
    let (url, node) = match source {
        Broker::Given(url) => (url, None),
        Broker::Installed(installation) => {
            let node = provision::start_node(Node::builder().installation(installation))?;
            (node.url(), Some(node))
        }
    };
    if !args.is_empty() {
        arguments.push("--");
        arguments.extend(args.iter().map(String::as_str));
    }
    let mut command = cargo(&arguments);
    command.env(URL_VARIABLE, url);
    let started = SystemTime::now();
    let ended = announced(&format!("cargo {}", arguments.join(" ")), || {
        show(command, BENCH_LIMIT)
    })?;
    if let Some(mut node) = node {
        node.stop()?;
    }
    if !ended.success() {
        echo(&format!("cargo bench {}", ended.describe()));
    }
    if !measures(args) {
        echo("nothing was to be measured");
        return Ok(if ended.success() {
            Verdict::Passed
        } else {
            Verdict::Failed
        });
    }

    let home = metadata.target_directory.join("criterion");
    let mut measured = Vec::new();
    let older = collect(&home, started, &mut measured)?;
    measured.sort_by(|a, b| a.key().cmp(&b.key()));
    echo(&format!("\n{}", table(&measured)));
    echo("per call: the median over the batches, divided by the calls of a batch;");
    echo("in brackets the interval of confidence that criterion gives for it");
    if older > 0 {
        echo(&format!("{older} results of earlier runs are not shown"));
    }
    let report = home.join("report").join("index.html");
    if report.is_file() {
        echo(&format!("report: {}", report.display()));
    } else {
        echo(&format!(
            "criterion wrote no HTML report ({})",
            report.display()
        ));
    }
    let works = ended.success() && !measured.is_empty();
    Ok(if works {
        Verdict::Passed
    } else {
        Verdict::Failed
    })
}

/// Tells whether criterion is asked to measure, and not only to try or to list.
fn measures(arguments: &[String]) -> bool {
    !arguments
        .iter()
        .any(|argument| ["--test", "--list"].contains(&argument.as_str()))
}

/// One benchmark's result.
#[derive(Debug, PartialEq)]
struct Measured {
    group: String,
    transport: String,
    face: String,
    in_flight: String,
    /// How many calls one iteration makes.
    calls: f64,
    /// Nanoseconds per iteration: the median and its bounds.
    median: f64,
    lower: f64,
    upper: f64,
}

impl Measured {
    /// Orders as a person would, with 8 in flight before 64.
    fn key(&self) -> (&str, &str, &str, u64, &str) {
        let number = self.in_flight.parse().unwrap_or(u64::MAX);
        (
            &self.group,
            &self.transport,
            &self.face,
            number,
            &self.in_flight,
        )
    }
}

/// Collects results from criterion's directory; returns how many were older than `since`.
fn collect(dir: &Path, since: SystemTime, measured: &mut Vec<Measured>) -> Result<usize> {
    let mut older = 0;
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        let estimates = path.join("estimates.json");
        if path.file_name().is_none_or(|name| name != "new") || !estimates.is_file() {
            older += collect(&path, since, measured)?;
            continue;
        }
        let read = |path: &Path| {
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        };
        if fs::metadata(&estimates)?.modified()? < since {
            older += 1;
            continue;
        }
        let result = parse(&read(&path.join("benchmark.json"))?, &read(&estimates)?);
        measured.push(result.with_context(|| path.display().to_string())?);
    }
    Ok(older)
}

/// Reads criterion's two files on one benchmark.
fn parse(benchmark: &str, estimates: &str) -> Result<Measured> {
    #[derive(Deserialize)]
    struct Benchmark {
        group_id: String,
        function_id: Option<String>,
        value_str: Option<String>,
        throughput: Option<serde_json::Value>,
    }
    #[derive(Deserialize)]
    struct Estimates {
        median: Estimate,
    }
    #[derive(Deserialize)]
    struct Estimate {
        confidence_interval: Interval,
        point_estimate: f64,
    }
    #[derive(Deserialize)]
    struct Interval {
        lower_bound: f64,
        upper_bound: f64,
    }
    let benchmark: Benchmark = serde_json::from_str(benchmark)?;
    let median = serde_json::from_str::<Estimates>(estimates)?.median;
    let function = benchmark.function_id.unwrap_or_default();
    let (transport, face) = match function.rsplit_once('-') {
        Some((transport, face)) if FACES.contains(&face) => (transport, face),
        _ => (function.as_str(), ""),
    };
    // Criterion has had several forms for elements; bytes are no calls.
    let elements = benchmark
        .throughput
        .as_ref()
        .and_then(|throughput| throughput.get("Elements"));
    let calls = elements
        .and_then(serde_json::Value::as_f64)
        .filter(|calls| *calls > 0.0);
    Ok(Measured {
        group: benchmark.group_id,
        transport: transport.to_owned(),
        face: face.to_owned(),
        in_flight: benchmark.value_str.unwrap_or_default(),
        calls: calls.unwrap_or(1.0),
        median: median.point_estimate,
        lower: median.confidence_interval.lower_bound,
        upper: median.confidence_interval.upper_bound,
    })
}

fn table(measured: &[Measured]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "group",
        "transport",
        "face",
        "in flight",
        "per call",
        "calls per second",
    ]);
    for result in measured {
        let rate = |nanoseconds: f64| count(result.calls * 1e9 / nanoseconds);
        let time = |nanoseconds: f64| duration(nanoseconds / result.calls);
        let Measured {
            median,
            lower,
            upper,
            ..
        } = *result;
        table.add_row([
            result.group.clone(),
            result.transport.clone(),
            result.face.clone(),
            result.in_flight.clone(),
            format!("{} [{} {}]", time(median), time(lower), time(upper)),
            // The longest time is the lowest rate.
            format!("{} [{} {}]", rate(median), rate(upper), rate(lower)),
        ]);
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Three or four digits and a unit.
fn duration(nanoseconds: f64) -> String {
    let (value, unit) = match nanoseconds {
        ns if ns < 1e3 => (ns, "ns"),
        ns if ns < 1e6 => (ns / 1e3, "µs"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    if value < 10.0 {
        format!("{value:.2} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// A whole number with its thousands apart.
fn count(value: f64) -> String {
    if value < 10.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut apart = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            apart.push(' ');
        }
        apart.push(digit);
    }
    apart
}

/// What may follow the transport's name in a benchmark's.
const FACES: &[&str] = &["async", "blocking", "sync"];

const BUILD_LIMIT: Duration = Duration::from_secs(3600);

const BENCH_LIMIT: Duration = Duration::from_secs(4 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    const ESTIMATES: &str = r#"{"mean": {"point_estimate": 1.0}, "slope": null, "median": {
        "confidence_interval":
            {"confidence_level": 0.95, "lower_bound": 3200000.0, "upper_bound": 12800000.0},
        "point_estimate": 6400000.0, "standard_error": 10.0}}"#;

    fn benchmark(function: &str, value: &str, throughput: &str) -> String {
        format!(
            r#"{{"group_id": "roundtrip", "function_id": {function}, "value_str": {value},
                "throughput": {throughput}, "full_id": "x", "directory_name": "x", "title": "x"}}"#
        )
    }

    fn lapin() -> Measured {
        let benchmark = benchmark(r#""lapin-async""#, r#""64""#, r#"{"Elements": 64}"#);
        parse(&benchmark, ESTIMATES).expect("a result")
    }

    #[test]
    fn name_is_taken_apart() {
        let result = lapin();
        assert_eq!((&*result.group, &*result.transport), ("roundtrip", "lapin"));
        assert_eq!((&*result.face, &*result.in_flight), ("async", "64"));
        assert_eq!(result.calls, 64.0);
    }

    #[test]
    fn benchmark_of_another_shape_is_shown_all_the_same() {
        let result = parse(
            &benchmark(r#""encode-json""#, "null", r#"{"Bytes": 9}"#),
            ESTIMATES,
        );
        let result = result.expect("a result");
        assert_eq!(
            (&*result.transport, &*result.face, result.calls),
            ("encode-json", "", 1.0)
        );
        let result = parse(&benchmark("null", "null", "null"), ESTIMATES).expect("a result");
        assert_eq!(result.transport, "");
        assert!(parse("{}", ESTIMATES).is_err());
    }

    #[test]
    fn table_is_per_call_and_has_the_spread_the_right_way_round() {
        let text = table(&[lapin()]).to_string();
        assert!(text.contains("100.0 µs [50.0 µs 200.0 µs]"), "{text}");
        assert!(text.contains("10 000 [5 000 20 000]"), "{text}");
    }

    #[test]
    fn only_results_of_this_run_are_collected() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let new = dir
            .path()
            .join("roundtrip")
            .join("lapin-async")
            .join("64")
            .join("new");
        fs::create_dir_all(&new).expect("a directory");
        fs::write(
            new.join("benchmark.json"),
            benchmark("null", "null", "null"),
        )
        .expect("a file");
        fs::write(new.join("estimates.json"), ESTIMATES).expect("a file");
        let mut measured = Vec::new();
        let hour = Duration::from_secs(3600);
        let now = SystemTime::now();
        assert_eq!(
            collect(dir.path(), now + hour, &mut measured).expect("read"),
            1
        );
        assert_eq!(
            collect(dir.path(), now - hour, &mut measured).expect("read"),
            0
        );
        assert_eq!(measured.len(), 1);
    }

    #[test]
    fn trial_and_list_measure_nothing() {
        assert!(measures(&[]) && measures(&["lapin".into()]));
        assert!(!measures(&["--test".into()]) && !measures(&["x".into(), "--list".into()]));
    }

    #[test]
    fn eight_in_flight_come_before_sixty_four() {
        let eight = Measured {
            in_flight: "8".into(),
            ..lapin()
        };
        assert!(eight.key() < lapin().key());
    }
}
