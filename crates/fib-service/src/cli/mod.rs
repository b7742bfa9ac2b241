//! The commands. Each reads as plain sequential code: what differs between the async and the
//! blocking face is behind [`Link`](link::Link), [`Worker`](link::Worker) and
//! [`Client`](drive::Client).

mod args;
mod backend;
mod call;
mod demo;
mod drive;
mod failure;
mod link;
mod load;
mod output;
mod serve;
mod session;
mod signals;
mod tally;
mod values;
mod watch;

use std::process::ExitCode;

pub(crate) use self::args::Args;
use self::args::Command;
use self::failure::Failure;

/// Does what the command line says.
pub(crate) fn run(args: Args) -> Result<ExitCode, Failure> {
    match args.command {
        Command::Demo(args) => demo::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Call(args) => call::run(&args),
        Command::Load(args) => load::run(&args),
    }
}
