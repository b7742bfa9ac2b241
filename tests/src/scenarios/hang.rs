//! The client library never answers: at each verb in turn, for callers, workers, closing and dropping.
//!
//! Whatever hangs, what was called returns: a call by its deadline, a drain and a close by their
//! limits, a drop at once. The library is one made for this, of the kind of lapin, which is awaited, or
//! of amiquip, which blocks its thread.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use transport_memory::MemoryBroker;

use crate::ask::Ask;
use crate::ground::{self, Ground, Place};
use crate::ledger::{Book, Rules, Tally, WorkLog, read_work};
use crate::report::Report;
use crate::scenario::{Needs, Scenario};
use crate::session::{
    CallerOptions, Desk, QueueChoice, Serving, ServingOptions, Session, StuckBroker, Verb,
};
use crate::setting::{Numbers, Setting, Transport};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "hang",
    about: "a client library that never answers, at each verb: calls, acks, closes and drops return \
            within 100 ms of their deadline",
    needs: Needs::Nothing,
    transports: &[Transport::Lapin, Transport::Amiquip, Transport::Memory],
    full: Numbers {
        calls: 0,
        in_flight: 4,
        // Rounds.
        faults: 5,
        duration: Duration::ZERO,
    },
    short: Numbers {
        calls: 0,
        in_flight: 4,
        faults: 1,
        duration: Duration::ZERO,
    },
    limit: Duration::from_secs(300),
    run,
};

fn run(setting: &Setting, _: &mut Ground) -> Result<Report> {
    let work = tempfile::tempdir().context("a directory for the logs")?;
    let book = Arc::new(Book::new());
    let rounds = setting.numbers.faults;
    let mut measured: Vec<Measured> = Vec::new();
    for round in 0..rounds {
        for (number, verb) in (0u64..).zip(Verb::ALL) {
            let done = u64::from(round) * Verb::ALL.len() as u64 + number;
            (setting.progress)(done, u64::from(rounds) * Verb::ALL.len() as u64, "");
            let scene = || Scene::set(setting, work.path(), &book);
            // A client that is there when it begins to hang, and one that comes later.
            measured.push(scene()?.calling(verb)?);
            measured.push(scene()?.coming(verb)?);
            measured.push(scene()?.serving(verb)?);
            measured.push(scene()?.closing(verb)?);
            measured.push(scene()?.dropping(verb)?);
        }
    }
    let rules = Rules::default().with_overrun(SPARE);
    let tally = Tally::of(&book.records(), &read_work(work.path())?, &rules);
    let mut report = Report::new(SCENARIO.name, setting, tally, &rules);
    report.figure("measured", measured.len() as u64);
    let worst = measured
        .iter()
        .map(|one| one.took.saturating_sub(one.limit))
        .max();
    report.millis("longest_overrun_ms", worst.unwrap_or_default());
    for Measured {
        what,
        verb,
        took,
        limit,
    } in measured
    {
        report.require(took <= limit + SPARE, || {
            format!("{what}, with {verb:?} hanging, took {took:?} and may take {limit:?}")
        });
    }
    Ok(report)
}

/// How long something took, and how long it may.
struct Measured {
    what: &'static str,
    verb: Verb,
    took: Duration,
    limit: Duration,
}

/// A service that works, and clients and servers on a transport that can be made to hang.
struct Scene<'a> {
    setting: &'a Setting,
    book: &'a Arc<Book>,
    stuck: StuckBroker,
    healthy: Setting,
    place: Place,
    options: ServingOptions,
    work: &'a std::path::Path,
}

impl<'a> Scene<'a> {
    fn set(setting: &'a Setting, work: &'a std::path::Path, book: &'a Arc<Book>) -> Result<Self> {
        let broker = MemoryBroker::new();
        let mut healthy = setting.clone();
        healthy.transport = Transport::Memory;
        Ok(Self {
            setting,
            book,
            stuck: StuckBroker::new(broker.clone()),
            healthy,
            place: Place::Memory(broker),
            options: ServingOptions::new(ground::queue("hang"), QueueChoice::Durable),
            work,
        })
    }

