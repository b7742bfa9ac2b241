//! The simulator: the machines of rpc-proto in a world of their own, a hundred thousand of them.
//!
//! No broker and no client library are in it, and hours pass in milliseconds. A seed that breaks a
//! promise is named and can be run again. Built with the feature `mutants`, the planted bugs are hunted
//! as well: a simulator that finds nothing must be known to be able to.

use std::time::Duration;

use anyhow::Result;

use crate::ground::Ground;
use crate::ledger::{Rules, Tally};
use crate::report::Report;
use crate::scenario::{Needs, Scenario};
use crate::setting::{Numbers, Setting, Transport};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "sim",
    about: "the simulator, so many seeds as calls: no promise is broken, and every planted bug is found",
    needs: Needs::Nothing,
    transports: &[Transport::Memory, Transport::Lapin, Transport::Amiquip],
    full: Numbers {
        calls: 100_000,
        in_flight: 1,
        // The seeds within which each planted bug must be found.
        faults: 10_000,
        duration: Duration::ZERO,
    },
    short: Numbers {
        calls: 300,
        in_flight: 1,
        faults: 0,
        duration: Duration::ZERO,
    },
    limit: Duration::from_secs(3_600),
    run,
};

fn run(setting: &Setting, _: &mut Ground) -> Result<Report> {
    let seeds = setting.numbers.calls;
    let from = setting.seed.saturating_sub(1).saturating_mul(seeds);
    let simulated = rpc_sim::run_seeds(from..from.saturating_add(seeds), |done| {
        if done % 100 == 0 {
            (setting.progress)(done, seeds, "");
        }
        true
    });
    let rules = Rules::default();
    let mut report = Report::new(SCENARIO.name, setting, Tally::default(), &rules);
    report.figure("seeds", simulated.seeds);
    report.figure("first_seed", from);
    report.figure("violations", simulated.broken.len() as u64);
    let counts = simulated.counts;
    report.tally.calls = counts.calls;
    report.tally.ok = counts.ok;
    report.tally.typed_errors = counts.failed;
    report.tally.executions = counts.executions;
    report.tally.redeliveries = counts.redeliveries;
    report.figure("attempts", counts.attempts);
    report.figure("events", counts.events);
    report.require(
        simulated.seeds >= seeds || !simulated.broken.is_empty(),
        || format!("{} of {seeds} seeds were run", simulated.seeds),
    );
    for outcome in &simulated.broken {
        report.require(false, || outcome.to_string());
    }
    hunt(setting, &mut report);
    Ok(report)
}

/// Plants each bug in turn, and looks for it.
#[cfg(feature = "mutants")]
fn hunt(setting: &Setting, report: &mut Report) {
    use rpc_proto::mutants::{Mutant, plant};

    let seeds = u64::from(setting.numbers.faults);
    if seeds == 0 {
        return;
    }
    // Some of them make a machine panic, which is a way to be found.
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut found = 0u64;
    let mut latest = 0;
    for (number, &mutant) in (1u64..).zip(Mutant::ALL) {
        match rpc_sim::hunt(0..seeds, || plant(Some(mutant))) {
            Some(outcome) => {
                found += 1;
                latest = latest.max(outcome.options.seed);
            }
            None => report.require(false, || format!("{mutant:?} was not found")),
        }
        (setting.progress)(number, Mutant::ALL.len() as u64, "hunting for planted bugs");
    }
    std::panic::set_hook(loud);
    report.figure("mutants_found", found);
    report.figure("mutants", Mutant::ALL.len() as u64);
    report.figure("latest_seed_of_a_find", latest);
}

#[cfg(not(feature = "mutants"))]
fn hunt(_: &Setting, report: &mut Report) {
    report.figure("mutants", "not built in: the feature `mutants`");
}
