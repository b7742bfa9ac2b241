//! The client library never answers: at each verb in turn, for callers, workers, closing and dropping.
//!
//! Whatever hangs, what was called returns: a call by its deadline, a drain and a close by their
//! limits, a drop at once. The library is one made for this, of the kind of lapin, which is awaited, or
//! of amiquip, which blocks its thread.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use transport_memory::MemoryBroker;

use crate::ask::Ask;
use crate::ground::{self, Ground, Place};
use crate::ledger::{Book, Rules, Tally, WorkLog, read_work};
use crate::machine::Delay;
use crate::report::Report;
use crate::scenario::{Needs, Scenario};
use crate::scratch::Scratch;
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
    let work = Scratch::new()?;
    let book = Arc::new(Book::new());
    let rounds = setting.numbers.faults;
    let mut measured: Vec<Measured> = Vec::new();
    for round in 0..rounds {
        for (number, verb) in (0u64..).zip(Verb::ALL) {
            let done = u64::from(round) * Verb::ALL.len() as u64 + number;
            (setting.progress)(done, u64::from(rounds) * Verb::ALL.len() as u64, "");
            let scene = || Scene::set(setting, work.path(), &book);
            let machine = Delay::watch();
            // They wait for most of their time, and know nothing of each other.
            let played: Vec<Result<Measured>> = thread::scope(|scope| {
                let playing = SCENES.map(|play| scope.spawn(move || play(scene(), verb)));
                let played = playing.map(|playing| playing.join());
                let played =
                    played.map(|played| played.unwrap_or_else(|panic| resume_unwind(panic)));
                played.into()
            });
            let machine = machine.longest();
            for one in played {
                let mut one = one.with_context(|| format!("with {verb:?} hanging"))?;
                one.machine = machine;
                measured.push(one);
            }
        }
    }
    let machine = measured.iter().map(|one| one.machine).max();
    let machine = machine.unwrap_or_default();
    let rules = Rules::default().with_overrun(SPARE + machine);
    let tally = Tally::of(&book.records(), &read_work(work.path())?, &rules);
    let mut report = Report::new(SCENARIO.name, setting, tally, &rules);
    report.figure("measured", measured.len() as u64);
    let worst = measured
        .iter()
        .map(|one| one.took.saturating_sub(one.limit))
        .max();
    report.millis("longest_overrun_ms", worst.unwrap_or_default());
    report.millis("machine_delay_ms", machine);
    let late = measured.iter().filter(|one| one.took > one.limit + SPARE);
    let late = late.count() as u64;
    report.figure("beyond_the_limit", late);
    for Measured {
        what,
        verb,
        took,
        limit,
        machine,
    } in measured
    {
        report.require(took <= limit + SPARE + machine, || {
            format!(
                "{what}, with {verb:?} hanging, took {took:?} and may take {limit:?}; the machine \
                 was {machine:?} late"
            )
        });
    }
    // The calls of the ledger count too: they are judged by the same measure.
    if report.passed && (late > 0 || Duration::from_millis(report.tally.max_overrun_ms) > SPARE) {
        report.figure("judgement", "the machine was too busy to judge");
    }
    Ok(report)
}

/// How long something took, and how long it may.
struct Measured {
    what: &'static str,
    verb: Verb,
    took: Duration,
    limit: Duration,
    /// How late the machine woke a thread meanwhile: as much later this may have ended by no fault of
    /// its own.
    machine: Duration,
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

type Play = for<'a> fn(Scene<'a>, Verb) -> Result<Measured>;

/// A client that is there when it begins to hang and one that comes later, a worker, and the ends of
/// both.
const SCENES: [Play; 5] = [
    |scene, verb| scene.calling(verb),
    |scene, verb| scene.coming(verb),
    |scene, verb| scene.serving(verb),
    |scene, verb| scene.closing(verb),
    |scene, verb| scene.dropping(verb),
];

impl<'a> Scene<'a> {
    fn set(setting: &'a Setting, work: &'a std::path::Path, book: &'a Arc<Book>) -> Self {
        let broker = MemoryBroker::new();
        let mut healthy = setting.clone();
        healthy.transport = Transport::Memory;
        Self {
            setting,
            book,
            stuck: StuckBroker::new(broker.clone()),
            healthy,
            place: Place::Memory(broker),
            options: ServingOptions::new(ground::queue("hang"), QueueChoice::Durable),
            work,
        }
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
        self.call_within(session, DEADLINE).0
    }

    /// How long a call took, and whether it was answered right.
    fn call_within(&self, session: &Session, timeout: Duration) -> (Duration, bool) {
        let ask = Ask::new(self.book.open(timeout));
        let begun = Instant::now();
        let result = session.call(&ask, timeout);
        let took = begun.elapsed();
        let right = result.as_ref().is_ok_and(|answer| *answer == ask.answer());
        self.book.close(&ask, &result);
        (took, right)
    }

    /// All is well before anything hangs, or else nothing is shown.
    fn warm_up(&self, session: &Session) -> Result<()> {
        let (took, right) = self.call_within(session, WARM_UP);
        if !right {
            bail!("a call on a connection that works was not answered in {took:?}");
        }
        Ok(())
    }

    /// A call on a connection that begins to hang.
    fn calling(self, verb: Verb) -> Result<Measured> {
        let server = self.serve(&self.healthy, &self.place)?;
        let session = self.stuck_session()?;
        self.warm_up(&session)?;
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
        self.warm_up(&session)?;
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
        Ok(Measured::new(
            "a drain",
            verb,
            took,
            DEADLINE + server_closes(verb),
        ))
    }

    /// A client that is closed with a call open: nobody serves, and it waits for somebody who does.
    fn closing(self, verb: Verb) -> Result<Measured> {
        let session = self.stuck_session()?;
        self.stuck.stick(Some(verb));
        let took = thread::scope(|scope| {
            scope.spawn(|| self.call(&session));
            let deadline = Instant::now() + WARM_UP;
            while session.in_flight() == 0 && Instant::now() < deadline {
                thread::sleep(LOOK);
            }
            let begun = Instant::now();
            session.close();
            begun.elapsed()
        });
        self.stuck.stick(None);
        Ok(Measured::new("a close", verb, took, client_closes(verb)))
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
            machine: Duration::ZERO,
        }
    }
}

/// What a client may take to close: a moment, unless what hangs is what it needs for that. Then it
/// gives up its reply address after a second, and its transport after three more.
const fn client_closes(verb: Verb) -> Duration {
    match verb {
        Verb::Publish | Verb::Recv | Verb::Cancel | Verb::Close => Duration::from_secs(4),
        _ => MOMENT,
    }
}

/// What a drain may take beyond its limit: a moment, or the time after which it gives its transport up.
const fn server_closes(verb: Verb) -> Duration {
    match verb {
        Verb::Connect | Verb::Declare | Verb::Consume => MOMENT,
        _ => Duration::from_secs(3),
    }
}

const DEADLINE: Duration = Duration::from_millis(300);

/// For what is not measured.
const WARM_UP: Duration = Duration::from_secs(10);

/// Threads end, one after the other, on a machine that is busy with other things.
const MOMENT: Duration = Duration::from_millis(400);

const LOOK: Duration = Duration::from_millis(1);

const SPARE: Duration = Duration::from_millis(100);
