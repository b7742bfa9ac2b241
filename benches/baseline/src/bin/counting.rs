//! The program whose allocations are counted. What it says of time is not comparable.

use std::alloc::System;
use std::process::ExitCode;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    rpc_baseline::main(Some(|| {
        let stats = ALLOCATOR.stats();
        // A buffer that grows is an allocation too.
        (stats.allocations + stats.reallocations) as u64
    }))
}