    fn serve(&self, setting: &Setting, place: &Place) -> Result<Serving> {
        let desk = Desk::new(WorkLog::create(self.work)?, Duration::ZERO);
        Serving::start(setting.transport, setting.face, place, desk, &self.options)
    }

    fn caller(&self) -> CallerOptions {
        CallerOptions::patient(self.options.queue.clone(), DEADLINE)
    }

    fn stuck_session(&self) -> Result<Session> {
        let place = Place::Stuck(self.stuck.clone());
        Session::open(self.setting, &place, self.caller())
    }

    fn call(&self, session: &Session) -> Duration {
        let ask = Ask::new(self.book.open(DEADLINE));
        let begun = Instant::now();
        let result = session.call(&ask, DEADLINE);
        let took = begun.elapsed();
        self.book.close(&ask, &result);
        took
    }

    /// A call on a connection that begins to hang.
    fn calling(self, verb: Verb) -> Result<Measured> {
        let server = self.serve(&self.healthy, &self.place)?;
        let session = self.stuck_session()?;
        self.call(&session);
        self.stuck.stick(Some(verb));
        let took = self.call(&session);
        self.stuck.stick(None);
        session.close();
        let _ = server.drain(DEADLINE);
        Ok(Measured::new("a call", verb, took, DEADLINE))
    }

    /// A call on a connection that hangs while it is made.
    fn coming(self, verb: Verb) -> Result<Measured> {
        let server = self.serve(&self.healthy, &self.place)?;
        self.stuck.stick(Some(verb));
        let place = Place::Stuck(self.stuck.clone());
        let session = Session::begin(self.setting, &place, self.caller())?;
        let took = self.call(&session);
        self.stuck.stick(None);
        session.close();
        let _ = server.drain(DEADLINE);
        Ok(Measured::new("a first call", verb, took, DEADLINE))
    }

    /// A worker that has work in its hands when its connection begins to hang, and is to leave.
    fn serving(self, verb: Verb) -> Result<Measured> {
        let place = Place::Stuck(self.stuck.clone());
        let server = self.serve(self.setting, &place)?;
        let session = Session::open(&self.healthy, &self.place, self.caller())?;
        self.call(&session);
        self.stuck.stick(Some(verb));
        let took = thread::scope(|scope| {
            let call = scope.spawn(|| self.call(&session));
            let begun = Instant::now();
            // It may be in the handler, before it, or behind it.
            let _ = server.drain(DEADLINE);
            let took = begun.elapsed();
            let _ = call.join();
            took
        });
        self.stuck.stick(None);
        session.close();
        Ok(Measured::new("a drain", verb, took, DEADLINE + GOODBYE))
    }

    /// A client that is closed with a call open.
    fn closing(self, verb: Verb) -> Result<Measured> {
        let session = self.stuck_session()?;
        self.stuck.stick(Some(verb));
        let took = thread::scope(|scope| {
            scope.spawn(|| self.call(&session));
            let begun = Instant::now();
            session.close();
            begun.elapsed()
        });
        self.stuck.stick(None);
        Ok(Measured::new("a close", verb, took, CLOSE))
    }

    /// A client and a server that are dropped.
    fn dropping(self, verb: Verb) -> Result<Measured> {
        let place = Place::Stuck(self.stuck.clone());
        let server = self.serve(self.setting, &place)?;
        let session = self.stuck_session()?;
        self.stuck.stick(Some(verb));
        let begun = Instant::now();
        drop(session);
        server.kill();
        let took = begun.elapsed();
        self.stuck.stick(None);
        Ok(Measured::new("a drop", verb, took, Duration::ZERO))
    }
}

impl Measured {
    const fn new(what: &'static str, verb: Verb, took: Duration, limit: Duration) -> Self {
        Self {
            what,
            verb,
            took,
            limit,
        }
    }
}

const DEADLINE: Duration = Duration::from_millis(300);

/// What a drain may take beyond its limit, to close its transport.
const GOODBYE: Duration = Duration::from_secs(3);

/// What closing a client may take: a second each for the last notices and for its reply address, and
/// then as a drain.
const CLOSE: Duration = Duration::from_secs(5);

const SPARE: Duration = Duration::from_millis(100);
