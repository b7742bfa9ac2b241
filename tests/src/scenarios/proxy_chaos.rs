//! The network of callers and workers breaks in every way a network can, by a plan from a seed.

use std::time::Duration;

use anyhow::Result;

use crate::chaos::Chaos;
use crate::ground::{self, Ground};
use crate::ledger::Rules;
use crate::load::{self, Load};
use crate::report::Report;
use crate::scenario::{Needs, Scenario};
use crate::session::{CallerOptions, QueueChoice, Session};
use crate::setting::{Numbers, Setting, Transport};
use crate::worker::Worker;

use super::stage::Stage;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "proxy-chaos",
    about: "random faults of the network, of callers and of workers: the ledger balances, and 90 % of \
            the calls are answered",
    needs: Needs::Broker,
    transports: &[Transport::Lapin, Transport::Amiquip],
    full: Numbers {
        calls: 20_000,
        in_flight: 32,
        faults: 1_000,
        duration: Duration::ZERO,
    },
    short: Numbers {
        calls: 600,
        in_flight: 16,
        faults: 20,
        duration: Duration::ZERO,
    },
    limit: Duration::from_secs(1_800),
    run,
};

fn run(setting: &Setting, ground: &mut Ground) -> Result<Report> {
    let stage = Stage::set(setting, ground, QueueChoice::Durable)?;
    let url = ground.url()?;
    let (callers, near) = ground::proxied(&url)?;
    let (servers, far) = ground::proxied(&url)?;
    let mut contract = stage.contract();
    contract.place = far;
    let mut workers = vec![Worker::hire(&contract)?];
    // One whose connection nobody breaks, as in a system of which a part is broken.
    workers.push(Worker::hire(&stage.contract())?);
    let options = CallerOptions::patient(stage.queue.clone(), TIMEOUT);
    let session = Session::open(setting, &near, options)?;
    let load = Load::of(setting, TIMEOUT);
    let faults = u64::from(setting.numbers.faults);
    let counts = load::run(&session, &load, &stage.book, setting, || {
        let mut chaos = Chaos::new(setting.seed);
        let before = |fault: u64| load.calls * fault / (faults + 1);
        for fault in 1..=faults {
            let due = before(fault);
            // No fault is for an idle network.
            load.let_begin(before(fault + 1));
            if !stage.book.wait_for(due, PATIENCE, || false) {
                break;
            }
            chaos.strike(&[&callers, &servers]);
        }
        chaos.into_counts()
    });
    for proxy in [&callers, &servers] {
        proxy.heal();
    }
    // Each fault ends the calls that are open, and most are answered all the same.
    let rules = Rules::default().with_ok_share(0.9);
    let mut report = stage.finish(SCENARIO.name, ground, session, workers, &rules)?;
    let done: u64 = counts.values().sum();
    report.figure("faults", serde_json::to_value(&counts)?);
    report.figure(
        "connections",
        (callers.connections() + servers.connections()) as u64,
    );
    report.require(done == faults, || {
        format!("{done} of {faults} faults were done")
    });
    let share = report.tally.ok as f64 / report.tally.calls as f64;
    report.figure("ok_share", (share * 10_000.0).round() / 10_000.0);
    Ok(report)
}

const TIMEOUT: Duration = Duration::from_secs(10);

/// How long the next part of the calls may take.
const PATIENCE: Duration = Duration::from_secs(60);
