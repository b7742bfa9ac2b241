//! The service is slow for a while, then down, then back, and its callers may try again.
//!
//! Its queue is full most of that time, so the broker refuses requests as fast as they come. If each
//! were tried again as often as it may be, the retries would be the load. The budget of the client
//! keeps them to a tenth, and lets them go again once the service is well.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use rpc_core::Reason;

use crate::ground::Ground;
use crate::ledger::{Outcome, Record, Rules, micros, now};
use crate::load::{self, Load};
use crate::report::Report;
use crate::scenario::{Needs, Scenario};
use crate::session::{CallerOptions, QueueChoice, Session};
use crate::setting::{Numbers, Setting, Transport};
use crate::worker::Worker;

use super::stage::Stage;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "retry-storm",
    about: "the service is slow, then down, then back, and its queue full: there are no more than 1.1 \
            attempts a call, and afterwards all calls are answered",
    needs: Needs::Broker,
    transports: &[Transport::Lapin, Transport::Amiquip, Transport::Memory],
    full: Numbers {
        calls: 20_000,
        in_flight: 600,
        faults: 1,
        // Each of the four parts.
        duration: Duration::from_secs(10),
    },
    short: Numbers {
        calls: 3_000,
        in_flight: 600,
        faults: 1,
        duration: Duration::from_millis(1_500),
    },
    limit: Duration::from_secs(200),
    run,
};

fn run(setting: &Setting, ground: &mut Ground) -> Result<Report> {
    let stage = Stage::set(setting, ground, QueueChoice::Short)?;
    let quick = stage.contract();
    let part = setting.numbers.duration;
    let rate = setting.numbers.calls as f64 / (part * 4).as_secs_f64();
    // Half of what comes.
    let mut slow = stage.contract().with_delay(DELAY);
    slow.serving.concurrency = ((rate / 2.0 * DELAY.as_secs_f64()) as usize).max(1);
    slow.serving.prefetch = 2;
    let worker = Worker::hire(&quick)?;
    let mut options = CallerOptions::patient(stage.queue.clone(), TIMEOUT);
    // Who waits for better times does not try again and again either, and is not what this is about.
    options.wait_for_ready = false;
    let session = Session::open(setting, &stage.place, options)?;
    let load = Load::of(setting, TIMEOUT).with_rate(rate);
    let (worker, back) = load::run(&session, &load, &stage.book, setting, || {
        let begun = Instant::now();
        let until = |parts: u32| {
            let due = begun + part * parts;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        };
        until(1);
        worker.kill();
        let worker = Worker::hire(&slow)?;
        until(2);
        worker.kill();
        until(3);
        let worker = Worker::hire(&quick)?;
        Ok::<_, anyhow::Error>((worker, now()))
    })?;
    let attempts = session.stats().attempts.started;
    let records = stage.book.records();
    let well_again = |record: &&Record| record.begun > back + micros(RECOVERY);
    let after = records.iter().filter(well_again);
    let right = |record: &&Record| record.outcome == Some(Outcome::Right);
    let (after, answered) = (after.clone().count(), after.filter(right).count());
    let rules = Rules::default();
    let mut report = stage.finish(SCENARIO.name, ground, session, vec![worker], &rules)?;
    let calls = report.tally.calls;
    let refused = report.tally.errors.get(Reason::BrokerRefused.as_str());
    let refused = refused.copied().unwrap_or(0);
    report.figure("attempts", attempts);
    let share = attempts as f64 / calls as f64;
    report.figure("attempts_per_call", (share * 1_000.0).round() / 1_000.0);
    report.figure("refused", refused);
    report.figure("calls_after", after as u64);
    report.figure("answered_after", answered as u64);
    // A tenth of the calls, and what the budget had saved up.
    let most = calls + calls / 10 + TOKENS;
    report.require((calls..=most).contains(&attempts), || {
        format!("{attempts} attempts at {calls} calls, and {most} are allowed")
    });
    // Without a storm there is nothing to be seen, nor without anything tried again.
    report.require(refused >= calls / 10 && attempts > calls, || {
        format!("{refused} calls were refused, with {attempts} attempts at {calls} calls")
    });
    report.require(after > 0 && answered == after, || {
        format!("{answered} of {after} calls were answered after the service was back")
    });
    Ok(report)
}

/// What a request takes while the service is slow.
const DELAY: Duration = Duration::from_millis(20);

const TIMEOUT: Duration = Duration::from_secs(1);

/// How long the queue may take to be worked off when the service is back.
const RECOVERY: Duration = Duration::from_millis(500);

/// Those that a client has when all is well.
const TOKENS: u64 = 10;
