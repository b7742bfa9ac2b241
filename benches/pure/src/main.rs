//! Makes a given number of calls and nothing else, so that a profiler which counts instructions
//! finds what one costs: the difference of two runs by the difference of their numbers.

use anyhow::Result;
use clap::{Parser, ValueEnum};
use rpc_pure::machines::{Caller, Responder, round_trip};
use rpc_pure::memory;

/// Makes a given number of calls that need nothing but a processor.
#[derive(Debug, Parser)]
struct Arguments {
    /// Which calls
    #[arg(value_enum)]
    what: What,
    /// How many
    calls: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// The machines of both sides, without any I/O
    Machines,
    /// The in-process broker, with the async face
    MemoryAsync,
    /// The in-process broker, with the blocking face
    MemoryBlocking,
}

fn main() -> Result<()> {
    let Arguments { what, calls } = Arguments::parse();
    match what {
        What::Machines => {
            let (mut caller, mut responder) = (Caller::with_pending(0), Responder::default());
            for _ in 0..calls {
                round_trip(&mut caller, &mut responder);
            }
            Ok(())
        }
        What::MemoryAsync => memory::asynchronous(calls),
        What::MemoryBlocking => memory::blocking(calls),
    }
}
