//! There is no broker to speak of: not yet, or only something that behaves as one would not.

use std::io::Write;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rpc_core::ErrorKind;
use rpc_core::proto::link::LinkState;
use url::Url;

use crate::ask::Ask;
use crate::ground::{self, Ground, LogMark, Place};
use crate::ledger::{Rules, WorkLog};
use crate::load::{self, Load};
use crate::report::Report;
use crate::scenario::{Needs, Scenario};
use crate::session::{CallerOptions, Desk, QueueChoice, Serving, Session};
use crate::setting::{Numbers, Setting, Transport};

use super::stage::Stage;

pub(super) const AT_START: Scenario = Scenario {
    name: "broker-down-at-start",
    about: "clients and workers start before the broker does: calls that wait are answered once it is \
            there, the others fail at once",
    needs: Needs::Node,
    transports: &[Transport::Lapin, Transport::Amiquip, Transport::Memory],
    full: Numbers {
        calls: 200,
        in_flight: 32,
        faults: 1,
        duration: Duration::from_secs(5),
    },
    short: Numbers {
        calls: 50,
        in_flight: 16,
        faults: 1,
        duration: Duration::from_secs(1),
    },
    limit: Duration::from_secs(200),
    run: run_at_start,
};

fn run_at_start(setting: &Setting, ground: &mut Ground) -> Result<Report> {
    let stage = Stage::set(setting, ground, QueueChoice::Durable)?;
    match ground {
        Ground::Memory(broker) => broker.stop(),
        _ => ground.node()?.kill()?,
    }
    let contract = stage.contract();
    let desk = Desk::new(WorkLog::create(&contract.work)?, Duration::ZERO);
    let (kind, face) = (setting.transport, setting.face);
    let serving = Serving::begin(kind, face, &stage.place, desk, &contract.serving)?;
    let waiting = CallerOptions::patient(stage.queue.clone(), LONG);
    let mut failing = waiting.clone();
    failing.wait_for_ready = false;
    let failing = Session::begin(setting, &stage.place, failing)?;
    let ask = Ask::new(stage.book.open(LONG));
    let begun = Instant::now();
    stage.book.close(&ask, &failing.call(&ask, LONG));
    let failed_after = begun.elapsed();
    failing.close();
    drop(failing);
    let session = Session::begin(setting, &stage.place, waiting)?;
    let load = Load::of(setting, LONG);
    load::run(&session, &load, &stage.book, setting, || {
        thread::sleep(setting.numbers.duration);
        match ground {
            Ground::Memory(broker) => {
                broker.start();
                Ok(0)
            }
            _ => ground::start_again(ground.node()?),
        }
    })?;
    let share = setting.numbers.calls as f64 / (setting.numbers.calls + 1) as f64;
    let rules = Rules::default().with_ok_share(share);
    let left = serving.drain(Duration::from_secs(10)).unfinished;
    let mut report = stage.finish(AT_START.name, ground, session, Vec::new(), &rules)?;
    report.millis("failed_fast_after_ms", failed_after);
    report.require(failed_after <= Duration::from_millis(500), || {
        format!("a call that does not wait failed after {failed_after:?}")
    });
    report.require(left == 0, || {
        format!("{left} requests were left unfinished")
    });
    Ok(report)
}

pub(super) const SLOW_LORIS: Scenario = Scenario {
    name: "slow-loris-broker",
    about: "what accepts the connection says nothing, or a byte a second: calls end in time, with the \
            cause",
    needs: Needs::Nothing,
    transports: &[Transport::Lapin, Transport::Amiquip],
    full: Numbers {
        calls: 20,
        in_flight: 4,
        faults: 2,
        duration: Duration::ZERO,
    },
    short: Numbers {
        calls: 4,
        in_flight: 4,
        faults: 2,
        duration: Duration::ZERO,
    },
    limit: Duration::from_secs(300),
    run: run_slow_loris,
};

