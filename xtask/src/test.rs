//! `cargo xtask test`: everything that can be run, on a broker of our own, and nothing in silence.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use comfy_table::{CellAlignment, Table, presets};
use rabbitmq_node::Node;
use serde::Deserialize;

use crate::libtest::{Collector, Row};
use crate::provision::{self, Broker, PYTHON_VARIABLE, URL_VARIABLE};
use crate::run::{Ended, announced, capture, echo, seconds, watch};
use crate::workspace::{Metadata, cargo};
use crate::{Verdict, broker};

/// Options of `test`.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Leave the broker running afterwards, for `cargo xtask broker`, and use it again next time
    #[arg(long)]
    keep_broker: bool,

    /// Arguments for the test binaries, such as a part of a test's name
    #[arg(last = true)]
    args: Vec<String>,
}

/// The command `test`.
pub(crate) fn run(options: &Options) -> Result<Verdict> {
    let (source, python) = provision::for_tests()?;
    let metadata = Metadata::load()?;
    let names = announced("building the tests", || build(&metadata))?;
    let broker = TestBroker::start(source, options.keep_broker, &metadata)?;
    let environment = Environment {
        url: broker.url(),
        python: &python,
        nodes: broker.nodes(),
    };

    let started = Instant::now();
    let mut rows = Vec::new();
    let mut problems = Vec::new();
    run_tests(options, names, &environment, &mut rows, &mut problems)?;
    run_examples(&metadata, &environment, &mut rows, &mut problems)?;
    run_demo(&environment, &mut rows, &mut problems)?;
    broker.finish()?;

    Ok(report(
        &rows,
        &problems,
        left_out(&environment),
        started.elapsed(),
    ))
}

/// What tests, examples and demonstrations find in their environment.
struct Environment<'a> {
    url: String,
    python: &'a Path,
    /// Whether tests may start brokers of their own.
    nodes: Nodes,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Nodes {
    Allowed,
    LeftOut,
}

impl Environment<'_> {
    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = cargo(arguments);
        command
            .env(URL_VARIABLE, &self.url)
            .env(PYTHON_VARIABLE, self.python);
        command
    }
}

/// The broker of one run.
enum TestBroker {
    Given(String),
    Kept(Node),
    Private(Node),
}

impl TestBroker {
    fn start(source: Broker, keep: bool, metadata: &Metadata) -> Result<Self> {
        match source {
            Broker::Given(url) => Ok(Self::Given(url)),
            Broker::Installed(installation) if keep => {
                let (node, _) = broker::start_or_attach(installation, metadata)?;
                Ok(Self::Kept(node))
            }
            Broker::Installed(installation) => {
                let builder = Node::builder().installation(installation);
                Ok(Self::Private(provision::start_node(builder)?))
            }
        }
    }

    fn url(&self) -> String {
        match self {
            Self::Given(url) => url.clone(),
            Self::Kept(node) | Self::Private(node) => node.url(),
        }
    }

    /// Whoever names a broker has said that none is to be started.
    fn nodes(&self) -> Nodes {
        match self {
            Self::Given(_) => Nodes::LeftOut,
            Self::Kept(_) | Self::Private(_) => Nodes::Allowed,
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::Given(_) => Ok(()),
            Self::Kept(node) => {
                echo(&format!(
                    "broker kept: {} (cargo xtask broker stop)",
                    node.url()
                ));
                node.detach()?;
                Ok(())
            }
            Self::Private(mut node) => {
                announced("stopping the private RabbitMQ", || Ok(node.stop()?))
            }
        }
    }
}

/// Builds all test binaries, and returns what to call each.
///
/// The line that `cargo test` prints for a binary tells its file but not its package.
fn build(metadata: &Metadata) -> Result<BTreeMap<String, String>> {
    let mut arguments = TEST_ARGUMENTS.to_vec();
    arguments.extend(["--no-run", "--message-format", "json-render-diagnostics"]);
    let (ended, output) = capture(cargo(&arguments), BUILD_LIMIT)?;
    if !ended.success() {
        bail!("the build of the tests {}", ended.describe());
    }
    Ok(binary_names(&output, metadata))
}

