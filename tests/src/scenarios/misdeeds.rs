//! Handlers and requests that misbehave.

use std::time::{Duration, Instant};

use anyhow::Result;
use rpc_core::blocking::Transport as _;
use rpc_core::{Address, Message, Reason, ShortString};

use crate::ask::{Act, Ask, METHOD};
use crate::ground::Ground;
use crate::ledger::{Duplicates, Rules};
use crate::load::{self, Load};
use crate::report::Report;
use crate::scenario::{Needs, Scenario};
use crate::session::{self, QueueChoice};
use crate::setting::{Numbers, Setting, Transport};
use crate::worker::Worker;

use super::stage::Stage;

const ANY: &[Transport] = &[Transport::Lapin, Transport::Amiquip, Transport::Memory];

pub(super) const PANICS: Scenario = Scenario {
    name: "panic-storm",
    about: "every other handler panics: those calls are typed, the others are answered, the worker lives",
    needs: Needs::Broker,
    transports: ANY,
    full: Numbers {
        calls: 20_000,
        in_flight: 32,
        faults: 0,
        duration: Duration::ZERO,
    },
    short: Numbers {
        calls: 500,
        in_flight: 16,
        faults: 0,
        duration: Duration::ZERO,
    },
    limit: Duration::from_secs(300),
    run: run_panics,
};

fn run_panics(setting: &Setting, ground: &mut Ground) -> Result<Report> {
    let stage = Stage::set(setting, ground, QueueChoice::Durable)?;
    let mut worker = Worker::hire(&stage.contract())?;
    let session = stage.patient_session(PATIENT)?;
    let act = |key: u64| {
        if key.is_multiple_of(2) {
            Act::Panic
        } else {
            Act::Answer
        }
    };
    let load = Load::of(setting, PATIENT).with_act(act);
    load::run(&session, &load, &stage.book, setting, || ());
    let alive = worker.is_alive();
    let rules = Rules::default()
        .with_ok_share(0.5)
        .with_duplicates(Duplicates::None);
    let mut report = stage.finish(PANICS.name, ground, session, vec![worker], &rules)?;
    require_reason(
        &mut report,
        &Reason::HandlerPanicked,
        setting.numbers.calls / 2,
    );
    report.require(alive, || "the worker is dead".into());
    Ok(report)
}

pub(super) const STUCK: Scenario = Scenario {
    name: "stuck-handlers",
    about: "as many handlers as there are slots never come back: their callers are told by the deadline, \
            and all others are answered",
    needs: Needs::Broker,
    transports: ANY,
    full: Numbers {
        calls: 5_000,
        in_flight: 32,
        // Those that do not come back.
        faults: 8,
        duration: Duration::ZERO,
    },
    short: Numbers {
        calls: 500,
        in_flight: 32,
        faults: 8,
        duration: Duration::ZERO,
    },
    limit: Duration::from_secs(120),
    run: run_stuck,
};

fn run_stuck(setting: &Setting, ground: &mut Ground) -> Result<Report> {
    let stage = Stage::set(setting, ground, QueueChoice::Durable)?;
    let stuck = u64::from(setting.numbers.faults);
    let mut contract = stage.contract();
    contract.serving.concurrency = usize::try_from(stuck)?;
    let worker = Worker::hire(&contract)?;
    let session = stage.single_session(&stage.place, HASTY)?;
    let act = move |key: u64| {
        if key < stuck {
            Act::Sleep(FOR_EVER)
        } else {
            Act::Answer
        }
    };
    // Those first, then all others; no more than there is room for.
    let load = Load::of(setting, HASTY).with_act(act);
    load::run(&session, &load, &stage.book, setting, || ());
    // What is stuck cannot leave in good order.
    worker.kill();
    let stage = stage.leaving_threads();
    let calls = setting.numbers.calls;
    // Whoever came while all slots were taken had to wait for the deadline of those.
    let early = setting.numbers.in_flight as u64;
    let share = calls.saturating_sub(stuck + early) as f64 / calls as f64;
    let rules = Rules::default().with_ok_share(share);
    let mut report = stage.finish(STUCK.name, ground, session, Vec::new(), &rules)?;
    report.figure("stuck", stuck);
    let executions = report.tally.executions;
    report.require(executions >= calls - early, || {
        format!("{executions} ran of {calls}")
    });
    Ok(report)
}

pub(super) const SELF_LOOP: Scenario = Scenario {
    name: "self-loop",
    about: "a request that wants its reply in the service's own queue: it runs once at most, and nothing \
            goes round in circles",
    needs: Needs::Broker,
    transports: ANY,
    full: Numbers {
        calls: 100,
        in_flight: 8,
        faults: 100,
        duration: Duration::ZERO,
    },
    short: Numbers {
        calls: 50,
        in_flight: 8,
        faults: 20,
        duration: Duration::ZERO,
    },
    limit: Duration::from_secs(60),
    run: run_self_loop,
};

fn run_self_loop(setting: &Setting, ground: &mut Ground) -> Result<Report> {
    let stage = Stage::set(setting, ground, QueueChoice::Durable)?;
    let worker = Worker::hire(&stage.contract())?;
    let session = stage.patient_session(PATIENT)?;
    let loops = u64::from(setting.numbers.faults);
    let attacker = session::raw(setting.transport, &stage.place)?;
    let to = Address::queue(stage.queue.clone());
    for number in 0..loops {
        let message = Message {
            body: serde_json::to_vec(&Ask::new(OUTSIDE + number))?.into(),
            content_type: ShortString::new("application/json").ok(),
            correlation_id: ShortString::new(format!("loop-{number}")).ok(),
            kind: ShortString::new(METHOD).ok(),
            reply_to: Some(stage.queue.clone()),
            ..Message::default()
        };
        let deadline = Instant::now() + PATIENT;
        attacker.publish(&to, message, deadline)?.wait(deadline)?;
    }
    attacker.close()?;
    drop(attacker);
    let load = Load::of(setting, PATIENT);
    load::run(&session, &load, &stage.book, setting, || ());
    let left = ground.drains_within(stage.queue.as_str(), Duration::from_secs(10))?;
    let runs = stage.executions()?;
    let looped = runs.iter().filter(|run| run.key >= OUTSIDE).count() as u64;
    let stage = stage.disregarding(OUTSIDE);
    let rules = Rules::default()
        .all_right()
        .with_duplicates(Duplicates::None);
    let mut report = stage.finish(SELF_LOOP.name, ground, session, vec![worker], &rules)?;
    report.figure("loops", loops);
    report.figure("loop_executions", looped);
    report.require(looped <= loops, || {
        format!("{loops} requests ran {looped} times")
    });
    report.require(left.is_none(), || format!("something goes round: {left:?}"));
    Ok(report)
}

fn require_reason(report: &mut Report, reason: &Reason, expected: u64) {
    let count = report
        .tally
        .errors
        .get(reason.as_str())
        .copied()
        .unwrap_or(0);
    report.require(count == expected, || {
        format!("{count} calls ended with {reason}, and {expected} should have")
    });
}

const PATIENT: Duration = Duration::from_secs(30);

const HASTY: Duration = Duration::from_secs(3);

/// Milliseconds.
const FOR_EVER: u64 = 600_000;

/// Keys of requests that are no calls of the book.
const OUTSIDE: u64 = 1 << 40;
