//! What a seed's world is made of, before anything goes wrong: how many of whom, with which
//! options, and the plan of every call.

use crate::conn::ProcessId;
use crate::mix::{Fault, Mix};
use crate::rng::Rng;
use crate::time::{MS, Micros, SECOND};

/// The numbers of one world.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) clients: usize,
    pub(crate) workers: usize,
    pub(crate) calls: Vec<Plan>,
    pub(crate) at_most_once: bool,
    /// Workers are of the blocking face.
    pub(crate) blocking: bool,
    /// The queue of the service outlives the broker, and its requests with it.
    pub(crate) durable: bool,
    /// The queue counts failed deliveries.
    pub(crate) quorum: bool,
    /// Suspects run alone; otherwise they come back until the queue's own limit, if it has one.
    pub(crate) quarantine: Option<u32>,
    /// How often a request may be delivered in vain before a queue that counts gives it up, in
    /// quarantine over what is allowed there.
    pub(crate) delivery_limit: u32,
    pub(crate) max_length: Option<usize>,
    pub(crate) dedup: bool,
    pub(crate) admission: bool,
    pub(crate) concurrency: usize,
    pub(crate) prefetch: usize,
    pub(crate) max_in_flight: usize,
    /// A blocked broker ends calls at once instead of letting them wait.
    pub(crate) fail_fast: bool,
    /// A blocked broker's requests wait in the process; otherwise in the socket.
    pub(crate) holds: bool,
    /// How long a peer may be silent; it is noticed after once to twice that.
    pub(crate) heartbeat: Micros,
    pub(crate) settle_timeout: Micros,
    /// When faults stop.
    pub(crate) faults_end: Micros,
    /// When the world ends.
    pub(crate) end: Micros,
    /// Wall clocks, by process, in milliseconds off.
    pub(crate) skew: Vec<i64>,
}

/// One call, as it is meant to go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) client: usize,
    pub(crate) at: Micros,
    pub(crate) timeout: Micros,
    pub(crate) idempotent: bool,
    pub(crate) wait_for_ready: bool,
    pub(crate) give_up_after: Option<Micros>,
    /// Nobody waits any more for a call that is given up; otherwise its caller wants to hear of it.
    pub(crate) dropped: bool,
    pub(crate) work: Work,
    /// Its handler keeps a thread busy and cannot be stopped.
    pub(crate) blocks: bool,
    /// How long that one waits for a thread, where it has to.
    pub(crate) thread_after: Micros,
    pub(crate) hops: u32,
    /// Made after the faults, on a world that works: it must succeed.
    pub(crate) probe: bool,
}

/// What the handler of a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Answers, after so long.
    Answer(Micros),
    /// Fails, after so long.
    Fail(Micros),
    Panic,
    /// Kills its process.
    Poison,
    /// Does not come back by itself.
    Stuck,
}

/// The time of day when a world begins, by a clock that is right.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// How many services a request may come through.
pub(crate) const MAX_HOPS: u32 = 8;

impl Setting {
    /// The world of this seed; `calls` limits how many calls it has.
    pub(crate) fn draw(seed: u64, mix: &Mix, calls: Option<usize>) -> Self {
        let mut rng = Rng::new(seed, 3);
        let clients = rng.index(3) + 1;
        let workers = rng.index(3) + 1 + usize::from(rng.chance(300));
        let concurrency = rng.index(4) + 1;
        let at_most_once = rng.chance(200);
        let durable = rng.chance(850);
        let quorum = durable && rng.chance(600);
        let quarantined = rng.chance(700);
        let limit = u32::try_from(rng.between(1, 4)).unwrap_or(1);
        let max_length = rng.between(2, 8);
        let faults_end = rng.between(4, 10) * SECOND;
        let mut setting = Self {
            clients,
            workers,
            calls: Vec::new(),
            at_most_once,
            blocking: rng.chance(400),
            durable,
            quorum,
            quarantine: quarantined.then_some(limit),
            max_length: mix
                .has(Fault::QueueFull)
                .then(|| usize::try_from(max_length).unwrap_or(2)),
            delivery_limit: rng.pick(&[2, 5, 20, 20]),
            dedup: rng.chance(400),
            admission: rng.chance(400),
            concurrency,
            prefetch: concurrency + rng.index(8),
            max_in_flight: if rng.chance(50) { 2 } else { 1024 },
            fail_fast: rng.chance(300),
            holds: rng.chance(500),
            heartbeat: rng.between(500, 2_000) * MS,
            settle_timeout: if rng.chance(300) { SECOND } else { 10 * SECOND },
            faults_end,
            end: 0,
            skew: vec![0; clients + workers],
        };
        for process in &mut setting.skew {
            let off = rng.heavy(2_000);
            let sign = if rng.chance(500) { 1 } else { -1 };
            if mix.has(Fault::Skew) {
                let factor = i64::try_from(mix.level(Fault::Skew)).unwrap_or(1);
                *process = sign * i64::try_from(off).unwrap_or(0) * factor;
            }
        }
        let mut rng = Rng::new(seed, 4);
        let many = rng.between(6, 40);
        let bursts = mix.level(Fault::Burst);
        for _ in 0..many {
            let plan = setting.plan(&mut rng, mix);
            setting.calls.push(plan);
            let more = rng.between(5, 25);
            if bursts > 0 && rng.chance(60) {
                setting.burst(&mut rng, mix, plan, more * bursts);
            }
        }
        setting.calls.sort_by_key(|plan| plan.at);
        setting.calls.truncate(calls.unwrap_or(usize::MAX));
        setting.close();
        setting
    }

