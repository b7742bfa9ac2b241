//! The node with the leader of the queue is killed, again and again, in a cluster of three.
//!
//! What a majority has confirmed survives the node, so nothing that was confirmed is lost; and the
//! others take over within seconds.
//!
//! A call that is not answered was not necessarily confirmed, and one that is confirmed and lost may be
//! repeated. So messages that nobody repeats go to the same queue beside the calls: whatever of them was
//! confirmed must have been executed.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rabbitmq_node::{Cluster, Node};
use rpc_core::blocking::Transport as _;
use rpc_core::{Address, ErrorKind};

use crate::ask::Ask;
use crate::ground::Ground;
use crate::ledger::{Duplicates, Micros, Rules, now};
use crate::load::{self, Load};
use crate::report::Report;
use crate::scenario::{Needs, Scenario};
use crate::session::{self, QueueChoice};
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
    *ground = Ground::Cluster(Cluster::start(3, Node::builder)?);
    let stage = Stage::set(setting, ground, QueueChoice::Quorum)?;
    let workers = Worker::crew(&stage.contract(), WORKERS)?;
    let session = stage.patient_session(TIMEOUT)?;
    // What an operator does to a cluster takes its time, and each kill is to be one under load.
    // What is refused is refused at once: without a pace, callers who come again at once would take from
    // the nodes the time in which they choose a leader.
    let load = Load::of(setting, TIMEOUT).without_end().with_rate(RATE);
    let kills = u64::from(setting.numbers.faults);
    let mut killed = Vec::new();
    let over = AtomicBool::new(false);
    let casts = load::run(&session, &load, &stage.book, setting, || {
        thread::scope(|scope| {
            let casting = scope.spawn(|| cast(&stage, &over));
            let struck = strike(&stage, ground, kills, &mut killed);
            over.store(true, Ordering::SeqCst);
            let casts = casting.join();
            struck?;
            casts.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    let after = |at: u64| {
        let first = stage.book.first_right_after(at + 1);
        first.map_or(Duration::MAX, |first| Duration::from_micros(first - at))
    };
    let resumed = killed.iter().map(|at| after(*at)).max().unwrap_or_default();
    let pause = stage.book.longest_pause();
    // What was confirmed is in the queue, or has been worked off.
    ground.drains_within(stage.queue.as_str(), DRAIN_LIMIT)?;
    let executed: HashSet<u64> = stage.executions()?.iter().map(|run| run.key).collect();
    let lost_casts = casts.confirmed.iter().filter(|key| !executed.contains(key));
    let lost_casts = lost_casts.count() as u64;
    let stage = stage.disregarding(CASTS);
    // How many are answered is told and no rule: while there is no leader the broker refuses, and a
    // client has few retries to spare for that.
    let rules = Rules::default().with_duplicates(Duplicates::OfTheBroker);
    let mut report = stage.finish(SCENARIO.name, ground, session, workers, &rules)?;
    report.figure("kills", killed.len() as u64);
    let share = report.tally.ok as f64 / report.tally.calls as f64;
    report.figure("ok_share", (share * 10_000.0).round() / 10_000.0);
    report.millis("first_ok_after_kill_ms", resumed);
    report.millis("longest_pause_ms", pause);
    report.require(resumed <= PAUSE, || {
        format!("the first call was answered {resumed:?} after a kill")
    });
    let (calls, least) = (
        report.tally.calls,
        setting.numbers.calls / (kills + 1) * (kills + 1),
    );
    report.require(calls >= least, || {
        format!("{calls} of {least} calls were made")
    });
    report.require(pause <= PAUSE, || {
        format!("no call was answered for {pause:?}")
    });
    let confirmed = casts.confirmed.len() as u64;
    report.figure("casts", casts.sent);
    report.figure("casts_confirmed", confirmed);
    report.figure("casts_confirmed_and_lost", lost_casts);
    report.require(lost_casts == 0, || {
        format!("{lost_casts} of {confirmed} confirmed messages were not executed")
    });
    // None that is confirmed cannot be lost. Most are, since a node is away for seconds only.
    report.require(confirmed * 2 >= casts.sent && confirmed > 0, || {
        format!("{confirmed} of {} messages were confirmed", casts.sent)
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

/// Kills the leader's node, again and again, and notes when.
fn strike(
    stage: &Stage<'_>,
    ground: &mut Ground,
    kills: u64,
    killed: &mut Vec<Micros>,
) -> Result<()> {
    let Ground::Cluster(cluster) = ground else {
        anyhow::bail!("the scenario breaks a cluster");
    };
    let share = stage.setting.numbers.calls / (kills + 1);
    let some_more = || {
        let due = stage.book.ended() + share;
        stage.book.wait_for(due, PATIENCE, || false)
    };
    for _ in 0..kills {
        if !some_more() {
            break;
        }
        let leader = cluster.leader(stage.queue.as_str())?;
        let leader = leader.context("the queue has no leader")?;
        let at = now();
        cluster.nodes_mut()[leader].kill()?;
        killed.push(at);
        // The others alone, for a while.
        let meanwhile = stage.book.ended() + stage.setting.numbers.in_flight as u64 * 4;
        stage.book.wait_for(meanwhile, TIMEOUT, || false);
        cluster.nodes_mut()[leader].restart()?;
    }
    some_more();
    Ok(())
}

/// Messages that want no answer.
#[derive(Default)]
struct Casts {
    sent: u64,
    /// The keys of those that were confirmed.
    confirmed: Vec<u64>,
}

/// Sends them to one node after the other, each once, until it is over.
fn cast(stage: &Stage<'_>, over: &AtomicBool) -> Result<Casts> {
    let to = Address::queue(stage.queue.clone());
    let mut casts = Casts::default();
    for endpoint in (0..stage.place.endpoints()).cycle() {
        if over.load(Ordering::SeqCst) {
            break;
        }
        let kind = stage.setting.transport;
        let Ok(transport) = session::raw_blocking(kind, &stage.place, endpoint) else {
            // It is the one that was killed.
            thread::sleep(PACE);
            continue;
        };
        let mut open = Vec::new();
        let mut lives = true;
        while lives && !over.load(Ordering::SeqCst) {
            let deadline = Instant::now() + CAST_LIMIT;
            for _ in 0..WINDOW {
                let key = CASTS + casts.sent;
                casts.sent += 1;
                match transport.publish(&to, Ask::new(key).message()?, deadline) {
                    Ok(confirm) => open.push((key, confirm)),
                    Err(_) => lives = false,
                }
            }
            // One that is not confirmed may be there or not, and is not sent again.
            for (key, confirm) in open.drain(..) {
                match confirm.wait(deadline) {
                    Ok(()) => casts.confirmed.push(key),
                    Err(error) => lives &= error.kind() == ErrorKind::Refused,
                }
            }
            thread::sleep(PACE);
        }
        // An error means that it has ended already.
        let _ = transport.close();
    }
    Ok(casts)
}

const WORKERS: usize = 3;

const TIMEOUT: Duration = Duration::from_secs(15);

/// Calls a second.
const RATE: f64 = 400.0;

const PAUSE: Duration = Duration::from_secs(5);

const PATIENCE: Duration = Duration::from_secs(120);

const DRAIN_LIMIT: Duration = Duration::from_secs(40);

/// Keys from here on are those of messages that want no answer.
const CASTS: u64 = 1 << 40;

/// How long one of them may wait for its confirm.
const CAST_LIMIT: Duration = Duration::from_secs(5);

/// As many at once, and that long from one group to the next.
const WINDOW: usize = 4;
const PACE: Duration = Duration::from_millis(20);
