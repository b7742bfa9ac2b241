//! Something is frozen for a while and then goes on: a worker, or the broker.
//!
//! A frozen peer looks like a slow one. A worker that does not answer heartbeats loses its connection,
//! and what it held runs elsewhere; thawed, it must not settle what is no longer its own. A frozen
//! broker answers nobody, and the calls end by their own clock.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::ground::{self, Ground, Place};
use crate::ledger::{Duplicates, Rules, now};
use crate::load::{self, Load};
use crate::report::Report;
use crate::scenario::{Needs, Scenario};
use crate::session::QueueChoice;
use crate::setting::{Numbers, Setting, Transport};
use crate::worker::Worker;

use super::stage::Stage;

pub(super) const ZOMBIE: Scenario = Scenario {
    name: "zombie-worker",
    about: "SIGSTOP of one of 3 workers, longer than two heartbeats, then SIGCONT: every call is \
            answered, and what ran twice was delivered twice",
    needs: Needs::Broker,
    transports: &[Transport::Lapin, Transport::Amiquip],
    full: Numbers {
        calls: 10_000,
        in_flight: 32,
        faults: 1,
        duration: Duration::from_secs(12),
    },
    short: Numbers {
        calls: 1_000,
        in_flight: 16,
        faults: 1,
        duration: Duration::from_secs(8),
    },
    limit: Duration::from_secs(200),
    run: run_zombie,
};

fn run_zombie(setting: &Setting, ground: &mut Ground) -> Result<Report> {
    let stage = Stage::set(setting, ground, QueueChoice::Durable)?;
    let mut contract = stage.contract().with_delay(Duration::from_millis(2));
    contract.place = Place::Urls(vec![ground::with_query(&ground.url()?, "heartbeat", "2")?]);
    let mut workers = Worker::crew(&contract, 3)?;
    let session = stage.patient_session(PATIENT)?;
    let frozen = setting.numbers.duration;
    let lasts = frozen + Duration::from_secs(6);
    let load =
        Load::of(setting, PATIENT).with_rate(setting.numbers.calls as f64 / lasts.as_secs_f64());
    load::run(&session, &load, &stage.book, setting, || {
        thread::sleep(Duration::from_secs(1));
        let zombie = workers.first_mut().context("a worker")?;
        zombie.pause()?;
        thread::sleep(frozen);
        zombie.resume()
    })?;
    let rules = Rules::default().all_right();
    let mut report = stage.finish(ZOMBIE.name, ground, session, workers, &rules)?;
    report.millis("frozen_ms", frozen);
    Ok(report)
}

pub(super) const BROKER: Scenario = Scenario {
    name: "stopped-broker",
    about: "SIGSTOP of the broker, then SIGCONT: no call hangs, and afterwards calls are answered again",
    needs: Needs::Node,
    transports: &[Transport::Lapin, Transport::Amiquip],
    full: Numbers {
        calls: 5_000,
        in_flight: 64,
        faults: 1,
        duration: Duration::from_secs(20),
    },
    short: Numbers {
        calls: 500,
        in_flight: 64,
        faults: 1,
        duration: Duration::from_secs(4),
    },
    limit: Duration::from_secs(200),
    run: run_broker,
};

fn run_broker(setting: &Setting, ground: &mut Ground) -> Result<Report> {
    let stage = Stage::set(setting, ground, QueueChoice::Durable)?;
    let workers = Worker::crew(&stage.contract(), 2)?;
    let session = stage.patient_session(HASTY)?;
    let frozen = setting.numbers.duration;
    let lasts = frozen + Duration::from_secs(12);
    let mut load =
        Load::of(setting, HASTY).with_rate(setting.numbers.calls as f64 / lasts.as_secs_f64());
    load.in_flight = setting.numbers.calls.try_into()?;
    let thawed = load::run(&session, &load, &stage.book, setting, || {
        thread::sleep(Duration::from_secs(2));
        let node = ground.node()?;
        node.pause()?;
        thread::sleep(frozen);
        node.resume()?;
        Ok::<_, anyhow::Error>(now())
    })?;
    let back = stage.book.first_right_after(thawed);
    // The broker may have counted us as gone, and given what we held to somebody else.
    let rules = Rules::default().with_duplicates(Duplicates::Accounted);
    let mut report = stage.finish(BROKER.name, ground, session, workers, &rules)?;
    report.millis("frozen_ms", frozen);
    let back = back.map(|at| Duration::from_micros(at - thawed));
    report.millis("first_ok_after_thaw_ms", back.unwrap_or(Duration::MAX));
    report.require(back.is_some_and(|back| back <= BACK), || {
        format!("the first call was answered {back:?} after the thaw")
    });
    Ok(report)
}

const PATIENT: Duration = Duration::from_secs(30);

const HASTY: Duration = Duration::from_secs(2);

const BACK: Duration = Duration::from_secs(10);
