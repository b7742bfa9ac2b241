//! The connection is cut after each byte of one call, in both directions, on both sides, in both ways
//! that a connection can end.
//!
//! Wherever the cut comes, the call ends in time and says nothing that is not so; and where it may be
//! repeated, it is answered. A call on a connection that works comes before each cut, so that the cut
//! hits the call and not the making of the connection.

use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use fault_proxy::{Direction, End, Proxy};
use rpc_core::ShortString;

use crate::ask::Ask;
use crate::ground::{self, Ground, Place};
use crate::ledger::{Duplicates, Rules};
use crate::report::Report;
use crate::scenario::{Needs, Scenario};
use crate::session::{CallerOptions, QueueChoice, Session, quick_backoff};
use crate::setting::{Numbers, Setting, Transport};
use crate::worker::Worker;

use super::stage::Stage;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "byte-cut",
    about: "the connection is cut, and again reset, after every byte of one call, both ways, at the \
            caller and at the worker: the ledger balances at each, and who may ask again is answered",
    needs: Needs::Broker,
    transports: &[Transport::Lapin, Transport::Amiquip],
    full: Numbers {
        calls: 0,
        in_flight: 1,
        // Each of them in turn, as many as there are.
        faults: u32::MAX,
        duration: Duration::ZERO,
    },
    short: Numbers {
        calls: 0,
        in_flight: 1,
        // In each of the passes, and for each of the ends.
        faults: 3,
        duration: Duration::ZERO,
    },
    limit: Duration::from_secs(3_600),
    run,
};

/// Whose connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Caller,
    Worker,
}

/// One way through all offsets, with a queue, a worker and a network of its own.
struct Pass<'a> {
    stage: &'a Stage<'a>,
    queue: ShortString,
    /// Whether its calls are repeated.
    patient: bool,
    side: Side,
    direction: Direction,
    callers: Proxy,
    servers: Proxy,
}

/// What came of a pass.
#[derive(Default)]
struct Passed {
    offsets: u64,
    strikes: u64,
    cuts: u64,
    /// Calls that were struck and answered.
    right: u64,
}

fn run(setting: &Setting, ground: &mut Ground) -> Result<Report> {
    let stage = Stage::set(setting, ground, QueueChoice::Durable)?;
    let url = ground.url()?;
    let mut workers = Vec::new();
    let (mut patient, mut all) = (Passed::default(), Passed::default());
    let mut left = Vec::new();
    // Both kinds of callers: those who ask again, and those who are told that nobody knows.
    for asks_again in [true, false] {
        let (ground, stage) = (&*ground, &stage);
        // They wait for most of their time, and know nothing of each other.
        let passed: Vec<Result<_>> = thread::scope(|scope| {
            let mut passing = Vec::new();
            for side in [Side::Caller, Side::Worker] {
                for direction in Direction::BOTH {
                    let url = &url;
                    passing.push(scope.spawn(move || {
                        let (callers, near) = ground::proxied(url)?;
                        let (servers, far) = ground::proxied(url)?;
                        let pass = Pass {
                            stage,
                            queue: ground::queue("byte-cut"),
                            patient: asks_again,
                            side,
                            direction,
                            callers,
                            servers,
                        };
                        let (passed, worker) = pass.go(&near, far)?;
                        let left = ground.drains_within(pass.queue.as_str(), DRAIN_LIMIT)?;
                        Ok((passed, worker, left))
                    }));
                }
            }
            let passed = passing.into_iter().map(thread::ScopedJoinHandle::join);
            passed
                .map(|passed| passed.unwrap_or_else(|panic| resume_unwind(panic)))
                .collect()
        });
        for one in passed {
            let (passed, worker, depth) = one?;
            if asks_again {
                patient.add(&passed);
            }
            all.add(&passed);
            workers.push(worker);
            left.extend(depth);
        }
    }
    // On a connection that nobody cuts.
    let last = Worker::hire(&stage.contract())?;
    workers.push(last);
    let session = stage.patient_session(TIMEOUT)?;
    let healthy = call(&stage, &session);
    let rules = Rules::default().with_duplicates(Duplicates::Accounted);
    let mut report = stage.finish(SCENARIO.name, ground, session, workers, &rules)?;
    report.figure("offsets", all.offsets);
    report.figure("strikes", all.strikes);
    report.figure("cuts", all.cuts);
    report.figure("patient_calls_cut", patient.strikes);
    report.figure("patient_calls_answered", patient.right);
    report.require(healthy, || {
        "a call was not answered after all cuts".to_owned()
    });
    report.require(left.is_empty(), || {
        format!("queues do not become empty: {left:?}")
    });
    // What a call carries differs by a few bytes from one to the next, and no more.
    let (cuts, strikes) = (all.cuts, all.strikes);
    report.require(cuts > 0 && cuts * 10 >= strikes * 9, || {
        format!("{cuts} cuts of {strikes}: they were not where the call was")
    });
    let (right, strikes) = (patient.right, patient.strikes);
    report.require(right == strikes, || {
        format!("{right} of {strikes} calls that may be repeated were answered")
    });
    Ok(report)
}

