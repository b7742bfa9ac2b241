//! An attacker who knows the reply address of a client sends it replies that it never asked for.
//!
//! What joins a reply to its call is a number that nobody guesses. So not one of a million is taken,
//! they cost no memory, and the real calls go on meanwhile.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rpc_core::blocking::Transport;
use rpc_core::{Address, Confirm, ConsumeOptions, Message, ShortString};

use crate::ask::{Answer, Ask};
use crate::dice::Dice;
use crate::ground::Ground;
use crate::ledger::Rules;
use crate::load::{self, Load};
use crate::report::Report;
use crate::scenario::{Needs, Scenario};
use crate::session::{self, QueueChoice, Session};
use crate::setting::{Numbers, Setting, Transport as Kind};
use crate::vitals::Vitals;
use crate::worker::Worker;

use super::stage::Stage;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "forged",
    about: "forged replies into the reply queue: none is accepted, memory stays flat",
    needs: Needs::Broker,
    transports: &[Kind::Lapin, Kind::Amiquip, Kind::Memory],
    full: Numbers {
        calls: 10_000,
        in_flight: 8,
        // The forged ones.
        faults: 1_000_000,
        duration: Duration::ZERO,
    },
    short: Numbers {
        calls: 500,
        in_flight: 8,
        faults: 20_000,
        duration: Duration::ZERO,
    },
    limit: Duration::from_secs(900),
    run,
};

fn run(setting: &Setting, ground: &mut Ground) -> Result<Report> {
    let stage = Stage::set(setting, ground, QueueChoice::Durable)?;
    let session = stage.patient_session(TIMEOUT)?;
    let (victim, worker) = spy_on(&stage, &session)?;
    let forged = u64::from(setting.numbers.faults);
    let transport = session::raw(setting.transport, &stage.place)?;

    // The real calls go on until the last forged reply is out, and those that are asked for at least.
    let load = Load::of(setting, TIMEOUT).without_end();
    let over = AtomicBool::new(false);
    let least = setting.numbers.calls;
    let mut memory = (0, 0);
    let sent = load::run(&session, &load, &stage.book, setting, || {
        let sent = thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let sent = flood(&*transport, &victim, forged, setting.seed);
                over.store(true, Ordering::SeqCst);
                sent
            });
            // Memory is compared between two moments of the flood, with the ledger still small.
            while session.stats().attempts.unmatched_replies < forged / 10
                && !over.load(Ordering::SeqCst)
            {
                thread::sleep(POLL);
            }
            memory.0 = Vitals::of_self().rss_kib;
            flood.join().unwrap_or_else(|_| Ok(0))
        });
        stage.book.wait_for(least, PATIENCE, || false);
        memory.1 = Vitals::of_self().rss_kib;
        sent
    })?;
    let counted = || session.stats().attempts.unmatched_replies;
    let deadline = Instant::now() + Duration::from_secs(10);
    while counted() < sent && Instant::now() < deadline {
        thread::sleep(POLL);
    }
    let unmatched = counted();
    transport.close()?;
    drop(transport);
    let calls = stage.book.begun();
    let rules = Rules::default().all_right();
    let mut report = stage.finish(SCENARIO.name, ground, session, vec![worker], &rules)?;
    report.figure("forged", sent);
    report.figure("accepted", report.tally.wrong);
    report.figure("unmatched_replies", unmatched);
    report.figure("rss_early_kib", memory.0);
    report.figure("rss_late_kib", memory.1);
    report.require(sent == forged, || format!("{sent} of {forged} were sent"));
    report.require(unmatched >= sent, || {
        format!("{sent} were sent, and {unmatched} counted")
    });
    // The ledger's own records, and what the allocator keeps.
    let allowance = calls / 8 + (8 << 10);
    report.require(memory.1 <= memory.0 + allowance, || {
        format!("memory grew from {} to {} KiB", memory.0, memory.1)
    });
    Ok(report)
}

/// Learns where the client gets its replies, as an attacker does who may read the work queue, and then
/// lets a worker have the request.
fn spy_on(stage: &Stage<'_>, session: &Session) -> Result<(ShortString, Worker)> {
    let spy = session::raw(stage.setting.transport, &stage.place)?;
    spy.declare(&QueueChoice::Durable.spec(stage.queue.clone()))?;
    let prefetch = std::num::NonZeroU16::MIN;
    let mut consumer = spy.consume(ConsumeOptions::queue(stage.queue.clone(), prefetch))?;
    thread::scope(|scope| {
        scope.spawn(|| {
            let ask = Ask::new(stage.book.open(TIMEOUT));
            stage.book.close(&ask, &session.call(&ask, TIMEOUT));
        });
        let delivery = consumer.recv()?.context("the request that gives it away")?;
        let address = delivery
            .message
            .reply_to
            .context("a request asks for a reply")?;
        // Unsettled, the request goes back to its queue.
        spy.close()?;
        Ok((address, Worker::hire(&stage.contract())?))
    })
}

/// Sends so many forged replies, as fast as the broker takes them.
fn flood(transport: &dyn Transport, victim: &ShortString, count: u64, seed: u64) -> Result<u64> {
    let to = Address::queue(victim.clone());
    let body = serde_json::to_vec(&Answer { key: 0, fib: 1 })?;
    let mut dice = Dice::new(seed);
    let mut open: VecDeque<Confirm> = VecDeque::new();
    for _ in 0..count {
        let deadline = Instant::now() + TIMEOUT;
        let guess = format!("{:016x}{:016x}", dice.roll(), dice.roll());
        let message = Message {
            body: body.clone().into(),
            content_type: ShortString::new("application/json").ok(),
            correlation_id: ShortString::new(&guess[..22]).ok(),
            kind: Some(rpc_core::proto::wire::REPLY_TYPE),
            ..Message::default()
        };
        open.push_back(transport.publish(&to, message, deadline)?);
        if open.len() >= WINDOW
            && let Some(oldest) = open.pop_front()
        {
            oldest.wait(deadline)?;
        }
    }
    for confirm in open {
        confirm.wait(Instant::now() + TIMEOUT)?;
    }
    Ok(count)
}

const TIMEOUT: Duration = Duration::from_secs(30);

const PATIENCE: Duration = Duration::from_secs(120);

const POLL: Duration = Duration::from_millis(20);

/// Forged replies that the broker has not confirmed yet.
const WINDOW: usize = 512;
