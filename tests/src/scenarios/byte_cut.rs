//! The connection is cut after each byte of one call, in both directions, on both sides.
//!
//! Wherever the cut comes, the call ends in time and says nothing that is not so.

use std::time::Duration;

use anyhow::{Context, Result};
use fault_proxy::{Direction, End, Proxy};

use crate::ask::Ask;
use crate::ground::{self, Ground};
use crate::ledger::{Duplicates, Rules};
use crate::report::Report;
use crate::scenario::{Needs, Scenario};
use crate::session::{CallerOptions, QueueChoice, Session, quick_backoff};
use crate::setting::{Numbers, Setting, Transport};
use crate::worker::Worker;

use super::stage::Stage;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "byte-cut",
    about: "the connection is cut after every byte of one call, both ways, at the caller and at the \
            worker: the ledger balances at each",
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
        // In each of the passes.
        faults: 6,
        duration: Duration::ZERO,
    },
    limit: Duration::from_secs(1_800),
    run,
};

/// Whose connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Caller,
    Worker,
}

fn run(setting: &Setting, ground: &mut Ground) -> Result<Report> {
    let stage = Stage::set(setting, ground, QueueChoice::Durable)?;
    let url = ground.url()?;
    let (callers, near) = ground::proxied(&url)?;
    let (servers, far) = ground::proxied(&url)?;
    let mut contract = stage.contract();
    contract.place = far;
    contract.serving.quick = true;
    let worker = Worker::hire(&contract)?;
    // Both kinds of callers: those who ask again, and those who are told that nobody knows.
    let mut patient = CallerOptions::patient(stage.queue.clone(), TIMEOUT);
    patient.backoff = quick_backoff();
    let mut cuts = 0u64;
    let mut offsets = 0u64;
    for options in [patient.clone(), patient.once()] {
        let session = Session::open(setting, &near, options)?;
        for side in [Side::Caller, Side::Worker] {
            let proxy = match side {
                Side::Caller => &callers,
                Side::Worker => &servers,
            };
            for direction in Direction::BOTH {
                let length = length_of_a_call(&stage, &session, proxy, direction)?;
                let step = length.div_ceil(u64::from(setting.numbers.faults)).max(1);
                for offset in (1..=length).step_by(usize::try_from(step)?) {
                    let end = if offset % 2 == 0 {
                        End::Cut
                    } else {
                        End::Reset
                    };
                    proxy.end_after(direction, offset, end);
                    call(&stage, &session);
                    cuts += u64::from(!proxy.disarm(direction));
                    offsets += 1;
                    let said = format!("{side:?} {direction:?} {offset}/{length}");
                    (setting.progress)(offset, length, &said);
                }
            }
        }
        session.close();
    }
    let session = Session::open(
        setting,
        &near,
        CallerOptions::patient(stage.queue.clone(), TIMEOUT),
    )?;
    call(&stage, &session);
    let rules = Rules::default().with_duplicates(Duplicates::Accounted);
    let mut report = stage.finish(SCENARIO.name, ground, session, vec![worker], &rules)?;
    report.figure("offsets", offsets);
    report.figure("cuts", cuts);
    // What a call carries differs by a few bytes from one to the next, and no more.
    report.require(cuts * 10 >= offsets * 9, || {
        format!("{cuts} cuts at {offsets} offsets: they were not where the call was")
    });
    Ok(report)
}

fn call(stage: &Stage<'_>, session: &Session) {
    let ask = Ask::new(stage.book.open(TIMEOUT));
    stage.book.close(&ask, &session.call(&ask, TIMEOUT));
}

/// How many bytes go this way for one call, all is well.
fn length_of_a_call(
    stage: &Stage<'_>,
    session: &Session,
    proxy: &Proxy,
    direction: Direction,
) -> Result<u64> {
    // The first may wait for a connection, and carry its beginning.
    let lengths = [(); 3].map(|()| {
        let before = proxy.carried(direction);
        call(stage, session);
        proxy.carried(direction) - before
    });
    // Nor is one of use that was over before the proxy had counted what it carried.
    let shortest = lengths.into_iter().filter(|length| *length > 0).min();
    shortest.context("a call that carries something")
}

const TIMEOUT: Duration = Duration::from_secs(10);
