//! The broker is short of memory for a while, and blocks publishers.
//!
//! Nothing is sent meanwhile, and no call hangs. Work that needs no reply is acknowledged as ever:
//! acknowledgements ride on a connection of their own. Afterwards the full rate is back within
//! seconds, and what had expired meanwhile is not run.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use rpc_core::blocking::Transport as _;
use rpc_core::{Address, ShortString};

use crate::ask::Ask;
use crate::ground::{self, Ground};
use crate::ledger::{Execution, Micros, Outcome, Record, Rules, micros, now, read_work};
use crate::load::{self, Load};
use crate::report::Report;
use crate::scenario::{Needs, Scenario};
use crate::scratch::Scratch;
use crate::session::{self, QueueChoice};
use crate::setting::{Numbers, Setting, Transport};
use crate::worker::Worker;

use super::stage::Stage;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "alarm",
    about: "a memory alarm under load: no call hangs, acknowledgements flow, the full rate is back \
            within 5 s",
    needs: Needs::Node,
    transports: &[Transport::Lapin, Transport::Amiquip, Transport::Memory],
    full: Numbers {
        calls: 37_500,
        in_flight: 1_200,
        faults: 1,
        duration: Duration::from_secs(60),
    },
    short: Numbers {
        calls: 7_500,
        in_flight: 1_200,
        faults: 1,
        duration: Duration::from_secs(5),
    },
    limit: Duration::from_secs(300),
    run,
};

fn run(setting: &Setting, ground: &mut Ground) -> Result<Report> {
    let stage = Stage::set(setting, ground, QueueChoice::Durable)?;
    let workers = Worker::crew(&stage.contract(), 2)?;
    let session = stage.patient_session(TIMEOUT)?;

    // Work without replies, one piece after the other: the next comes when the last is acknowledged.
    let casts = Scratch::new()?;
    let mut contract = stage.contract().with_delay(CAST_TIME);
    contract.serving.queue = ground::queue("casts");
    contract.serving.concurrency = 1;
    contract.serving.prefetch = 1;
    contract.work = casts.path().to_path_buf();
    let caster = Worker::hire(&contract)?;
    let lasts = setting.numbers.duration;
    cast(&stage, &contract.serving.queue, lasts + BEFORE)?;

    let load = Load::of(setting, TIMEOUT).with_rate(RATE);
    let alarm = load::run(&session, &load, &stage.book, setting, || {
        thread::sleep(BEFORE);
        ground.set_alarm(true)?;
        let begun = now();
        thread::sleep(lasts);
        let ended = now();
        ground.set_alarm(false)?;
        // It is over when the broker has been told so.
        Ok::<_, anyhow::Error>((begun, ended, now()))
    })?;
    let (begun, ended, cleared) = alarm;
    let records = stage.book.records();
    let during = |record: &&Record| record.begun > begun + micros(SETTLE) && record.begun < ended;
    let answered = records
        .iter()
        .filter(during)
        .filter(|record| record.outcome == Some(Outcome::Right) && record.ended < Some(ended))
        .count();
    let back = full_rate_after(&records, cleared);
    let gap = longest_gap(&read_work(casts.path())?, begun, ended);
    caster.kill();
    let mut report = stage.finish(SCENARIO.name, ground, session, workers, &Rules::default())?;
    report.millis("alarm_ms", Duration::from_micros(ended - begun));
    report.figure("answered_during_alarm", answered as u64);
    report.millis("longest_ack_ms", gap.unwrap_or(Duration::MAX));
    report.require(gap.is_some_and(|gap| gap <= ACK_LIMIT), || {
        format!("work was acknowledged after {gap:?}")
    });
    report.millis("full_rate_after_ms", back.unwrap_or(Duration::MAX));
    report.require(back.is_some_and(|back| back <= BACK_LIMIT), || {
        format!("the full rate was back after {back:?}")
    });
    // An alarm that does not block anybody proves nothing.
    report.require(answered == 0, || {
        format!("{answered} calls were answered during the alarm")
    });
    Ok(report)
}

/// Sends so much work without replies that it lasts as long as that.
fn cast(stage: &Stage<'_>, queue: &ShortString, lasts: Duration) -> Result<()> {
    let transport = session::raw(stage.setting.transport, &stage.place)?;
    let to = Address::queue(queue.clone());
    let pieces = lasts.as_millis() / CAST_TIME.as_millis() + 1;
    let mut confirms = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    for key in 0..u64::try_from(pieces)? {
        confirms.push(transport.publish(&to, Ask::new(key).message()?, deadline)?);
    }
    for confirm in confirms {
        confirm.wait(deadline)?;
    }
    transport.close()?;
    Ok(())
}

/// The longest time between the end of one piece of work and the start of the next, during the alarm.
fn longest_gap(work: &[Execution], begun: Micros, ended: Micros) -> Option<Duration> {
    let within = |at: Micros| at > begun && at < ended;
    let gaps = work.windows(2).filter_map(|pair| {
        let (done, next) = (pair[0].ended?, pair[1].started);
        (within(done) || within(next)).then(|| Duration::from_micros(next.saturating_sub(done)))
    });
    gaps.max()
}

/// How long after that moment the first second began in which calls ended well at the full rate: calls
/// that were begun since then, or the flood of those that had waited would pass for it.
fn full_rate_after(records: &[Record], moment: Micros) -> Option<Duration> {
    let right = records
        .iter()
        .filter(|record| record.begun >= moment && record.outcome == Some(Outcome::Right));
    let mut ends: Vec<Micros> = right.filter_map(|record| record.ended).collect();
    ends.sort_unstable();
    let enough = (RATE * 0.9) as usize;
    let first = ends
        .windows(enough)
        .find(|window| window[enough - 1] - window[0] <= 1_000_000)?;
    Some(Duration::from_micros(first[0] - moment))
}

const RATE: f64 = 500.0;

const TIMEOUT: Duration = Duration::from_secs(2);

/// Calls before the alarm.
const BEFORE: Duration = Duration::from_secs(3);

/// The broker looks at its memory once in a while.
const SETTLE: Duration = Duration::from_secs(2);

const CAST_TIME: Duration = Duration::from_millis(50);

const ACK_LIMIT: Duration = Duration::from_secs(1);

const BACK_LIMIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_those_between_pieces_of_work_during_the_alarm() {
        let piece = |started, ended| Execution::fresh(1, started, Some(ended));
        let work = [
            piece(0, 10),
            piece(500, 510),
            piece(520, 530),
            piece(5_000, 5_010),
        ];
        assert_eq!(
            longest_gap(&work, 515, 600),
            Some(Duration::from_micros(4_470))
        );
        assert_eq!(
            longest_gap(&work, 505, 525),
            Some(Duration::from_micros(10))
        );
        assert_eq!(longest_gap(&[], 0, 10), None);
    }
}