    fn plan(&self, rng: &mut Rng, mix: &Mix) -> Plan {
        let timeout = match rng.below(8) {
            0 => rng.between(20, 300) * MS,
            1..=4 => rng.between(300, 2_000) * MS,
            _ => rng.between(2_000, 8_000) * MS,
        };
        let quick = rng.heavy(4 * MS);
        let slow = rng.heavy(400 * MS);
        let mut work = Work::Answer(quick);
        for (fault, per_mille, other) in [
            (Fault::HandlerError, 100, Work::Fail(quick)),
            (Fault::Panic, 80, Work::Panic),
            (Fault::SlowHandler, 100, Work::Answer(slow)),
            (Fault::SlowHandler, 20, Work::Stuck),
            (Fault::Poison, 40, Work::Poison),
        ] {
            if mix.strikes(rng, fault, per_mille) {
                work = other;
            }
        }
        // Many of them before their workers have spoken up.
        let patience = if rng.chance(500) {
            timeout
        } else {
            timeout.min(400 * MS)
        };
        let give_up = rng.below(patience);
        let gives_up = mix.strikes(rng, Fault::GiveUp, 150);
        // Who gives up does so because it takes long.
        let long = rng.between(1_000, 6_000) * MS;
        if gives_up && rng.chance(500) && matches!(work, Work::Answer(_)) {
            work = Work::Answer(long);
        }
        let starved = rng.heavy(100 * MS);
        let hops = u32::try_from(rng.between(5, 11)).unwrap_or(5);
        Plan {
            client: rng.index(self.clients),
            at: rng.below(self.faults_end),
            timeout,
            idempotent: rng.chance(500),
            wait_for_ready: rng.chance(500),
            give_up_after: gives_up.then_some(give_up),
            dropped: rng.chance(600),
            work,
            blocks: rng.chance(300),
            thread_after: if mix.strikes(rng, Fault::SlowHandler, 100) {
                starved
            } else {
                0
            },
            hops: if mix.strikes(rng, Fault::ManyHops, 100) {
                hops
            } else {
                0
            },
            probe: false,
        }
    }

    fn burst(&mut self, rng: &mut Rng, mix: &Mix, first: Plan, many: u64) {
        for _ in 0..many {
            let mut plan = self.plan(rng, mix);
            plan.at = first.at + rng.below(50 * MS);
            self.calls.push(plan);
        }
    }

    /// Adds the probes, and sets when all is over.
    fn close(&mut self) {
        let last = self.calls.iter().map(|plan| plan.at + plan.timeout).max();
        // Every process is back by then, and what is left of the calls has ended: silence is
        // noticed after two heartbeats, and the wait before the next attempt to connect is two
        // seconds at most.
        let settled = self.faults_end + 4 * self.heartbeat + 4 * SECOND;
        // A worker whose clock is behind counts a request's time from when it came, again with each
        // delivery and once more in quarantine: so long it may keep a slot.
        let longest = self.calls.iter().map(|plan| plan.timeout).max();
        let behind = if self.skew.iter().any(|&skew| skew != 0) {
            2 * longest.unwrap_or(0)
        } else {
            0
        };
        let probes = settled.max(last.unwrap_or(0)) + behind + 2 * SECOND;
        for client in 0..self.clients {
            self.calls.push(Plan {
                client,
                at: probes + client as u64 * MS,
                timeout: 5 * SECOND,
                idempotent: false,
                wait_for_ready: false,
                give_up_after: None,
                work: Work::Answer(MS),
                dropped: false,
                blocks: false,
                thread_after: 0,
                hops: 0,
                probe: true,
            });
        }
        self.end = probes + 8 * SECOND;
    }

    /// The time of day as a process has it.
    pub(crate) fn unix_ms(&self, process: ProcessId, now: Micros) -> u64 {
        let right = EPOCH_MS + now / MS;
        right.saturating_add_signed(self.skew[process.0])
    }

    /// By how much the clock of a worker is ahead of that of a client, in microseconds.
    pub(crate) fn ahead(&self, worker: usize, client: usize) -> i64 {
        (self.skew[self.clients + worker] - self.skew[client]) * 1_000
    }

    /// The work of a call, wherever its number comes from: whether it blocks, and after how long
    /// there is a thread for it then. A thread of the blocking face is there when it begins.
    pub(crate) fn work(&self, call: usize) -> Option<(Work, Option<Micros>)> {
        let plan = self.calls.get(call)?;
        let after = if self.blocking { 0 } else { plan.thread_after };
        Some((plan.work, plan.blocks.then_some(after)))
    }
}