fn binary_names(messages: &str, metadata: &Metadata) -> BTreeMap<String, String> {
    #[derive(Deserialize)]
    struct Message {
        package_id: String,
        executable: String,
    }
    let packages: BTreeMap<&str, &str> = metadata
        .packages
        .iter()
        .map(|package| (&*package.id, &*package.name))
        .collect();
    let messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok());
    let named = messages.filter_map(|message| {
        let file = message.executable.rsplit('/').next()?.to_owned();
        Some((file, (*packages.get(&*message.package_id)?).to_owned()))
    });
    named.collect()
}

fn run_tests(
    options: &Options,
    names: BTreeMap<String, String>,
    environment: &Environment<'_>,
    rows: &mut Vec<Row>,
    problems: &mut Vec<String>,
) -> Result<()> {
    let mut arguments = TEST_ARGUMENTS.to_vec();
    arguments.extend(["--no-fail-fast", "--", "--include-ignored"]);
    for test in left_out(environment) {
        arguments.extend(["--skip", test]);
    }
    arguments.extend(options.args.iter().map(String::as_str));
    let mut collector = Collector::new(names);
    let ended = announced(&format!("cargo {}", arguments.join(" ")), || {
        watch(environment.cargo(&arguments), TEST_LIMIT, |line| {
            collector.feed(line);
            echo(line);
        })
    })?;
    let (tests, notable) = collector.finish();
    problems.extend(notable);
    let failed = tests.iter().any(|row| row.failed > 0);
    if !ended.success() && !failed {
        problems.push(format!("cargo test {}", ended.describe()));
    }
    rows.extend(tests);
    Ok(())
}

fn run_examples(
    metadata: &Metadata,
    environment: &Environment<'_>,
    rows: &mut Vec<Row>,
    problems: &mut Vec<String>,
) -> Result<()> {
    let examples = metadata.examples(EXAMPLES);
    if examples.is_empty() {
        problems.push(format!("package {EXAMPLES} has no examples"));
        return Ok(());
    }
    for example in examples {
        let features = example.required_features.join(",");
        let mut selection = vec!["--locked", "-p", EXAMPLES, "--example", &example.name];
        if !features.is_empty() {
            selection.extend(["--features", &features]);
        }
        let build = [&["build", "--quiet"], &selection[..]].concat();
        let run = [&["run", "--quiet"], &selection[..]].concat();
        single(&format!("example {}", example.name), rows, problems, |_| {
            // The limit is for the example, not for the compiler.
            let built = watch(environment.cargo(&build), BUILD_LIMIT, echo)?;
            if !built.success() {
                return Ok(built);
            }
            watch(environment.cargo(&run), EXAMPLE_LIMIT, echo)
        })?;
    }
    Ok(())
}

fn run_demo(
    environment: &Environment<'_>,
    rows: &mut Vec<Row>,
    problems: &mut Vec<String>,
) -> Result<()> {
    let package = ["--quiet", "--locked", "-p", "fib-service"];
    let build = [&["build"], &package[..]].concat();
    let run = [&["run"], &package[..], &["--", "demo", "30"]].concat();
    single("fib-service demo 30", rows, problems, |problems| {
        let built = watch(environment.cargo(&build), BUILD_LIMIT, echo)?;
        if !built.success() {
            return Ok(built);
        }
        let mut answered = false;
        let mut ended = watch(environment.cargo(&run), EXAMPLE_LIMIT, |line| {
            answered |= has_number(line, "832040");
            echo(line);
        })?;
        if ended.success() && !answered {
            problems.push("fib-service demo 30: 832040 was not printed".into());
            ended.status = None;
        }
        Ok(ended)
    })
}

