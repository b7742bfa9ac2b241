//! The broker is killed and comes back on its data, again and again, under load.
//!
//! Calls that were sent and lose their connection may have run: they are repeated, since they may be.
//! Calls that come meanwhile wait. So nearly all are answered, the rest with a typed error in time.

use std::time::Duration;

use anyhow::Result;

use crate::ground::{self, Ground};
use crate::ledger::{Duplicates, Micros, Rules, now};
use crate::load::{self, Load};
use crate::report::Report;
use crate::scenario::{Needs, Scenario};
use crate::session::QueueChoice;
use crate::setting::{Numbers, Setting, Transport};
use crate::worker::Worker;

use super::stage::Stage;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "broker-kill",
    about: "kill -9 of the broker and restart, again and again: 99 % of the calls are answered, the \
            first within 3 s of the port being open",
    needs: Needs::Node,
    transports: &[Transport::Lapin, Transport::Amiquip, Transport::Memory],
    full: Numbers {
        calls: 100_000,
        in_flight: 64,
        faults: 10,
        duration: Duration::ZERO,
    },
    short: Numbers {
        calls: 2_000,
        // On a machine that is busy the broker may come back after their deadline: then they are all
        // that may be lost.
        in_flight: 16,
        faults: 1,
        duration: Duration::ZERO,
    },
    limit: Duration::from_secs(900),
    run: |setting, ground| run(SCENARIO.name, setting, ground, Ground::kill_broker),
};

/// The same with a broker that is asked to go, and closes its connections with its reasons.
pub(super) const GRACEFUL: Scenario = Scenario {
    name: "broker-restart-graceful",
    about: "the broker is stopped in good order and comes back: as broker-kill",
    transports: &[Transport::Lapin, Transport::Amiquip],
    full: Numbers {
        calls: 20_000,
        in_flight: 64,
        faults: 2,
        duration: Duration::ZERO,
    },
    limit: Duration::from_secs(400),
    run: |setting, ground| {
        run(GRACEFUL.name, setting, ground, |ground| {
            let node = ground.node()?;
            node.stop()?;
            ground::start_again(node)
        })
    },
    ..SCENARIO
};

fn run(
    name: &'static str,
    setting: &Setting,
    ground: &mut Ground,
    strike: impl Fn(&mut Ground) -> Result<Micros>,
) -> Result<Report> {
    let stage = Stage::set(setting, ground, QueueChoice::Durable)?;
    let workers = Worker::crew(&stage.contract(), WORKERS)?;
    let session = stage.patient_session(TIMEOUT)?;
    let load = Load::of(setting, TIMEOUT);
    let kills = u64::from(setting.numbers.faults);
    let mut outages: Vec<Outage> = Vec::new();
    load::run(&session, &load, &stage.book, setting, || -> Result<()> {
        for kill in 1..=kills {
            let due = load.calls * kill / (kills + 1);
            if !stage.book.wait_for(due, PATIENCE, || false) {
                break;
            }
            let begun = now();
            let opened = strike(ground)?;
            outages.push(Outage { begun, opened });
            // The next kill finds a system that works again, or else it would not be the next.
            let again = stage.book.ended() + setting.numbers.in_flight as u64 + 1;
            stage
                .book
                .wait_for(again.min(load.calls), TIMEOUT, || false);
        }
        Ok(())
    })?;
    let first_ok: Vec<Duration> = outages
        .iter()
        .map(|outage| since(stage.book.first_right_after(outage.opened), outage.opened))
        .collect();
    let rules = Rules::default()
        .with_ok_share(0.99)
        .with_duplicates(Duplicates::OfTheBroker);
    let mut report = stage.finish(name, ground, session, workers, &rules)?;
    report.figure("kills", outages.len() as u64);
    let down = outages
        .iter()
        .map(|outage| outage.opened - outage.begun)
        .max();
    report.millis(
        "longest_outage_ms",
        Duration::from_micros(down.unwrap_or(0)),
    );
    let slowest = first_ok.into_iter().max().unwrap_or_default();
    report.millis("first_ok_after_port_open_ms", slowest);
    report.require(slowest <= FIRST_OK, || {
        format!("the first call was answered {slowest:?} after the port was open")
    });
    require_accounted(&mut report);
    let done = outages.len() as u64;
    report.require(done == kills, || {
        format!("{done} of {kills} kills were done")
    });
    Ok(report)
}

/// What ran more often than once was delivered or sent more often than once.
pub(super) fn require_accounted(report: &mut Report) {
    let tally = &report.tally;
    let extra = tally.executions - tally.distinct;
    let (redeliveries, retries) = (tally.redeliveries, tally.retries);
    report.figure("extra_executions", extra);
    report.require(extra <= redeliveries + retries, || {
        format!("{extra} extra executions, {redeliveries} redeliveries and {retries} retries")
    });
}

/// One time that the broker was away.
struct Outage {
    begun: Micros,
    opened: Micros,
}

/// From then until it happened; without end if it did not.
fn since(happened: Option<Micros>, then: Micros) -> Duration {
    happened.map_or(Duration::MAX, |at| Duration::from_micros(at - then))
}

const WORKERS: usize = 2;

const TIMEOUT: Duration = Duration::from_secs(10);

const FIRST_OK: Duration = Duration::from_secs(3);

/// How long the next part of the calls may take.
const PATIENCE: Duration = Duration::from_secs(120);
