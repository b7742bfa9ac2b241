//! `cargo xtask torture`: builds the fault rig and runs one of its scenarios.
//!
//! The scenarios are in the package `rpc-tests`, and so is everything that they do; this command sees to
//! it that RabbitMQ is there, builds the rig as fast as it can be, and passes on what it says.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::Verdict;
use crate::provision::{self, Broker, URL_VARIABLE};
use crate::run::{Usage, announced, attached, capture, show, speak_aside};
use crate::workspace::{Metadata, cargo};

/// Options of `torture`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// What goes wrong; `--list` shows what there is
    #[arg(required_unless_present = "list")]
    scenario: Option<String>,

    /// List the scenarios
    #[arg(long)]
    list: bool,

    /// The client library: lapin, amiquip, or memory for a broker inside the process [default: lapin]
    #[arg(long)]
    transport: Option<String>,

    /// async or blocking; what the transport is made for, if not said
    #[arg(long)]
    face: Option<String>,

    /// How many calls
    #[arg(long)]
    calls: Option<u64>,

    /// How many calls are open at once
    #[arg(long)]
    inflight: Option<usize>,

    /// How many faults: kills, cuts, drains, as the scenario has it
    #[arg(long)]
    faults: Option<u32>,

    /// How many seconds what goes on for a time goes on
    #[arg(long)]
    seconds: Option<u64>,

    /// Where the faults come from: the same seed, the same faults [default: 1]
    #[arg(long)]
    seed: Option<u64>,

    /// The numbers of the test suite instead of those of the gate, and a build that is sooner done
    #[arg(long)]
    short: bool,

    /// Print one line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

impl Options {
    /// What the rig is told: the same words.
    fn to_command_line(&self) -> Vec<String> {
        let mut line: Vec<String> = self.scenario.iter().cloned().collect();
        let mut say = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                line.extend([format!("--{name}"), value]);
            }
        };
        say("transport", self.transport.clone());
        say("face", self.face.clone());
        say("calls", self.calls.map(|value| value.to_string()));
        say("inflight", self.inflight.map(|value| value.to_string()));
        say("faults", self.faults.map(|value| value.to_string()));
        say("seconds", self.seconds.map(|value| value.to_string()));
        say("seed", self.seed.map(|value| value.to_string()));
        for (flag, given) in [
            ("list", self.list),
            ("short", self.short),
            ("json", self.json),
        ] {
            if given {
                line.push(format!("--{flag}"));
            }
        }
        line
    }

    /// Full figures are of a release build; to list or to try one it is not worth the wait.
    const fn profile(&self) -> &'static str {
        if self.list || self.short {
            "dev"
        } else {
            "release"
        }
    }
}

/// The command `torture`.
pub(crate) fn run(options: &Options) -> Result<Verdict> {
    if let Some(name) = options
        .scenario
        .as_deref()
        .filter(|name| !is_scenario(name))
    {
        // Before minutes go into building what could only say the same.
        let all: Vec<&str> = SCENARIOS.lines().collect();
        eprintln!(
            "error: there is no scenario `{name}`; there are {}",
            all.join(", ")
        );
        return Err(Usage.into());
    }
    let metadata = Metadata::load()?;
    let profile = options.profile();
    let arguments = [
        "build",
        "--locked",
        "-p",
        PACKAGE,
        "--bin",
        BINARY,
        "--profile",
        profile,
    ];
    // Of the standard output nothing but the report is wanted.
    if options.json || options.list {
        speak_aside();
    }
    let built = announced("building the fault rig", || {
        show(cargo(&arguments), BUILD_LIMIT)
    })?;
    if !built.success() {
        return Ok(Verdict::Failed);
    }
    let dir = if profile == "dev" { "debug" } else { profile };
    let rig = metadata.target_directory.join(dir).join(BINARY);
    let given = if !options.list && needs_rabbitmq(&rig, options)? {
        given_url()?
    } else {
        None
    };
    let mut command = Command::new(rig);
    command.args(options.to_command_line());
    match given {
        Some(url) => command.env(URL_VARIABLE, url),
        None => command.env_remove(URL_VARIABLE),
    };
    let ended = attached(command, RUN_LIMIT)?;
    let status = ended.status.context("the run was killed at its limit")?;
    match status.code() {
        Some(0) => Ok(Verdict::Passed),
        Some(1) => Ok(Verdict::Failed),
        // It has said what is wrong.
        Some(2) => Err(Usage.into()),
        _ => bail!("the rig {}", ended.describe()),
    }
}

fn is_scenario(name: &str) -> bool {
    SCENARIOS.lines().any(|known| known == name)
}

/// Whether the run takes a RabbitMQ: the rig knows its scenarios.
fn needs_rabbitmq(rig: &Path, options: &Options) -> Result<bool> {
    let mut asking = Command::new(rig);
    asking.args(options.to_command_line()).arg(NEEDS);
    let (ended, said) = capture(asking, ASK_LIMIT)?;
    match ended.status.and_then(|status| status.code()) {
        Some(0) => Ok(said.trim() == "rabbitmq"),
        // It has said what is wrong.
        Some(2) => Err(Usage.into()),
        _ => bail!("the rig {}", ended.describe()),
    }
}

/// The broker that the user named, after RabbitMQ was found or installed if none was.
fn given_url() -> Result<Option<String>> {
    Ok(match provision::for_benches()? {
        Broker::Given(url) => Some(url),
        Broker::Installed(_) => None,
    })
}

/// The rig tests that it has just these.
const SCENARIOS: &str = include_str!("../../tests/src/scenarios/names.txt");

const PACKAGE: &str = "rpc-tests";

const BINARY: &str = "torture";

/// Asks the rig what a run needs, instead of running it.
const NEEDS: &str = "--needs";

const ASK_LIMIT: Duration = Duration::from_secs(30);

const BUILD_LIMIT: Duration = Duration::from_secs(3600);

/// Each scenario has a limit of its own, far below.
const RUN_LIMIT: Duration = Duration::from_secs(2 * 3600);

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parse(words: &[&str]) -> Options {
        let words = [&["torture"], words].concat();
        Line::try_parse_from(words).expect("it is right").options
    }

    #[test]
    fn what_is_said_here_is_said_to_the_rig() {
        let words = [
            "drain",
            "--transport",
            "amiquip",
            "--face",
            "async",
            "--calls",
            "5",
            "--inflight",
            "2",
            "--faults",
            "3",
            "--seconds",
            "4",
            "--seed",
            "7",
            "--short",
            "--json",
        ];
        assert_eq!(parse(&words).to_command_line(), words);
        assert_eq!(parse(&["--list"]).to_command_line(), ["--list"]);
    }

    #[test]
    fn a_name_is_known_without_building_the_rig() {
        assert!(is_scenario("broker-kill") && is_scenario("hang"));
        for name in ["", "no-such-scenario", "hang "] {
            assert!(!is_scenario(name), "{name:?}");
        }
    }

    #[test]
    fn a_scenario_must_be_named_unless_all_are_listed() {
        assert!(Line::try_parse_from(["torture"]).is_err());
        assert_eq!(parse(&["drain"]).profile(), "release");
        assert_eq!(parse(&["drain", "--short"]).profile(), "dev");
    }
}
