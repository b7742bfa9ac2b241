//! `cargo xtask bench`: criterion's benchmarks, and measurements that need more than one process.

mod cell;
mod compare;
mod criterion;
mod environment;
mod instructions;
mod page;
mod plots;
mod scale;
mod soak;
mod statistics;
mod table;
mod targets;

use anyhow::Result;

use crate::Verdict;

/// Options of `bench`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Option<Command>,

    /// Arguments for the criterion benchmarks, such as a part of a benchmark's name
    #[arg(last = true)]
    args: Vec<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Compare ours with hand-written loops on the bare client libraries, in turns, in one run
    ///
    /// Caller, worker and broker are processes of their own. Each row is measured once in every
    /// round; a ratio is the median of the ratios of the rounds. Exits with 1 when a row could not
    /// be measured; a missed target is told, and no failure.
    Compare(compare::Options),

    /// Count the instructions of a call without I/O, and compare with the committed counts
    ///
    /// A count does not depend on how busy the machine is, so this fits a gate. It needs valgrind,
    /// which is installed if it may be. Exits with 1 when a count differs by more than 3 %, to
    /// whichever side: `--bless` commits to the new ones.
    Instructions(instructions::Options),

    /// How ours and the others change with calls in flight, size, workers and clients
    ///
    /// Calls in flight from 1 to 4,096, bodies from none to 1 MiB, workers from 1 to 8, clients with
    /// connections of their own from 1 to 1,000.
    Scale(scale::Options),

    /// Make calls for a long time, and look at memory, descriptors, threads and latency
    ///
    /// Exits with 1 when the last quarter holds more memory, descriptors or threads than the second.
    Soak(soak::Options),
}

/// The command `bench`.
pub(crate) fn run(options: &Options) -> Result<Verdict> {
    match &options.command {
        None => criterion::run(&options.args),
        Some(Command::Compare(options)) => compare::run(options),
        Some(Command::Instructions(options)) => instructions::run(*options),
        Some(Command::Scale(options)) => scale::run(options),
        Some(Command::Soak(options)) => soak::run(options),
    }
}
