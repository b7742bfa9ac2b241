//! The project's own commands, run as `cargo xtask COMMAND`.
//!
//! This file has the command line and the exit codes; each command has a file of its own.

mod advisories;
mod bench;
mod broker;
mod ci;
mod dependencies;
mod features;
mod libtest;
mod provision;
mod run;
mod source;
mod test;
mod tidy;
mod torture;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::provision::Missing;
use crate::run::{Interrupted, Usage};

/// The project's own commands.
///
/// Exit codes: 0 all well, 1 something failed, 2 wrong usage, or something is missing on this machine and
/// cannot be installed from here, 130 interrupted.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run every test, example and demonstration there is, with a private RabbitMQ
    ///
    /// Installs what is missing if it may, starts a private broker, runs the tests of the whole
    /// workspace including those that a bare `cargo test` leaves out, then every example, then the
    /// demonstration of the Fibonacci service, and ends with a table.
    ///
    /// Where RPC_AMQP_URL names a broker that tests may use, that one is taken, nothing is installed
    /// for it, and tests that start a node of their own are left out and listed.
    Test(test::Options),

    /// Run everything that a change must pass: format, lints, docs, features, licences,
    /// advisories, house rules, tests
    Ci(ci::Options),

    /// Check the house rules that no lint knows, on every file that git knows or would take
    Tidy,

    /// Compare Cargo.lock with a RustSec advisory database, without the network
    ///
    /// The database is a checkout named by RPC_ADVISORY_DB, or the one that cargo-audit keeps.
    Advisories,

    /// Run a private RabbitMQ to play with
    #[command(subcommand)]
    Broker(broker::Command),

    /// Run the benchmarks against a private RabbitMQ and print one table of the results
    Bench(bench::Options),

    /// Break brokers, workers and networks under load, and account for every call
    ///
    /// `--list` shows the scenarios. Exits with 1 when a rule is broken. RPC_AMQP_URL names a broker for
    /// the scenarios that only use one; those that break one start it themselves.
    Torture(torture::Options),

    /// Find or install what the tests need: RabbitMQ, and Python with pika
    Setup(provision::Options),
}

/// How a command that ran to its end turned out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Failed,
    Passed,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = run::catch_signals().and_then(|()| match arguments.command {
        Command::Test(options) => test::run(&options),
        Command::Ci(options) => ci::run(&options),
        Command::Tidy => tidy::run(),
        Command::Advisories => advisories::run(),
        Command::Broker(command) => broker::run(&command),
        Command::Bench(options) => bench::run(&options),
        Command::Torture(options) => torture::run(&options),
        Command::Setup(options) => provision::run(&options),
    });
    match result {
        Ok(Verdict::Passed) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::from(1),
        Err(error) => {
            if error.is::<Usage>() {
                return ExitCode::from(2);
            }
            eprintln!("error: {error:#}");
            if error.is::<Missing>() {
                ExitCode::from(2)
            } else if error.is::<Interrupted>() {
                ExitCode::from(130)
            } else {
                ExitCode::from(1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent_and_documented() {
        let command = Arguments::command();
        command.clone().debug_assert();
        for sub in command.get_subcommands() {
            assert!(
                sub.get_about().is_some(),
                "{} has no help text",
                sub.get_name()
            );
            for argument in sub.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{} has no help text",
                    argument.get_id()
                );
            }
        }
    }
}
