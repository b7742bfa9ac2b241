//! Worlds in which everything goes wrong, on virtual time: the machines alone, with a simulated broker.
//!
//! A simulator that finds nothing proves nothing until it is known what it would have found, so bugs
//! are planted in the machines, one after the other, and it must find them all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use rpc_sim::{Outcome, Planted, Rule};

use crate::ground::Ground;
use crate::ledger::{Rules, Tally};
use crate::report::Report;
use crate::scenario::{Needs, Scenario};
use crate::setting::{Numbers, Setting, Transport};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "sim",
    about: "simulated worlds full of faults: no promise is broken, and every planted bug is found",
    needs: Needs::Nothing,
    // The machines are the same under all of them, and none takes part.
    transports: &[Transport::Lapin, Transport::Amiquip, Transport::Memory],
    full: Numbers {
        // Worlds.
        calls: 100_000,
        in_flight: 2,
        // Worlds within which each planted bug must be found.
        faults: 10_000,
        duration: Duration::ZERO,
    },
    short: Numbers {
        calls: 1_000,
        in_flight: 2,
        faults: 10_000,
        duration: Duration::ZERO,
    },
    limit: Duration::from_secs(900),
    run,
};

fn run(setting: &Setting, _: &mut Ground) -> Result<Report> {
    let Numbers {
        calls: worlds,
        faults,
        ..
    } = setting.numbers;
    // Seed 1 is that of every scenario when nothing is said, and begins at the beginning.
    let first = setting.seed.saturating_sub(1).wrapping_mul(1_000_000_007) >> 8;
    let begun = Instant::now();
    let told = AtomicU64::new(0);
    let seen = rpc_sim::run_seeds(first..first.saturating_add(worlds), |done| {
        // Now and then is often enough for whoever watches.
        if done >= told.load(Ordering::Relaxed) + EACH {
            told.store(done, Ordering::Relaxed);
            (setting.progress)(done, worlds, "worlds");
        }
        true
    });
    let rate = seen.seeds as f64 / begun.elapsed().as_secs_f64().max(0.001);
    let planted = rpc_sim::hunt_planted(0..faults.into(), |planted| {
        (setting.progress)(worlds, worlds, &planted.name);
    });

    let count = |rules: &[Rule]| {
        let breaches = seen.broken.iter().flat_map(|outcome| &outcome.breaches);
        breaches.filter(|one| rules.contains(&one.rule)).count() as u64
    };
    let tally = Tally {
        calls: seen.counts.ok + seen.counts.failed,
        ok: seen.counts.ok,
        typed_errors: seen.counts.failed,
        hung: count(&[Rule::EndsInTime]),
        wrong: count(&[Rule::RightAnswer]),
        executions: seen.counts.executions,
        redeliveries: seen.counts.redeliveries,
        not_executed_but_ran: count(&[Rule::HonestNotExecuted]),
        expired_but_ran: count(&[Rule::NoExpiredStart]),
        unaccounted_duplicates: count(&[Rule::Executions, Rule::AtMostOnce, Rule::DedupOnce]),
        ..Tally::default()
    };
    let mut report = Report::new(SCENARIO.name, setting, tally, &Rules::default());
    report.figure("worlds", seen.seeds);
    report.figure("worlds_per_second", rate.round() as u64);
    report.figure("first_seed", first);
    report.figure("violations", seen.broken.len() as u64);
    let found = planted.iter().filter(|one| one.found.is_some()).count();
    report.figure("planted_bugs", planted.len() as u64);
    report.figure("planted_bugs_found", found as u64);
    report.figure(
        "last_found_at_seed",
        planted.iter().filter_map(seed_of).max(),
    );
    for outcome in seen.broken {
        // As small as it can be made, for whoever has to find out why.
        let small = rpc_sim::shrink(outcome);
        report.require(false, || small.to_string());
    }
    for bug in &planted {
        report.require(bug.found.is_some(), || {
            format!("{} was planted, and not found in {faults} worlds", bug.name)
        });
    }
    Ok(report)
}

fn seed_of(planted: &Planted) -> Option<u64> {
    planted
        .found
        .as_ref()
        .map(|Outcome { options, .. }| options.seed)
}

/// Worlds between two words to whoever watches.
const EACH: u64 = 500;
