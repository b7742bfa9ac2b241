//! Some requests end the process of whoever runs them.
//!
//! Each of them is given to a few workers, one after the other, then taken out: its caller is told, and
//! it lies in the queue for dead letters with its cause. Its neighbours, which were in the same hands
//! when those were cut off, are all answered.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::ask::Act;
use crate::ground::Ground;
use crate::ledger::{Outcome, Rules};
use crate::load::{self, Load};
use crate::report::Report;
use crate::scenario::{Needs, Scenario};
use crate::session::QueueChoice;
use crate::setting::{Numbers, Setting, Transport};
use crate::worker::Worker;

use super::stage::Stage;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "poison",
    about: "requests that kill their workers: all others are answered, these are typed and \
            dead-lettered, and run no more often than the delivery limit + 1",
    needs: Needs::Node,
    transports: &[Transport::Lapin, Transport::Amiquip],
    full: Numbers {
        calls: 10_000,
        in_flight: 64,
        // The poisonous ones.
        faults: 100,
        duration: Duration::ZERO,
    },
    short: Numbers {
        calls: 400,
        in_flight: 32,
        faults: 4,
        duration: Duration::ZERO,
    },
    limit: Duration::from_secs(900),
    run,
};

fn run(setting: &Setting, ground: &mut Ground) -> Result<Report> {
    let stage = Stage::set(setting, ground, QueueChoice::Poisonable)?;
    let contract = stage.contract();
    let mut workers = Worker::crew(&contract, WORKERS)?;
    let session = stage.patient_session(TIMEOUT)?;
    let (calls, poisons) = (setting.numbers.calls, u64::from(setting.numbers.faults));
    let is_poison = move |key: u64| is_nth(key, calls, poisons);
    let load = Load::of(setting, TIMEOUT).with_act(move |key| {
        if is_poison(key) {
            Act::Abort
        } else {
            Act::Answer
        }
    });
    let mut deaths = 0u64;
    load::run(&session, &load, &stage.book, setting, || {
        while !stage.book.wait_for(calls, LOOK, || false) {
            // What keeps the number of workers up in production.
            for worker in workers.iter_mut().filter_map(fallen) {
                deaths += 1;
                // One that takes a poison first of all dies before it is ready: the next one, then.
                if let Ok(next) = Worker::hire(&contract) {
                    *worker = next;
                }
            }
        }
    });
    let records = stage.book.records();
    let mut runs: HashMap<u64, u64> = HashMap::new();
    for execution in stage.executions()? {
        *runs.entry(execution.key).or_default() += 1;
    }
    let dead = dead_letters(ground, &format!("{}.dead", stage.queue), poisons)?;
    let keyed = || (0u64..).zip(&records);
    let typed = keyed().filter(|(key, record)| {
        let poison = |reason: &str| reason == rpc_core::Reason::Poison.as_str();
        is_poison(*key)
            && matches!(&record.outcome, Some(Outcome::Failed { reason, .. }) if poison(reason))
    });
    let (typed, innocent) = (
        typed.count() as u64,
        keyed().filter(|(key, record)| !is_poison(*key) && record.outcome == Some(Outcome::Right)),
    );
    let innocent = innocent.count() as u64;
    let most = runs
        .iter()
        .filter(|(key, _)| is_poison(**key))
        .map(|(_, runs)| *runs)
        .max();
    let most = most.unwrap_or(0);
    let mut report = stage.finish(SCENARIO.name, ground, session, workers, &Rules::default())?;
    report.figure("workers_killed", deaths);
    report.figure("innocent_answered", innocent);
    report.figure("poisons_typed", typed);
    report.figure("dead_lettered", dead);
    report.figure("most_runs_of_a_poison", most);
    report.require(innocent == calls - poisons, || {
        format!("{innocent} of {} others were answered", calls - poisons)
    });
    report.require(typed == poisons, || {
        format!("{typed} of {poisons} poisons were typed so")
    });
    // More of them have been passed on twice, and each copy is counted by itself.
    report.require(dead == poisons, || {
        format!("{poisons} poisons are {dead} dead letters")
    });
    let allowed = u64::from(QueueChoice::DELIVERY_LIMIT) + 1;
    report.require(most <= allowed, || {
        format!("a poison ran {most} times, and {allowed} are allowed")
    });
    Ok(report)
}

fn fallen(worker: &mut Worker) -> Option<&mut Worker> {
    (!worker.is_alive()).then_some(worker)
}

/// Waits for so many dead letters. The broker counts those of a quorum queue every five seconds.
fn dead_letters(ground: &Ground, queue: &str, expected: u64) -> Result<u64> {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let ready = ground.depth(queue)?.unwrap_or_default().ready;
        if ready >= expected || Instant::now() >= deadline {
            return Ok(ready);
        }
        std::thread::sleep(LOOK);
    }
}

/// Spreads `some` over `all`, the first in the middle of its share.
const fn is_nth(key: u64, all: u64, some: u64) -> bool {
    if some == 0 {
        return false;
    }
    let share = all / some;
    share > 0 && key % share == share / 2 && key / share < some
}

const WORKERS: usize = 3;

/// Until a poison is given up, several workers have died of it, one after the other.
const TIMEOUT: Duration = Duration::from_secs(60);

const LOOK: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::is_nth;

    #[test]
    fn as_many_are_poisonous_as_were_asked_for() {
        for (all, some) in [(10_000, 100), (400, 4), (403, 4), (7, 7), (5, 0)] {
            let count = (0..all).filter(|key| is_nth(*key, all, some)).count();
            assert_eq!(count as u64, some, "{some} of {all}");
        }
    }
}
