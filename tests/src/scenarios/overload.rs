//! Twice as many calls come as the workers can do.
//!
//! What the workers do is of use to somebody: requests that waited too long are refused with word of
//! when to come again, and those that nobody awaits any more are not begun.

use std::time::Duration;

use anyhow::Result;
use rpc_core::{Code, Reason};

use crate::ground::Ground;
use crate::ledger::{Outcome, Record, Rules, micros};
use crate::load::{self, Load};
use crate::report::Report;
use crate::scenario::{Needs, Scenario};
use crate::session::QueueChoice;
use crate::setting::{Numbers, Setting, Transport};
use crate::worker::Worker;

use super::stage::Stage;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "overload",
    about: "calls at twice the capacity: goodput of 80 % of it, memory bounded, the rest shed or out of \
            time, and nothing else",
    needs: Needs::Broker,
    transports: &[Transport::Lapin, Transport::Amiquip, Transport::Memory],
    full: Numbers {
        // At twice the capacity this takes a minute.
        calls: 48_000,
        in_flight: 1_200,
        faults: 0,
        duration: Duration::ZERO,
    },
    short: Numbers {
        calls: 4_800,
        in_flight: 1_200,
        faults: 0,
        duration: Duration::ZERO,
    },
    limit: Duration::from_secs(300),
    run,
};

fn run(setting: &Setting, ground: &mut Ground) -> Result<Report> {
    let stage = Stage::set(setting, ground, QueueChoice::Durable)?;
    let mut contract = stage.contract().with_delay(DELAY);
    contract.serving.concurrency = SLOTS;
    contract.serving.prefetch = 2 * u16::try_from(SLOTS)?;
    let workers = Worker::crew(&contract, WORKERS)?;
    let session = stage.single_session(&stage.place, TIMEOUT)?;
    let capacity = (WORKERS * SLOTS) as f64 / DELAY.as_secs_f64();
    let load = Load::of(setting, TIMEOUT).with_rate(2.0 * capacity);
    let mut most = 0;
    load::run(&session, &load, &stage.book, setting, || {
        // The load is in full swing; the ledger of a long run would hide what the workers take.
        for part in 1..=10 {
            stage
                .book
                .wait_for(load.calls * part / 10, TIMEOUT * 20, || false);
            let rss = workers.iter().map(|worker| worker.vitals().rss_kib).max();
            most = most.max(rss.unwrap_or(0));
        }
    });
    let records = stage.book.records();
    let begun = records.first().map_or(0, |record| record.begun);
    let ended = records.last().map_or(0, |record| record.begun);
    let seconds = Duration::from_micros(ended.saturating_sub(begun)).as_secs_f64();
    let right = records
        .iter()
        .filter(|record| record.outcome == Some(Outcome::Right));
    let mut waits: Vec<u64> = right
        .filter_map(|record| Some(record.ended? - record.begun))
        .collect();
    waits.sort_unstable();
    let strange = records.iter().filter(|record| !is_expected(record)).count();
    let attempts = session.stats().attempts.started;
    let p99 = waits.get(waits.len() * 99 / 100).copied().unwrap_or(0);
    let rules = Rules::default();
    let mut report = stage.finish(SCENARIO.name, ground, session, workers, &rules)?;
    let goodput = report.tally.ok as f64 / seconds;
    report.figure("capacity_per_s", capacity);
    report.figure("offered_per_s", report.tally.calls as f64 / seconds);
    report.figure("goodput_per_s", goodput.round());
    report.figure(
        "goodput_share",
        (goodput / capacity * 100.0).round() / 100.0,
    );
    report.millis("p99_of_answered_ms", Duration::from_micros(p99));
    report.figure("worker_rss_kib", most);
    report.figure("attempts", attempts);
    let shed = report.tally.errors.get(Reason::Shed.as_str());
    let shed = shed.copied().unwrap_or(0);
    report.require(shed > 0, || "nothing was shed".to_owned());
    report.require(strange == 0, || {
        format!("{strange} calls ended in another way than answered, shed or out of time")
    });
    // A short run shares its cores with other tests.
    let whole = setting.numbers.calls >= SCENARIO.full.calls;
    let share = if whole { 0.8 } else { 0.5 };
    report.require(goodput >= share * capacity, || {
        format!("goodput {goodput:.0}/s at a capacity of {capacity:.0}/s")
    });
    report.require(p99 <= micros(TIMEOUT), || {
        format!("an answer took {p99} µs")
    });
    report.require(most <= MEMORY_KIB, || format!("a worker took {most} KiB"));
    Ok(report)
}

/// Answered, refused by a worker that has too much to do, or out of time.
fn is_expected(record: &Record) -> bool {
    match &record.outcome {
        Some(Outcome::Right) => true,
        Some(Outcome::Failed { code, reason, .. }) => {
            *code == Code::DeadlineExceeded || reason == Reason::Shed.as_str()
        }
        _ => false,
    }
}

const WORKERS: usize = 2;

const SLOTS: usize = 4;

const DELAY: Duration = Duration::from_millis(20);

const TIMEOUT: Duration = Duration::from_secs(1);

/// Far above what a worker takes that holds no more than its prefetch, and far below what one takes
/// that holds all that comes.
const MEMORY_KIB: u64 = 96 << 10;
