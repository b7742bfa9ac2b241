//! The benchmarks, tier by tier: one criterion, one program, one report.

mod adapters;
mod machines;
mod roundtrip;

use std::time::Duration;

use anyhow::Result;
use criterion::{Criterion, PlottingBackend};

fn main() -> Result<()> {
    // Before the command line, which thus overrides it. All tiers together stay under six minutes,
    // a good part of which is criterion's resampling: 100,000 times unless told otherwise.
    let mut criterion = Criterion::default()
        .plotting_backend(PlottingBackend::Plotters)
        .sample_size(30)
        .nresamples(10_000)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(5))
        .configure_from_args();
    machines::define(&mut criterion);
    adapters::define(&mut criterion);
    roundtrip::define(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
