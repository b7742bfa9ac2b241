//! `cargo xtask ci`: the list of checks that a change must pass, on any machine.
//!
//! Whatever is not run is named in the table at the end, with the reason, and in the last line.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use comfy_table::{Table, presets};

use crate::provision::{self, Missing};
use crate::run::{Interrupted, capture, check_interrupted, echo, seconds, show, succeeds};
use crate::workspace::{cargo, root};
use crate::{Verdict, advisories, dependencies, features, test, tidy};

/// Options of `ci`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Go on after a step that failed
    #[arg(long)]
    keep_going: bool,
}

/// How a step turned out.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Outcome {
    Failed(String),
    /// All that was run has passed, but not everything was run.
    InPart(String),
    /// It needs something that cannot be had from here.
    Missing(String),
    NotRun(String),
    Passed,
}

type Step = (&'static str, fn() -> Result<Outcome>);

/// The command `ci`.
pub(crate) fn run(options: &Options) -> Result<Verdict> {
    tell_compiler()?;
    let mut results: Vec<(&str, Outcome, Duration)> = Vec::new();
    let mut stopped = false;
    for (name, step) in STEPS {
        check_interrupted()?;
        if stopped {
            results.push((
                name,
                Outcome::NotRun("an earlier step failed".into()),
                Duration::ZERO,
            ));
            continue;
        }
        echo(&format!("\n######## {name}"));
        let started = Instant::now();
        let outcome = match step() {
            Ok(outcome) => outcome,
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) if error.is::<Missing>() => Outcome::Missing(format!("{error:#}")),
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        match &outcome {
            Outcome::Passed => {}
            Outcome::InPart(reason) => echo(&format!("{name} was run in part: {reason}")),
            Outcome::NotRun(reason) => echo(&format!("{name} was not run: {reason}")),
            Outcome::Failed(reason) | Outcome::Missing(reason) => {
                echo(&format!("{name} FAILED: {reason}"));
                stopped = !options.keep_going;
            }
        }
        results.push((name, outcome, started.elapsed()));
    }
    summarise(&results)
}

/// Says what compiles, first of all: lints and messages differ from one version to the next.
fn tell_compiler() -> Result<()> {
    let mut rustc = Command::new("rustc");
    rustc.current_dir(root()).arg("--version");
    let (_, output) = capture(rustc, Duration::from_secs(60))?;
    let output = output.trim();
    echo(output);
    let promised = dependencies::PROMISED_COMPILER;
    if !is_compiler(output, promised)? {
        echo(&format!(
            "    this is not {promised}, the stated minimum: what passes here may not pass there"
        ));
    }
    Ok(())
}

/// Tells whether the output of `rustc --version` is that of the version, whatever its last part.
fn is_compiler(output: &str, promised: &str) -> Result<bool> {
    let version = output.split(' ').nth(1).unwrap_or_default();
    let found = dependencies::compiler(version).context("rustc --version")?;
    let promised = dependencies::compiler(promised)?;
    Ok((found.major, found.minor) == (promised.major, promised.minor))
}

fn summarise(results: &[(&str, Outcome, Duration)]) -> Result<Verdict> {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["step", "outcome", "time", ""]);
    for (name, outcome, elapsed) in results {
        let (word, reason) = match outcome {
            Outcome::Failed(reason) => ("FAILED", reason.lines().next().unwrap_or_default()),
            Outcome::InPart(reason) => ("in part", reason.as_str()),
            Outcome::Missing(reason) => ("NOT POSSIBLE", reason.lines().next().unwrap_or_default()),
            Outcome::NotRun(reason) => ("not run", reason.as_str()),
            Outcome::Passed => ("passed", ""),
        };
        let reason: String = reason.chars().take(REASON_WIDTH).collect();
        table.add_row([*name, word, &seconds(*elapsed), &reason]);
    }
    echo(&format!("\n{table}"));
    let verdict = verdict(results);
    echo(&match verdict {
        Ok(Verdict::Passed) => format!("ci: passed{}", gaps(results)),
        Ok(Verdict::Failed) => "ci: FAILED".to_owned(),
        Err(_) => "ci: NOT POSSIBLE here".to_owned(),
    });
    verdict
}

