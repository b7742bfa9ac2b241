//! The node with the leader of the queue is killed, again and again, in a cluster of three.
//!
//! What a majority has confirmed survives the node, so nothing that was confirmed is lost; and the
//! others take over within seconds.

use std::time::Duration;

use anyhow::{Context, Result};
use rabbitmq_node::{Cluster, Node};

use crate::ground::{Ground, Place};
use crate::ledger::{Duplicates, Rules, now};
use crate::load::{self, Load};
use crate::report::Report;
use crate::scenario::{Needs, Scenario};
use crate::session::QueueChoice;
use crate::setting::{Numbers, Setting, Transport};
use crate::worker::Worker;

use super::broker_kill::require_accounted;
use super::stage::Stage;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "cluster",
    about: "kill -9 of the leader's node in a cluster of 3, a quorum queue under load: nothing \
            confirmed is lost, and no pause is longer than 5 s",
    needs: Needs::Installation,
    transports: &[Transport::Lapin, Transport::Amiquip],
    full: Numbers {
        calls: 20_000,
        in_flight: 32,
        faults: 5,
        duration: Duration::ZERO,
    },
    short: Numbers {
        calls: 600,
        in_flight: 16,
        faults: 1,
        duration: Duration::ZERO,
    },
    limit: Duration::from_secs(900),
    run,
};

fn run(setting: &Setting, ground: &mut Ground) -> Result<Report> {
    (setting.progress)(0, 0, "starting a cluster");
    let mut cluster = Cluster::start(3, Node::builder)?;
    let place = Place::Urls(cluster.urls());
    let stage = Stage::at(setting, place, 0, QueueChoice::Quorum)?;
    let workers = Worker::crew(&stage.contract(), WORKERS)?;
    let session = stage.patient_session(TIMEOUT)?;
    let load = Load::of(setting, TIMEOUT);
    let kills = u64::from(setting.numbers.faults);
    let mut killed = Vec::new();
    load::run(&session, &load, &stage.book, setting, || -> Result<()> {
        for kill in 1..=kills {
            let due = load.calls * kill / (kills + 1);
            if !stage.book.wait_for(due, PATIENCE, || false) {
                break;
            }
            let leader = cluster.leader(stage.queue.as_str())?;
            let leader = leader.context("the queue has no leader")?;
            let at = now();
            cluster.nodes_mut()[leader].kill()?;
            killed.push(at);
            // The others alone, for a while.
            let meanwhile = stage.book.ended() + setting.numbers.in_flight as u64 * 4;
            stage
                .book
                .wait_for(meanwhile.min(load.calls), TIMEOUT, || false);
            cluster.nodes_mut()[leader].restart()?;
        }
        Ok(())
    })?;
    let after = |at: u64| {
        let first = stage.book.first_right_after(at + 1);
        first.map_or(Duration::MAX, |first| Duration::from_micros(first - at))
    };
    let resumed = killed.iter().map(|at| after(*at)).max().unwrap_or_default();
    let pause = stage.book.longest_pause();
    let rules = Rules::default()
        .with_ok_share(0.99)
        .with_duplicates(Duplicates::OfTheBroker);
    let mut report = stage.finish(SCENARIO.name, ground, session, workers, &rules)?;
    report.figure("kills", killed.len() as u64);
    report.millis("first_ok_after_kill_ms", resumed);
    report.millis("longest_pause_ms", pause);
    report.require(pause <= PAUSE, || {
        format!("no call was answered for {pause:?}")
    });
    // Confirmed, and no answer by the deadline: it was lost on the way.
    let lost = report
        .tally
        .errors
        .get(rpc_core::Reason::Unanswered.as_str());
    let lost = lost.copied().unwrap_or(0);
    report.figure("confirmed_and_lost", lost);
    report.require(lost == 0, || {
        format!("{lost} confirmed requests were not answered")
    });
    require_accounted(&mut report);
    let done = killed.len() as u64;
    report.require(done == kills, || {
        format!("{done} of {kills} kills were done")
    });
    Ok(report)
}

const WORKERS: usize = 3;

const TIMEOUT: Duration = Duration::from_secs(15);

const PAUSE: Duration = Duration::from_secs(5);

const PATIENCE: Duration = Duration::from_secs(120);
