//! The fault rig as a program: `cargo xtask torture` builds and runs it.

use std::env;
use std::process::ExitCode;

use rpc_tests::{cli, victim, worker};

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1).peekable();
    if arguments
        .peek()
        .is_some_and(|first| first == worker::WORKER)
    {
        return worker::main(arguments);
    }
    if arguments
        .peek()
        .is_some_and(|first| first == victim::VICTIM)
    {
        return victim::main(arguments);
    }
    cli::main(env::args_os())
}
