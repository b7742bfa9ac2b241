//! A rolling restart: one worker after the other is asked to leave, and another comes.
//!
//! A worker that leaves finishes what it began and hands back the rest. So every call is answered, and
//! nothing runs twice.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::ground::Ground;
use crate::ledger::{Duplicates, Rules};
use crate::load::{self, Load};
use crate::report::Report;
use crate::scenario::{Needs, Scenario};
use crate::session::QueueChoice;
use crate::setting::{Numbers, Setting, Transport};
use crate::worker::{Leaving, Worker};

use super::stage::Stage;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "drain",
    about: "rolling SIGTERM over 3 workers: every call is answered, and nothing runs twice",
    needs: Needs::Broker,
    transports: &[Transport::Lapin, Transport::Amiquip, Transport::Memory],
    full: Numbers {
        calls: 50_000,
        in_flight: 64,
        faults: 30,
        // Between one and the next.
        duration: Duration::from_secs(2),
    },
    short: Numbers {
        calls: 2_000,
        in_flight: 32,
        faults: 4,
        duration: Duration::from_millis(300),
    },
    limit: Duration::from_secs(600),
    run,
};

fn run(setting: &Setting, ground: &mut Ground) -> Result<Report> {
    let stage = Stage::set(setting, ground, QueueChoice::Durable)?;
    let contract = stage.contract().with_delay(DELAY);
    let mut workers = Worker::crew(&contract, WORKERS)?;
    let session = stage.patient_session(TIMEOUT)?;
    let drains = setting.numbers.faults;
    // The load lasts as long as the restarts.
    let lasts = setting.numbers.duration * (drains + 1);
    let rate = setting.numbers.calls as f64 / lasts.as_secs_f64();
    let load = Load::of(setting, TIMEOUT).with_rate(rate);
    let leavings = load::run(&session, &load, &stage.book, setting, || {
        let begun = Instant::now();
        let mut leavings: Vec<Result<Leaving>> = Vec::new();
        for drain in 1..=drains {
            let due = begun + setting.numbers.duration * drain;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let mut worker = workers.remove(0);
            let asked = worker.ask_to_leave();
            leavings.push(asked.and_then(|()| worker.leave_within(LIMIT)));
            workers.push(Worker::hire(&contract)?);
        }
        Ok::<_, anyhow::Error>(leavings)
    })?;
    let rules = Rules::default()
        .all_right()
        .with_duplicates(Duplicates::None);
    let mut report = stage.finish(SCENARIO.name, ground, session, workers, &rules)?;
    report.figure("drains", leavings.len() as u64);
    let left = || leavings.iter().flatten();
    let longest = left().map(|leaving| leaving.took).max();
    report.millis("longest_drain_ms", longest.unwrap_or_default());
    // One that does not leave breaks the rule that this is about.
    for failure in leavings.iter().filter_map(|leaving| leaving.as_ref().err()) {
        report.require(false, || format!("{failure:#}"));
    }
    let done = leavings.len() as u64;
    report.require(done == u64::from(drains), || {
        format!("{done} of {drains} drains were done")
    });
    let unfinished: u64 = left().map(|leaving| leaving.unfinished).sum();
    report.require(unfinished == 0, || {
        format!("{unfinished} requests were not finished by workers that left")
    });
    Ok(report)
}

const WORKERS: usize = 3;

/// Long enough that each worker has something to finish when it is asked to leave.
const DELAY: Duration = Duration::from_millis(5);

const TIMEOUT: Duration = Duration::from_secs(30);

const LIMIT: Duration = Duration::from_secs(20);
