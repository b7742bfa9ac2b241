//! A simulated worker process: the driver of the server steps, without tasks.
//!
//! What it does and in which order is that of rpc-core's server driver: accept, wait for a slot and
//! a turn, begin, run, reply, wait for the confirm, settle. It takes no decision of its own.

mod doubts;
mod drain;
mod intake;
mod options;
mod settle;
mod turns;
mod watch;
mod work;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use rpc_proto::link::Generation;
use rpc_proto::server::{Acceptor, AfterForward, AfterReply, GivenUp, Intake, Part, Running, Turn};
use rpc_proto::{ErrorKind, ShortString};

use self::doubts::Doubts;
use self::options::{policy, topology};
use self::turns::Waiting;
pub(crate) use self::watch::{MAX_SKEW, answer};
use self::watch::{Taken, Watch};
use crate::conn::{ConnId, Down, Open, Owner};
use crate::event::Wake;
use crate::home::{Arrival, Home};
use crate::ledger::Ledger;
use crate::peer::error;
use crate::setting::Setting;
use crate::time::Micros;
use crate::wire::Wire;

/// Whether the process still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Lives,
    /// A request has killed it.
    Dies,
    /// It has drained, and ends by itself.
    Ends,
}

/// A worker process.
#[derive(Debug)]
pub(crate) struct Worker {
    number: usize,
    home: Home<u64>,
    acceptor: Acceptor,
    /// Those of the present connection, in the order of its consumers after the inbox.
    intakes: Vec<Intake>,
    concurrency: usize,
    settle_timeout: Micros,
    open: Open,
    /// On the blocking face all that is to be done waits for a thread, and not only what is to run.
    blocking: bool,
    waiting: VecDeque<Waiting>,
    /// When something that waits for its turn is to be looked at again, whatever else happens.
    turn_at: Option<Instant>,
    running: BTreeMap<u64, AtWork>,
    /// Handlers that did not come back by their deadline; without a token each takes a place.
    away: BTreeMap<u64, (Part, Option<GivenUp>)>,
    /// What was published and is not confirmed yet.
    sent: BTreeMap<u64, Sent>,
    next: u64,
    drain: Drain,
    armed: Micros,
    watch: Watch,
    doubts: Doubts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    No,
    /// The consumers are being cancelled: so many are left.
    Asked(usize),
    /// Nothing begins any more.
    Stopped,
}

/// What the ledger knows a request by, and its turn until it is settled.
#[derive(Debug)]
struct Origin {
    correlation_id: Option<ShortString>,
    /// Of the connection it came by.
    generation: Generation,
    taken: Taken,
    /// It is one of those that were answered together with another; which, only the machine knows.
    joined: bool,
    /// Held until it is settled, or until its handler has ended if that need not run apart.
    turn: Option<Turn>,
    /// It has waited for its turn as long as it has to, and went on beside others.
    forced: bool,
}

impl Origin {
    fn part(&self) -> Part {
        self.turn.as_ref().map_or(Part::Work, Turn::part)
    }
}

/// A handler that runs.
#[derive(Debug)]
struct AtWork {
    call: usize,
    message_id: Option<ShortString>,
    running: Running,
    origin: Origin,
    record: Option<(usize, usize)>,
    plan: Planned,
    /// It cannot be stopped, and comes back by itself then.
    blocks: Option<Micros>,
}

/// Something on its way whose confirm decides what comes next.
#[derive(Debug)]
struct Sent {
    then: Then,
    origin: Origin,
    /// It says that its request is poison.
    poison: bool,
    tag: u64,
    until: Micros,
}

#[derive(Debug)]
enum Then {
    Forward(AfterForward),
    Reply(AfterReply),
}

/// How a handler will end.
#[derive(Clone, Copy, Debug)]
enum Planned {
    Answer(usize),
    Fail,
    Kill,
    Panic,
    TimeOut,
    /// It has no thread yet.
    Wait,
}

/// The service's queue.
pub(crate) const QUEUE: ShortString = ShortString::from_static("work");
/// Where its suspects run.
pub(crate) const QUARANTINE: ShortString = ShortString::from_static("work.quarantine");
/// Where its dead letters go.
pub(crate) const DEAD: ShortString = ShortString::from_static("work.dead");

