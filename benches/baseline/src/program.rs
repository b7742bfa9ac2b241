//! The command line: the caller, and the worker that it starts.

use std::env;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::cell::Cell;
use crate::{measure, worker};

/// Tells how many allocations the process has made so far.
pub(crate) type Allocations = fn() -> u64;

/// Names the broker.
pub(crate) const URL_VARIABLE: &str = "RPC_AMQP_URL";

/// Makes calls by hand-written loops and by ours, and says what they cost.
///
/// RPC_AMQP_URL names the broker, for those that need one.
#[derive(Debug, Parser)]
#[command(name = "rpc-baseline")]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Start workers, make calls, and print one line of JSON on them
    Call {
        #[command(flatten)]
        cell: Cell,
        #[command(flatten)]
        options: measure::Options,
    },
    /// As `call`, again and again, with a line each time
    Soak {
        #[command(flatten)]
        cell: Cell,
        #[command(flatten)]
        options: measure::Options,
        /// Seconds from one line to the next
        #[arg(long, default_value_t = 5.0)]
        every: f64,
    },
    /// Answer requests until the standard input ends
    Work {
        #[command(flatten)]
        cell: Cell,
    },
}

/// The program; `allocations` is there where the allocator counts.
pub fn main(allocations: Option<fn() -> u64>) -> ExitCode {
    match run(Arguments::parse().role, allocations) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rpc-baseline: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(role: Role, allocations: Option<Allocations>) -> Result<()> {
    let url = env::var(URL_VARIABLE).ok();
    match role {
        Role::Call { cell, options } => {
            let outcome = measure::run(url.as_deref(), cell, &options, allocations)?;
            println!("{}", serde_json::to_string(&outcome)?);
            Ok(())
        }
        Role::Soak {
            cell,
            options,
            every,
        } => measure::soak(url.as_deref(), cell, &options, every),
        Role::Work { cell } => {
            let url = url.with_context(|| format!("{URL_VARIABLE} is not set"))?;
            worker::run(&url.parse()?, &cell, allocations)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