/// A failure weighs more than what is missing, which is an error of its own kind.
fn verdict(results: &[(&str, Outcome, Duration)]) -> Result<Verdict> {
    let outcomes = || results.iter().map(|(_, outcome, _)| outcome);
    if outcomes().any(|outcome| matches!(outcome, Outcome::Failed(_))) {
        return Ok(Verdict::Failed);
    }
    let missing = outcomes().find_map(|outcome| match outcome {
        Outcome::Missing(reason) => Some(reason.clone()),
        _ => None,
    });
    missing.map_or(Ok(Verdict::Passed), |reason| Err(Missing(reason).into()))
}

/// What the word "passed" does not cover.
fn gaps(results: &[(&str, Outcome, Duration)]) -> String {
    let named = |is_one: fn(&Outcome) -> bool| {
        let steps = results.iter().filter(|(_, outcome, _)| is_one(outcome));
        steps.map(|(name, ..)| *name).collect::<Vec<_>>()
    };
    let not_run = named(|outcome| matches!(outcome, Outcome::NotRun(_)));
    let in_part = named(|outcome| matches!(outcome, Outcome::InPart(_)));
    let mut gaps = String::new();
    if !not_run.is_empty() {
        let (count, all) = (not_run.len(), results.len());
        gaps += &format!(", {count} of {all} not run: {}", not_run.join(", "));
    }
    if !in_part.is_empty() {
        gaps += &format!(", run in part: {}", in_part.join(", "));
    }
    gaps
}

fn step(command: Command) -> Result<Outcome> {
    let ended = show(command, STEP_LIMIT)?;
    if ended.success() {
        Ok(Outcome::Passed)
    } else {
        bail!("it {}", ended.describe())
    }
}

fn format() -> Result<Outcome> {
    step(cargo(&["fmt", "--all", "--check"]))
}

fn lints() -> Result<Outcome> {
    let arguments = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--locked",
    ];
    step(cargo(&[&arguments[..], &["--", "-D", "warnings"]].concat()))
}