impl Worker {
    pub(crate) fn new(
        wire: &Wire,
        owner: Owner,
        number: usize,
        setting: &Setting,
        seed: u64,
    ) -> Self {
        Self {
            number,
            home: Home::new(wire, owner, seed, false),
            acceptor: Acceptor::new(policy(setting)).with_concurrency(setting.concurrency),
            intakes: Vec::new(),
            concurrency: setting.concurrency,
            settle_timeout: setting.settle_timeout,
            open: topology(setting),
            blocking: setting.blocking,
            waiting: VecDeque::new(),
            turn_at: None,
            running: BTreeMap::new(),
            away: BTreeMap::new(),
            sent: BTreeMap::new(),
            next: 0,
            drain: Drain::No,
            armed: 0,
            watch: Watch::new(number),
            doubts: Doubts::default(),
        }
    }

    /// Something came from the broker.
    pub(crate) fn handle(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        (conn, frame): (ConnId, Down),
    ) -> Fate {
        match self.home.handle(wire, conn, frame) {
            Arrival::Up => self.move_in(),
            Arrival::News(news) => self.news(wire, ledger, setting, news),
            Arrival::Nothing => {}
        }
        self.begin_next(wire, ledger, setting);
        self.go_on(wire)
    }

    pub(crate) fn wake(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        wake: Wake,
    ) -> Fate {
        match wake {
            Wake::Timer => {
                self.armed = 0;
                self.time_out(wire, ledger, setting);
            }
            Wake::DialTimeout(conn) => {
                self.home.dial_timeout(wire, conn);
            }
            Wake::Notice(number) => self.notice(wire, number),
            Wake::Thread(number) => self.thread(wire, ledger, setting, number),
            Wake::Handler(number) => {
                if self.handler_ends(wire, ledger, setting, number) == Fate::Dies {
                    return Fate::Dies;
                }
            }
            Wake::Returned(number) => {
                self.away.remove(&number);
            }
            Wake::DrainTimeout => {
                self.home.close(wire);
                return Fate::Ends;
            }
            Wake::GiveUp(_) | Wake::Retry(_) => {}
        }
        self.begin_next(wire, ledger, setting);
        self.go_on(wire)
    }

    /// After a start, after a pause, and after everything that happens.
    pub(crate) fn go_on(&mut self, wire: &mut Wire) -> Fate {
        if self.drain == Drain::Stopped && self.is_idle() {
            self.home.close(wire);
            return Fate::Ends;
        }
        // Whoever drains needs no other connection.
        let dial = (self.drain == Drain::No)
            .then(|| self.home.poll(wire, || self.open.clone()))
            .flatten();
        let settle = self.sent.values().map(|sent| sent.until).min();
        let turn = self.turn_at.map(|at| wire.clock.micros(at));
        let next = dial.into_iter().chain(settle).chain(turn).min();
        if let Some(at) = next
            && (self.armed == 0 || at < self.armed)
        {
            self.armed = at;
            wire.wake(self.home.owner, at, Wake::Timer);
        }
        Fate::Lives
    }

    pub(crate) fn is_up(&self) -> bool {
        self.home.is_up()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty() && self.sent.is_empty()
    }

    /// Where the machine counts other handlers as stuck than are.
    pub(crate) fn miscounted(&self) -> Option<String> {
        let away = self
            .away
            .values()
            .filter(|(_, given_up)| given_up.is_some());
        let (away, stuck) = (away.count(), self.acceptor.stuck());
        (away != stuck).then(|| format!("counts {stuck} handlers as stuck, and {away} are"))
    }

    /// Gives up on what was published and is not confirmed in time.
    fn time_out(&mut self, wire: &mut Wire, ledger: &mut Ledger, setting: &Setting) {
        let late = |sent: &&Sent| sent.until <= wire.now;
        let tags: Vec<_> = self.sent.values().filter(late).map(|s| s.tag).collect();
        for tag in tags {
            let number = self.home.peer.as_mut().and_then(|peer| peer.forget(tag));
            if let Some(number) = number {
                let late = Err(error(ErrorKind::Timeout));
                self.confirmed(wire, ledger, setting, number, late);
            }
        }
    }
}
