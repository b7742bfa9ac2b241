//! `cargo xtask ci`: the list of checks that a change must pass, on any machine.
//!
//! Whatever is not run is named in the table at the end, with the reason.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use comfy_table::{Table, presets};

use crate::run::{Interrupted, check_interrupted, echo, seconds, show, succeeds};
use crate::workspace::cargo;
use crate::{Verdict, advisories, features, test, tidy};

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
    NotRun(String),
    Passed,
}

type Step = (&'static str, fn() -> Result<Outcome>);

/// The command `ci`.
pub(crate) fn run(options: &Options) -> Result<Verdict> {
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
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        match &outcome {
            Outcome::Passed => {}
            Outcome::NotRun(reason) => echo(&format!("{name} was not run: {reason}")),
            Outcome::Failed(reason) => {
                echo(&format!("{name} FAILED: {reason}"));
                stopped = !options.keep_going;
            }
        }
        results.push((name, outcome, started.elapsed()));
    }
    Ok(summarise(&results))
}

fn summarise(results: &[(&str, Outcome, Duration)]) -> Verdict {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["step", "outcome", "time", ""]);
    for (name, outcome, elapsed) in results {
        let (word, reason) = match outcome {
            Outcome::Failed(reason) => ("FAILED", reason.lines().next().unwrap_or_default()),
            Outcome::NotRun(reason) => ("not run", reason.as_str()),
            Outcome::Passed => ("passed", ""),
        };
        let reason: String = reason.chars().take(REASON_WIDTH).collect();
        table.add_row([*name, word, &seconds(*elapsed), &reason]);
    }
    echo(&format!("\n{table}"));
    let verdict = verdict(results);
    echo(match verdict {
        Verdict::Failed => "ci: FAILED",
        Verdict::Passed => "ci: passed",
    });
    verdict
}

fn verdict(results: &[(&str, Outcome, Duration)]) -> Verdict {
    let failed = results
        .iter()
        .any(|(_, outcome, _)| matches!(outcome, Outcome::Failed(_)));
    if failed {
        Verdict::Failed
    } else {
        Verdict::Passed
    }
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
    features::check_sets().map(|()| Outcome::Passed)
}

fn licences() -> Result<Outcome> {
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
    if let Some(database) = advisories::database() {
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
    Ok(of_verdict(test::run(&test::Options::default())?))
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
    ("cargo deny", licences),
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
        assert_eq!(verdict(std::slice::from_ref(&not_run)), Verdict::Passed);
        assert_eq!(verdict(&[not_run, failed]), Verdict::Failed);
    }
}
