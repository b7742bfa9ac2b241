//! Queues that misbehave: deleted under their consumers, taken from them, full, blocked.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rpc_core::Reason;

use crate::ask::Act;
use crate::ground::Ground;
use crate::ledger::Rules;
use crate::load::{self, Load};
use crate::report::Report;
use crate::scenario::{Needs, Scenario};
use crate::session::{self, QueueChoice};
use crate::setting::{Numbers, Setting, Transport};
use crate::worker::Worker;

use super::stage::Stage;

const ANY: &[Transport] = &[Transport::Lapin, Transport::Amiquip, Transport::Memory];

pub(super) const CANCELLED: Scenario = Scenario {
    name: "consumer-cancelled",
    about: "the queue is deleted under its consumers, again and again: they declare it anew, and calls \
            that wait are answered",
    needs: Needs::Node,
    transports: ANY,
    full: Numbers {
        calls: 5_000,
        in_flight: 32,
        faults: 10,
        duration: Duration::ZERO,
    },
    short: Numbers {
        calls: 600,
        in_flight: 16,
        faults: 2,
        duration: Duration::ZERO,
    },
    limit: Duration::from_secs(300),
    run: run_cancelled,
};

fn run_cancelled(setting: &Setting, ground: &mut Ground) -> Result<Report> {
    let stage = Stage::set(setting, ground, QueueChoice::Durable)?;
    let workers = Worker::crew(&stage.contract(), 2)?;
    let session = stage.patient_session(HASTY)?;
    // To delete a queue takes the better part of a second, and calls are to come meanwhile.
    let load = Load::of(setting, HASTY).without_end();
    let least = setting.numbers.calls;
    let faults = u64::from(setting.numbers.faults);
    let deleted = load::run(&session, &load, &stage.book, setting, || {
        let mut deleted = 0;
        for _ in 0..faults {
            let due = stage.book.ended() + least / (faults + 1);
            if !stage.book.wait_for(due, PATIENT, || false) {
                break;
            }
            delete(ground, stage.queue.as_str())?;
            deleted += 1;
        }
        let due = stage.book.ended() + least / (faults + 1);
        stage.book.wait_for(due, PATIENT, || false);
        Ok::<u64, anyhow::Error>(deleted)
    })?;
    // What was in the queue when it was deleted is gone, and its callers wait in vain.
    let lost = deleted * setting.numbers.in_flight as u64;
    let share = 1.0 - lost as f64 / stage.book.begun() as f64;
    let rules = Rules::default().with_ok_share(share.max(0.0));
    let mut report = stage.finish(CANCELLED.name, ground, session, workers, &rules)?;
    report.figure("deleted", deleted);
    report.require(deleted == faults, || {
        format!("{deleted} of {faults} deletions were done")
    });
    Ok(report)
}

fn delete(ground: &mut Ground, queue: &str) -> Result<()> {
    match ground {
        Ground::Memory(broker) => {
            broker.delete_queue(queue);
        }
        _ => {
            ground.node()?.ctl(&["delete_queue", queue])?;
        }
    }
    Ok(())
}

pub(super) const TIMEOUT: Scenario = Scenario {
    name: "consumer-timeout",
    about: "the broker takes the channel of a consumer that does not acknowledge in time: the server \
            comes back, and the calls behind are answered",
    needs: Needs::Node,
    transports: &[Transport::Lapin, Transport::Amiquip],
    full: Numbers {
        calls: 1_000,
        in_flight: 16,
        faults: 1,
        duration: Duration::ZERO,
    },
    short: Numbers {
        calls: 200,
        in_flight: 16,
        faults: 1,
        duration: Duration::ZERO,
    },
    limit: Duration::from_secs(120),
    run: run_timeout,
};

