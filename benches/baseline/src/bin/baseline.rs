//! The program whose calls are timed.

use std::process::ExitCode;

fn main() -> ExitCode {
    rpc_baseline::main(None)
}
