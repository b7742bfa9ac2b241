//! Clients are killed with calls open, again and again.
//!
//! Their requests run, for nobody tells the workers, and the answers have nowhere to go. That must cost
//! nobody else anything: workers keep their connections, the reply queues of the dead go with them, and
//! the calls of all others are answered.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::ground::Ground;
use crate::ledger::{Duplicates, Rules};
use crate::load::{self, Load};
use crate::report::Report;
use crate::scenario::{Needs, Scenario};
use crate::scratch::Scratch;
use crate::session::QueueChoice;
use crate::setting::{Numbers, Setting, Transport};
use crate::victim::{Ends, Victim};
use crate::worker::Worker;

use super::stage::Stage;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "kill-client",
    about: "SIGKILL of clients with calls open: workers lose nothing, the queues of the dead are gone, \
            and all others are answered",
    needs: Needs::Node,
    transports: &[Transport::Lapin, Transport::Amiquip],
    full: Numbers {
        calls: 50_000,
        in_flight: 32,
        faults: 100,
        duration: Duration::ZERO,
    },
    short: Numbers {
        calls: 1_000,
        in_flight: 16,
        faults: 3,
        duration: Duration::ZERO,
    },
    limit: Duration::from_secs(600),
    run,
};

fn run(setting: &Setting, ground: &mut Ground) -> Result<Report> {
    let stage = Stage::set(setting, ground, QueueChoice::Durable)?;
    let contract = stage.contract().with_delay(DELAY);
    let mut workers = Worker::crew(&contract, WORKERS)?;
    let session = stage.patient_session(TIMEOUT)?;
    let ends = Scratch::new()?;
    let before = ground.queues()?.context("the names of all queues")?;
    // Whoever is killed is not alone.
    let load = Load::of(setting, TIMEOUT).without_end();
    let least = setting.numbers.calls;
    let kills = u64::from(setting.numbers.faults);
    let mut killed: Vec<Ends> = Vec::new();
    load::run(&session, &load, &stage.book, setting, || -> Result<()> {
        for kill in 1..=kills {
            let keys_from = THEIRS + kill * KEYS_EACH;
            let victim =
                Victim::start(setting, &stage.place, &stage.queue, keys_from, ends.path())?;
            let due = least * kill / (kills + 1);
            let in_time = stage.book.wait_for(due, PATIENCE, || false);
            killed.push(victim.kill()?);
            if !in_time {
                break;
            }
        }
        stage.book.wait_for(least, PATIENCE, || false);
        Ok(())
    })?;
    let deadline = Instant::now() + GONE;
    let left = loop {
        let now = ground.queues()?.context("the names of all queues")?;
        let left: Vec<_> = now.difference(&before).cloned().collect();
        if left.is_empty() || Instant::now() >= deadline {
            break left;
        }
        std::thread::sleep(LOOK);
    };
    let dead = workers
        .iter_mut()
        .filter_map(|worker| (!worker.is_alive()).then_some(()));
    let dead = dead.count();
    // Those of the dead have all run by now: the queue is empty, and nothing is in a worker's hands.
    ground.drains_within(stage.queue.as_str(), GONE)?;
    let mut runs: HashMap<u64, u64> = HashMap::new();
    for execution in stage.executions()?.iter().filter(|run| run.key >= THEIRS) {
        *runs.entry(execution.key).or_default() += 1;
    }
    let twice = runs.values().filter(|runs| **runs > 1).count();
    let stage = stage.disregarding(THEIRS);
    let rules = Rules::default()
        .all_right()
        .with_duplicates(Duplicates::None);
    let mut report = stage.finish(SCENARIO.name, ground, session, workers, &rules)?;
    let sum = |part: fn(&Ends) -> u64| killed.iter().map(part).sum::<u64>();
    let (right, wrong, failed) = (
        sum(|ends| ends.right),
        sum(|ends| ends.wrong),
        sum(|ends| ends.failed),
    );
    report.figure("kills", killed.len() as u64);
    let calls = report.tally.calls;
    report.require(calls >= least, || {
        format!("{calls} of {least} calls were made")
    });
    report.figure("answered_before_the_kill", right);
    report.figure("executed_for_the_dead", runs.len() as u64);
    report.figure("queues_left", left.len() as u64);
    report.require(killed.len() as u64 == kills, || {
        format!("{} of {kills} kills were done", killed.len())
    });
    report.require(wrong + failed == 0, || {
        format!("{wrong} calls of killed clients got a wrong answer before, and {failed} none")
    });
    // Or else they were killed with nothing open.
    let open = (runs.len() as u64).saturating_sub(right);
    report.figure("executed_for_nobody", open);
    report.require(open > 0, || {
        "no client had a call open when it was killed".into()
    });
    report.require(twice == 0, || {
        format!("{twice} requests of killed clients ran more than once")
    });
    report.require(left.is_empty(), || {
        format!("queues of the dead are left: {left:?}")
    });
    report.require(dead == 0, || format!("{dead} workers are dead"));
    // A worker that loses its connection has its requests delivered again.
    let redeliveries = report.tally.redeliveries;
    report.require(redeliveries == 0, || {
        format!("{redeliveries} requests were delivered again: a worker was cut off")
    });
    Ok(report)
}

const WORKERS: usize = 2;

/// Long enough that a client has calls open when it is killed.
const DELAY: Duration = Duration::from_millis(2);

const TIMEOUT: Duration = Duration::from_secs(30);

const PATIENCE: Duration = Duration::from_secs(120);

/// How long the broker may take to see that a client is dead.
const GONE: Duration = Duration::from_secs(20);

const LOOK: Duration = Duration::from_millis(300);

/// Keys from here on are those of clients that are killed.
const THEIRS: u64 = 1 << 40;
const KEYS_EACH: u64 = 1 << 24;