fn run_timeout(setting: &Setting, ground: &mut Ground) -> Result<Report> {
    let stage = Stage::set(setting, ground, QueueChoice::Durable)?;
    // For channels that are opened from now on.
    ground.node()?.ctl(&[
        "eval",
        "application:set_env(rabbit,consumer_timeout,5000), \
         application:set_env(rabbit,channel_tick_interval,2000).",
    ])?;
    let worker = Worker::hire(&stage.contract());
    let reset = "application:set_env(rabbit,consumer_timeout,1800000), \
         application:set_env(rabbit,channel_tick_interval,60000).";
    let session = stage.patient_session(PATIENT)?;
    // It outlives the patience of the broker, and that of its caller.
    let act = |key: u64| {
        if key == 0 {
            Act::Sleep(9_000)
        } else {
            Act::Answer
        }
    };
    let mut load = Load::of(setting, PATIENT).with_act(act);
    load = load.with_rate(setting.numbers.calls as f64 / 14.0);
    load::run(&session, &load, &stage.book, setting, || ());
    ground.node()?.ctl(&["eval", reset])?;
    // The broker says that it closed the channel, which is the point.
    let rules = Rules::default().with_ok_share(0.95);
    let mut report = stage.expecting_complaints().finish(
        TIMEOUT.name,
        ground,
        session,
        vec![worker?],
        &rules,
    )?;
    let complained = report
        .figures
        .get("complaints")
        .and_then(serde_json::Value::as_u64);
    report.require(complained.is_some_and(|count| count > 0), || {
        "the broker did not close the channel".into()
    });
    Ok(report)
}

pub(super) const FULL: Scenario = Scenario {
    name: "queue-full-reject",
    about: "a queue that is full and nobody serves: what it refuses is typed at once, what it took ends \
            by its deadline",
    needs: Needs::Broker,
    transports: &[Transport::Lapin, Transport::Amiquip],
    full: Numbers {
        calls: 10_000,
        in_flight: 256,
        faults: 0,
        duration: Duration::ZERO,
    },
    short: Numbers {
        calls: 1_000,
        in_flight: 256,
        faults: 0,
        duration: Duration::ZERO,
    },
    limit: Duration::from_secs(120),
    run: run_full,
};

fn run_full(setting: &Setting, ground: &mut Ground) -> Result<Report> {
    let stage = Stage::set(setting, ground, QueueChoice::Short)?;
    let owner = session::raw(setting.transport, &stage.place)?;
    owner.declare(&QueueChoice::Short.spec(stage.queue.clone()))?;
    let session = stage.single_session(&stage.place, HASTY)?;
    let load = Load::of(setting, HASTY);
    load::run(&session, &load, &stage.book, setting, || ());
    owner.close()?;
    drop(owner);
    let mut report = stage.finish(FULL.name, ground, session, Vec::new(), &Rules::default())?;
    let refused = report.tally.errors.get(Reason::BrokerRefused.as_str());
    let refused = refused.copied().unwrap_or(0);
    report.figure("refused", refused);
    let answered = report.tally.ok;
    report.require(refused > 0 && answered == 0, || {
        format!("{refused} were refused, and {answered} answered")
    });
    Ok(report)
}

pub(super) const CLOSING: Scenario = Scenario {
    name: "close-under-alarm",
    about: "a client is closed while the broker blocks publishers and calls are open: it returns within \
            its time",
    needs: Needs::Node,
    transports: ANY,
    full: Numbers {
        calls: 256,
        in_flight: 64,
        faults: 1,
        duration: Duration::ZERO,
    },
    short: Numbers {
        calls: 64,
        in_flight: 16,
        faults: 1,
        duration: Duration::ZERO,
    },
    limit: Duration::from_secs(120),
    run: run_closing,
};

fn run_closing(setting: &Setting, ground: &mut Ground) -> Result<Report> {
    let stage = Stage::set(setting, ground, QueueChoice::Durable)?;
    let workers = Worker::crew(&stage.contract(), 1)?;
    let session = stage.patient_session(PATIENT)?;
    let load = Load::of(setting, PATIENT).with_act(|_| Act::Sleep(20));
    let closed = load::run(&session, &load, &stage.book, setting, || {
        stage.book.wait_for(load.calls / 4, PATIENT, || false);
        ground.set_alarm(true)?;
        // Until those that were answered already are, and the others wait.
        thread::sleep(Duration::from_secs(2));
        let begun = Instant::now();
        session.close();
        let took = begun.elapsed();
        ground.set_alarm(false)?;
        Ok::<_, anyhow::Error>(took)
    });
    let closed = closed.context("closing under an alarm")?;
    let mut report = stage.finish(CLOSING.name, ground, session, workers, &Rules::default())?;
    report.millis("close_ms", closed);
    report.require(closed <= CLOSE, || format!("closing took {closed:?}"));
    Ok(report)
}

const PATIENT: Duration = Duration::from_secs(30);

const HASTY: Duration = Duration::from_secs(3);

const CLOSE: Duration = Duration::from_secs(3);