/// The tests that are not run because of what the user chose.
fn left_out(environment: &Environment<'_>) -> &'static [&'static str] {
    match environment.nodes {
        Nodes::Allowed => &[],
        Nodes::LeftOut => NODE_TESTS,
    }
}

/// Runs something that either works or does not, as a row of its own.
fn single(
    name: &str,
    rows: &mut Vec<Row>,
    problems: &mut Vec<String>,
    action: impl FnOnce(&mut Vec<String>) -> Result<Ended>,
) -> Result<()> {
    let before = problems.len();
    let ended = announced(name, || action(problems))?;
    if !ended.success() && problems.len() == before {
        problems.push(format!("{name} {}", ended.describe()));
    }
    rows.push(Row::single(name.to_owned(), ended.success(), ended.elapsed));
    Ok(())
}

/// Tells whether the digits stand in the line as a number of their own.
fn has_number(line: &str, digits: &str) -> bool {
    line.split(|c: char| !c.is_ascii_digit())
        .any(|number| number == digits)
}

/// Prints the table and the verdict; the last line is the sum in a fixed form.
fn report(rows: &[Row], problems: &[String], left_out: &[&str], elapsed: Duration) -> Verdict {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["target", "passed", "failed", "ignored", "seconds"]);
    for row in rows.iter().filter(|row| !row.is_empty()) {
        let time = format!("{:.2}", row.elapsed.as_secs_f64());
        table.add_row([
            row.name.clone(),
            row.passed.to_string(),
            row.failed.to_string(),
            row.ignored.to_string(),
            time,
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let sum = |count: fn(&Row) -> u64| rows.iter().map(count).sum::<u64>();
    let (passed, failed) = (sum(|row| row.passed), sum(|row| row.failed));
    let (ignored, filtered) = (sum(|row| row.ignored), sum(|row| row.filtered));

    echo(&format!("\n{table}"));
    for problem in problems {
        echo(problem);
    }
    let empty = rows.iter().filter(|row| row.is_empty()).count();
    if empty > 0 {
        echo(&format!("{empty} targets without tests are not shown"));
    }
    // Each of them exists once, and counts among those that a filter has kept from running.
    let filtered = filtered.saturating_sub(left_out.len() as u64);
    if filtered > 0 {
        echo(&format!("{filtered} left out by the arguments given"));
    }
    if !left_out.is_empty() {
        echo(&format!("{} {LEFT_OUT}:", left_out.len()));
        for test in left_out {
            echo(&format!("    {test}"));
        }
    }
    let verdict = verdict(rows, problems);
    echo(&match verdict {
        Verdict::Passed => format!(
            "All that was to run has run and passed, in {}.",
            seconds(elapsed)
        ),
        Verdict::Failed if ignored > 0 => format!("FAILED; {ignored} should have run and did not."),
        Verdict::Failed => "FAILED".to_owned(),
    });
    echo(&format!("{passed} passed, {failed} failed"));
    verdict
}

fn verdict(rows: &[Row], problems: &[String]) -> Verdict {
    let clean = |row: &Row| row.failed == 0 && row.ignored == 0;
    let ran = rows.iter().any(|row| row.passed > 0);
    if ran && problems.is_empty() && rows.iter().all(clean) {
        Verdict::Passed
    } else {
        Verdict::Failed
    }
}

const TEST_ARGUMENTS: &[&str] = &["test", "--workspace", "--all-features", "--locked"];

/// Why tests that start nodes are left out.
pub(crate) const LEFT_OUT: &str = "left out: they start brokers, and RPC_AMQP_URL names the one";

/// The tests that start a node of their own, by their names within their binaries.
const NODE_TESTS: &[&str] = &[
    "detached_node_is_found_again",
    "failed_start_quotes_the_node",
    "faults::what_is_not_permitted_is_denied_and_costs_nothing",
    "node_is_killed_restarted_frozen_and_stopped",
    "nodes_of_a_cluster_know_each_other_and_come_back",
    "torture::a_broker_that_dies_loses_no_call",
    "torture::a_client_closes_in_time_under_an_alarm",
    "torture::a_queue_that_is_deleted_is_served_again",
    "torture::an_alarm_hangs_no_call_and_stops_no_acknowledgement",
    "torture::clients_and_workers_may_start_before_the_broker",
    "torture::clients_that_die_cost_nobody_else_anything",
    "torture::poison_is_taken_out_and_its_neighbours_are_answered",
    "two_nodes_do_not_meet_unless_they_are_peers",
];

const EXAMPLES: &str = "rpc-examples";

const BUILD_LIMIT: Duration = Duration::from_secs(3600);

const TEST_LIMIT: Duration = Duration::from_secs(3600);

const EXAMPLE_LIMIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::root;

    #[test]
    fn number_is_found_as_a_whole_only() {
        assert!(has_number("fib(30) = 832040", "832040"));
        assert!(!has_number("fib(30) = 8320401", "832040"));
    }

    #[test]
    fn binaries_are_called_by_their_package() {
        let metadata: Metadata = serde_json::from_str(
            r#"{"target_directory": "/t", "packages":
                [{"id": "path+file:///w/c#0.1.0", "name": "c", "targets": []}]}"#,
        )
        .expect("metadata");
        let messages = r#"
            {"reason":"build-script-executed","package_id":"x"}
            {"reason":"compiler-artifact","package_id":"path+file:///w/c#0.1.0","executable":null}
            {"reason":"compiler-artifact","package_id":"path+file:///w/c#0.1.0","executable":"/t/debug/deps/it-12"}
            {"reason":"build-finished","success":true}"#;
        let names = binary_names(messages, &metadata);
        assert_eq!(names, [("it-12".to_owned(), "c".to_owned())].into());
    }

    /// What a test that starts a node has in it.
    const STARTS: [&str; 2] = ["Node::builder", "holds_on_own_node("];

    /// The names of the tests of a file that start nodes, without their modules.
    fn node_tests(source: &str) -> Vec<String> {
        if !source.contains("rabbitmq_node") {
            return Vec::new();
        }
        let tests = source.split("#[test]\n").skip(1);
        let starting = tests.filter(|test| STARTS.iter().any(|start| test.contains(start)));
        let names = starting.filter_map(|test| test.split_once("fn ")?.1.split_once('('));
        names.map(|(name, _)| name.to_owned()).collect()
    }

    fn collect_node_tests(dir: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                collect_node_tests(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = std::fs::read_to_string(&path).expect("a file");
                found.extend(node_tests(&source));
            }
        }
    }

    #[test]
    fn every_test_that_starts_a_node_is_known() {
        let mut found = Vec::new();
        for part in ["crates", "tests"] {
            collect_node_tests(&root().join(part), &mut found);
        }
        found.sort();
        let mut known: Vec<_> = NODE_TESTS
            .iter()
            .map(|test| test.rsplit("::").next().unwrap_or_default())
            .collect();
        known.sort_unstable();
        assert_eq!(found, known);
    }

    #[test]
    fn run_passes_only_when_nothing_failed_and_nothing_was_left_out() {
        let row = |works| Row::single("x".into(), works, Duration::ZERO);
        assert_eq!(verdict(&[row(true)], &[]), Verdict::Passed);
        assert_eq!(verdict(&[row(true), row(false)], &[]), Verdict::Failed);
        assert_eq!(
            verdict(&[row(true)], &["no examples".into()]),
            Verdict::Failed
        );
        assert_eq!(verdict(&[], &[]), Verdict::Failed);
        let mut ignored = row(true);
        ignored.ignored = 1;
        assert_eq!(verdict(&[ignored], &[]), Verdict::Failed);
    }
}
