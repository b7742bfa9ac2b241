//! Handlers and requests that misbehave, and a queue that goes away under its consumers.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
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
    let load = Load::of(setting, HASTY);
    let faults = u64::from(setting.numbers.faults);
    let deleted = load::run(&session, &load, &stage.book, setting, || {
        let mut deleted = 0;
        for fault in 1..=faults {
            let due = load.calls * fault / (faults + 1);
            if !stage.book.wait_for(due, PATIENT, || false) {
                break;
            }
            delete(ground, stage.queue.as_str())?;
            deleted += 1;
        }
        Ok::<u64, anyhow::Error>(deleted)
    })?;
    // What was in the queue when it was deleted is gone, and its callers wait in vain.
    let lost = deleted * setting.numbers.in_flight as u64;
    let share = 1.0 - lost as f64 / setting.numbers.calls as f64;
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

const CLOSE: Duration = Duration::from_secs(3);
