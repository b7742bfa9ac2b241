//! The program `fib-service`: serves the Fibonacci service, calls it and puts it under load, over
//! whichever transport it is told to.

// Without a transport there is nobody to call the rest. Such a build is of no use, but it is no
// fault either: it says so when it is run.
#![cfg_attr(
    not(any(feature = "memory", feature = "lapin", feature = "amiquip")),
    allow(dead_code, unreachable_code, unused_variables)
)]

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::run(cli::Args::parse()).unwrap_or_else(|failure| failure.report())
}