fn run_slow_loris(setting: &Setting, ground: &mut Ground) -> Result<Report> {
    let listener = TcpListener::bind("127.0.0.1:0").context("a port")?;
    let place = Place::Urls(vec![format!(
        "amqp://guest:guest@{}",
        listener.local_addr()?
    )]);
    thread::spawn(move || {
        let mut kept = Vec::new();
        for (number, peer) in listener.incoming().flatten().enumerate() {
            if number % 2 == 0 {
                kept.push(peer);
            } else {
                thread::spawn(move || drip(peer));
            }
        }
    });
    let stage = Stage::at(setting, place, LogMark::default(), QueueChoice::Durable)?;
    let options = CallerOptions::patient(stage.queue.clone(), SHORT);
    let session = Session::begin(setting, &stage.place, options)?;
    let load = Load::of(setting, SHORT);
    // Long enough for a connection attempt to be given up, and the cause to be seen.
    let seen = load::run(&session, &load, &stage.book, setting, || {
        let deadline = Instant::now() + HANDSHAKE;
        loop {
            if let LinkState::Connecting {
                cause: Some(cause), ..
            } = session.link_state()
            {
                return Some(cause.kind());
            }
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
    let mut report = stage.finish(
        SLOW_LORIS.name,
        ground,
        session,
        Vec::new(),
        &Rules::default(),
    )?;
    let expected = [Some(ErrorKind::Connect), Some(ErrorKind::Timeout)];
    report.figure("cause", format!("{seen:?}"));
    report.require(expected.contains(&seen), || {
        format!("the cause is {seen:?}")
    });
    let answered = report.tally.ok;
    report.require(answered == 0, || {
        format!("{answered} calls were answered, by nobody")
    });
    Ok(report)
}

/// The beginning of a handshake, a byte a second.
fn drip(mut peer: std::net::TcpStream) {
    for byte in [1, 0, 0, 0, 0, 1, 0xff]
        .into_iter()
        .chain(std::iter::repeat(0))
    {
        if peer.write_all(&[byte]).is_err() {
            return;
        }
        thread::sleep(Duration::from_secs(1));
    }
}

pub(super) const CREDENTIALS: Scenario = Scenario {
    name: "wrong-credentials",
    about: "a wrong password and a virtual host that is not there: the cause is known within 5 s, the \
            broker is not asked in a loop, and calls end in time",
    needs: Needs::Broker,
    transports: &[Transport::Lapin, Transport::Amiquip],
    full: Numbers {
        calls: 20,
        in_flight: 4,
        faults: 2,
        duration: Duration::ZERO,
    },
    short: Numbers {
        calls: 4,
        in_flight: 4,
        faults: 2,
        duration: Duration::ZERO,
    },
    limit: Duration::from_secs(120),
    run: run_credentials,
};

fn run_credentials(setting: &Setting, ground: &mut Ground) -> Result<Report> {
    let stage = Stage::set(setting, ground, QueueChoice::Durable)?;
    let url = Url::parse(&ground.url()?).context("the URL of the broker")?;
    let mut password = url.clone();
    let mut vhost = url;
    if password.set_password(Some("c4n4ry")).is_err() {
        anyhow::bail!("the URL takes no password");
    }
    vhost.set_path("no-such-virtual-host");
    let mut causes = Vec::new();
    for url in [password, vhost] {
        let place = Place::Urls(vec![url.into()]);
        let options = CallerOptions::patient(stage.queue.clone(), SHORT);
        let session = Session::begin(setting, &place, options)?;
        let load = Load::of(setting, SHORT);
        let cause = load::run(&session, &load, &stage.book, setting, || {
            let begun = Instant::now();
            let cause = session.ready(WATCHED).err();
            let took = begun.elapsed();
            // It is known at once, and how often the broker is asked only shows with time.
            thread::sleep(WATCHED.saturating_sub(took));
            (cause.map(|cause| cause.kind()), took)
        });
        let tries = match session.link_state() {
            LinkState::Connecting { failed, .. } => failed,
            _ => 0,
        };
        session.close();
        causes.push((cause, tries));
    }
    let session = stage.patient_session(SHORT)?;
    let mut report = stage.finish(
        CREDENTIALS.name,
        ground,
        session,
        Vec::new(),
        &Rules::default(),
    )?;
    let kinds = [ErrorKind::Unauthenticated, ErrorKind::Denied];
    for (((cause, took), tries), expected) in causes.into_iter().zip(kinds) {
        report.require(cause == Some(expected), || {
            format!("the cause is {cause:?} after {took:?}, and should be {expected:?}")
        });
        report.require(tries <= 8, || {
            format!("the broker was asked {tries} times in 5 s")
        });
    }
    Ok(report)
}

const LONG: Duration = Duration::from_secs(30);

const SHORT: Duration = Duration::from_secs(2);

/// How long a link that is refused is watched.
const WATCHED: Duration = Duration::from_secs(5);

/// More than a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(12);