fn documentation() -> Result<Outcome> {
    let mut command = cargo(&[
        "doc",
        "--workspace",
        "--no-deps",
        "--all-features",
        "--locked",
    ]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    step(command)
}

fn feature_trees() -> Result<Outcome> {
    features::prove_trees().map(|()| Outcome::Passed)
}

fn feature_sets() -> Result<Outcome> {
    features::check_sets()?;
    features::run_lone_tests().map(|()| Outcome::Passed)
}

fn dependencies_step() -> Result<Outcome> {
    Ok(match dependencies::check()? {
        0 => Outcome::Passed,
        count => Outcome::Failed(format!("{count} faults")),
    })
}

fn cargo_deny() -> Result<Outcome> {
    if let Some(not_run) = unless_installed("deny")? {
        return Ok(not_run);
    }
    step(cargo(&["deny", "check", "bans", "licenses", "sources"]))
}

fn audit() -> Result<Outcome> {
    if let Some(not_run) = unless_installed("audit")? {
        return Ok(not_run);
    }
    let mut command = cargo(&["audit"]);
    if let Some(database) = advisories::database()? {
        command
            .arg("--db")
            .arg(database)
            .args(["--no-fetch", "--stale"]);
    }
    step(command)
}

/// These tools take minutes to build, so that installing them is left to whoever wants them.
fn unless_installed(tool: &str) -> Result<Option<Outcome>> {
    if succeeds(cargo(&[tool, "--version"]), Duration::from_secs(30))? {
        return Ok(None);
    }
    let reason = format!("cargo-{tool} is not installed (cargo install --locked cargo-{tool})");
    Ok(Some(Outcome::NotRun(reason)))
}

fn advisories_step() -> Result<Outcome> {
    Ok(match advisories::check()? {
        advisories::Found::NoDatabase => Outcome::NotRun(advisories::NO_DATABASE.into()),
        advisories::Found::Nothing => Outcome::Passed,
        advisories::Found::Faults(count) => Outcome::Failed(format!("{count} faults")),
    })
}

fn house_rules() -> Result<Outcome> {
    Ok(of_verdict(tidy::run()?))
}

fn tests() -> Result<Outcome> {
    let outcome = of_verdict(test::run(&test::Options::default())?);
    if outcome == Outcome::Passed && provision::given_url().is_some() {
        return Ok(Outcome::InPart(test::LEFT_OUT.into()));
    }
    Ok(outcome)
}

fn of_verdict(verdict: Verdict) -> Outcome {
    match verdict {
        Verdict::Failed => Outcome::Failed("see above".into()),
        Verdict::Passed => Outcome::Passed,
    }
}

/// Cheap ones first, except that the lints build what the later steps need.
const STEPS: &[Step] = &[
    ("format", format),
    ("house rules", house_rules),
    ("advisories", advisories_step),
    ("cargo audit", audit),
    ("dependencies", dependencies_step),
    ("cargo deny", cargo_deny),
    ("feature trees", feature_trees),
    ("lints", lints),
    ("feature sets", feature_sets),
    ("documentation", documentation),
    ("tests", tests),
];

/// The whole reason stands above, where the step failed.
const REASON_WIDTH: usize = 90;

const STEP_LIMIT: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_that_was_not_run_is_no_failure_but_a_failed_one_is() {
        let not_run = ("a", Outcome::NotRun("no tool".into()), Duration::ZERO);
        let failed = ("b", Outcome::Failed("broken".into()), Duration::ZERO);
        let passed = verdict(std::slice::from_ref(&not_run)).expect("a verdict");
        assert_eq!(passed, Verdict::Passed);
        let failed = verdict(&[not_run, failed]).expect("a verdict");
        assert_eq!(failed, Verdict::Failed);
    }

    #[test]
    fn what_is_missing_stays_an_error_of_its_kind_unless_something_failed() {
        let missing = ("a", Outcome::Missing("no broker".into()), Duration::ZERO);
        let failed = ("b", Outcome::Failed("broken".into()), Duration::ZERO);
        let error = verdict(std::slice::from_ref(&missing)).expect_err("it is missing");
        assert!(error.is::<Missing>());
        assert_eq!(error.to_string(), "no broker");
        let failed = verdict(&[missing, failed]).expect("a verdict");
        assert_eq!(failed, Verdict::Failed);
    }

    #[test]
    fn last_line_names_what_was_not_run() {
        let step = |name, outcome| (name, outcome, Duration::ZERO);
        let mut results = vec![step("a", Outcome::Passed)];
        assert_eq!(gaps(&results), "");
        results.push(step("b", Outcome::NotRun("no tool".into())));
        results.push(step("c", Outcome::NotRun("no tool".into())));
        assert_eq!(gaps(&results), ", 2 of 3 not run: b, c");
        results.push(step("d", Outcome::InPart("no nodes".into())));
        assert_eq!(gaps(&results), ", 2 of 4 not run: b, c, run in part: d");
    }

    #[test]
    fn compiler_is_the_promised_one_whatever_its_last_part() {
        for (output, same) in [
            ("rustc 1.95.0 (59807616e 2026-04-14)", true),
            ("rustc 1.95.3", true),
            ("rustc 1.96.0-nightly (0 2026-05-01)", false),
        ] {
            assert_eq!(is_compiler(output, "1.95").expect("a version"), same);
        }
        assert!(is_compiler("", "1.95").is_err());
    }
}