impl Passed {
    const fn add(&mut self, other: &Self) {
        self.offsets += other.offsets;
        self.strikes += other.strikes;
        self.cuts += other.cuts;
        self.right += other.right;
    }
}

impl Pass<'_> {
    fn go(&self, near: &Place, far: Place) -> Result<(Passed, Worker)> {
        let setting = self.stage.setting;
        let mut contract = self.stage.contract();
        contract.place = far;
        contract.serving.queue = self.queue.clone();
        contract.serving.quick = true;
        let worker = Worker::hire(&contract)?;
        let mut options = CallerOptions::patient(self.queue.clone(), TIMEOUT);
        options.backoff = quick_backoff();
        options.idempotent = self.patient;
        let session = Session::open(setting, near, options)?;
        let length = self.length_of_a_call(&session)?;
        let step = length.div_ceil(u64::from(setting.numbers.faults)).max(1);
        let mut passed = Passed::default();
        for offset in (1..=length).step_by(usize::try_from(step)?) {
            passed.offsets += 1;
            for end in [End::Cut, End::Reset] {
                self.healthy_call(&session)?;
                self.proxy().end_after(self.direction, offset, end);
                passed.strikes += 1;
                passed.right += u64::from(call(self.stage, &session));
                // The end may come with what follows the reply.
                self.settle();
                passed.cuts += u64::from(!self.proxy().disarm(self.direction));
            }
            let said = format!("{:?} {:?} {offset}/{length}", self.side, self.direction);
            (setting.progress)(offset, length, &said);
        }
        session.close();
        Ok((passed, worker))
    }

    const fn proxy(&self) -> &Proxy {
        match self.side {
            Side::Caller => &self.callers,
            Side::Worker => &self.servers,
        }
    }

    /// One that is answered: everybody has a connection that works. One that is cut may be noticed only
    /// when it is used, so the first need not be it.
    fn healthy_call(&self, session: &Session) -> Result<()> {
        for _ in 0..HEALTHY_TRIES {
            if call(self.stage, session) {
                self.settle();
                return Ok(());
            }
        }
        bail!("no call in {HEALTHY_TRIES} was answered after the connection was cut");
    }

    /// Waits until nothing is under way any more: acknowledgements and confirms follow the reply.
    fn settle(&self) {
        let carried = || {
            let both = [&self.callers, &self.servers];
            both.map(|proxy| Direction::BOTH.map(|direction| proxy.carried(direction)))
        };
        let limit = Instant::now() + SETTLE_LIMIT;
        let (mut last, mut since) = (carried(), Instant::now());
        while since.elapsed() < QUIET && Instant::now() < limit {
            thread::sleep(QUIET / 5);
            let now = carried();
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
    }

    /// How many bytes go this way for one call at most, all is well.
    fn length_of_a_call(&self, session: &Session) -> Result<u64> {
        let mut longest = 0;
        for _ in 0..MEASURED {
            self.healthy_call(session)?;
            let before = self.proxy().carried(self.direction);
            self.healthy_call(session)?;
            longest = longest.max(self.proxy().carried(self.direction) - before);
        }
        if longest == 0 {
            bail!("a call that carries nothing");
        }
        Ok(longest)
    }
}

/// Whether it was answered right.
fn call(stage: &Stage<'_>, session: &Session) -> bool {
    let ask = Ask::new(stage.book.open(TIMEOUT));
    let result = session.call(&ask, TIMEOUT);
    let right = result.as_ref().is_ok_and(|answer| *answer == ask.answer());
    stage.book.close(&ask, &result);
    right
}

const TIMEOUT: Duration = Duration::from_secs(10);

const HEALTHY_TRIES: usize = 10;

const MEASURED: usize = 3;

/// Longer than it takes from a reply to the acknowledgement of its request.
const QUIET: Duration = Duration::from_millis(20);

const SETTLE_LIMIT: Duration = Duration::from_secs(1);

const DRAIN_LIMIT: Duration = Duration::from_secs(20);
