//! One of three workers is killed, again and again, under load.
//!
//! What a killed worker held is delivered again, to one of the others or to its successor. So every
//! call is answered, and nothing runs more often than it was delivered.

use std::time::Duration;

use anyhow::Result;

use crate::dice::Dice;
use crate::ground::Ground;
use crate::ledger::Rules;
use crate::load::{self, Load};
use crate::report::Report;
use crate::scenario::{Needs, Scenario};
use crate::session::QueueChoice;
use crate::setting::{Numbers, Setting, Transport};
use crate::worker::Worker;

use super::stage::Stage;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "worker-kill",
    about: "SIGKILL of one of 3 workers, again and again: every call is answered, and what ran twice \
            was delivered twice",
    needs: Needs::Broker,
    transports: &[Transport::Lapin, Transport::Amiquip, Transport::Memory],
    full: Numbers {
        calls: 50_000,
        in_flight: 64,
        faults: 200,
        duration: Duration::ZERO,
    },
    short: Numbers {
        calls: 2_000,
        in_flight: 32,
        faults: 6,
        duration: Duration::ZERO,
    },
    limit: Duration::from_secs(1_200),
    run,
};

fn run(setting: &Setting, ground: &mut Ground) -> Result<Report> {
    let stage = Stage::set(setting, ground, QueueChoice::Durable)?;
    let contract = stage.contract().with_delay(DELAY);
    let mut workers = Worker::crew(&contract, WORKERS)?;
    let session = stage.patient_session(TIMEOUT)?;
    let load = Load::of(setting, TIMEOUT);
    let kills = u64::from(setting.numbers.faults);
    let mut killed = 0;
    load::run(&session, &load, &stage.book, setting, || -> Result<()> {
        let mut dice = Dice::new(setting.seed);
        let before = |kill: u64| load.calls * kill / (kills + 1);
        for kill in 1..=kills {
            let due = before(kill);
            // The last one dies under load, too.
            load.let_begin(before(kill + 1));
            if !stage.book.wait_for(due, PATIENCE, || false) {
                break;
            }
            let victim = usize::try_from(dice.below(WORKERS as u64)).unwrap_or(0);
            workers.swap_remove(victim).kill();
            killed += 1;
            workers.push(Worker::hire(&contract)?);
        }
        Ok(())
    })?;
    let rules = Rules::default().all_right();
    let mut report = stage.finish(SCENARIO.name, ground, session, workers, &rules)?;
    report.figure("kills", killed);
    let extra = report.tally.executions - report.tally.distinct;
    let redeliveries = report.tally.redeliveries;
    report.figure("extra_executions", extra);
    report.require(extra <= redeliveries, || {
        format!("{extra} extra executions, and {redeliveries} redeliveries")
    });
    report.require(killed == kills, || {
        format!("{killed} of {kills} kills were done")
    });
    Ok(report)
}

const WORKERS: usize = 3;

/// Long enough that each worker has something in its hands when it is killed.
const DELAY: Duration = Duration::from_millis(2);

const TIMEOUT: Duration = Duration::from_secs(30);

/// How long the next part of the calls may take.
const PATIENCE: Duration = Duration::from_secs(120);
