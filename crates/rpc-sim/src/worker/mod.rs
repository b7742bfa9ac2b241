//! A simulated worker process: the driver of the server steps, without tasks.
//!
//! What it does and in which order is that of rpc-core's server driver: accept, wait for a slot and
//! a turn, begin, run, reply, wait for the confirm, settle. It takes no decision of its own.

mod options;
mod settle;
mod turns;
mod watch;
mod work;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use rpc_proto::link::Generation;
use rpc_proto::server::{
    Accepted, Acceptor, AfterForward, AfterReply, Forward, GivenUp, Intake, Job, Lane as Source,
    Part, Running, Turn,
};
use rpc_proto::{
    AckToken, Delivery, ErrorKind, Expiration, LONGEST_WAIT, ShortString, deadline_after,
    wire as form,
};

use self::options::{policy, topology};
use self::watch::Watch;
pub(crate) use self::watch::answer;
use crate::conn::{ConnId, Deliver, Down, Open, Owner};
use crate::event::Wake;
use crate::home::{Arrival, Home};
use crate::ledger::Ledger;
use crate::peer::{News, error};
use crate::setting::Setting;
use crate::time::{MS, Micros};
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
    waiting: VecDeque<(Job, Origin)>,
    /// What is to be passed on to quarantine, and until when it is of use.
    forwards: VecDeque<(Forward, Instant, Origin)>,
    /// When something that waits for its turn has it at the latest.
    turn_at: Option<Instant>,
    running: BTreeMap<u64, AtWork>,
    /// Handlers that did not come back by their deadline; without a token each takes a slot.
    away: BTreeMap<u64, Option<GivenUp>>,
    /// What was published and is not confirmed yet.
    sent: BTreeMap<u64, Sent>,
    next: u64,
    drain: Drain,
    armed: Micros,
    watch: Watch,
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
    redelivered: bool,
    /// It is one of those that were answered together with another; which, only the machine knows.
    joined: bool,
    turn: Option<Turn>,
    /// Since when it waits for its turn, and how long it does.
    asked: Option<(Micros, Micros)>,
    /// It has waited for that long, and went on.
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
            waiting: VecDeque::new(),
            forwards: VecDeque::new(),
            turn_at: None,
            running: BTreeMap::new(),
            away: BTreeMap::new(),
            sent: BTreeMap::new(),
            next: 0,
            drain: Drain::No,
            armed: 0,
            watch: Watch::new(),
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

    /// Begins to drain.
    pub(crate) fn drain(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
    ) -> Fate {
        if self.drain != Drain::No {
            return Fate::Lives;
        }
        wire.trace("worker.drain", [self.number as u64, 0, 0]);
        let limit = wire.now + DRAIN_LIMIT;
        wire.wake(self.home.owner, limit, Wake::DrainTimeout);
        match &self.home.peer {
            Some(peer) if peer.open => {
                self.drain = Drain::Asked(self.intakes.len());
                for place in 1..=self.intakes.len() {
                    peer.cancel(wire, place);
                }
            }
            _ => {
                self.home.close(wire);
                self.stop(wire, ledger, setting);
            }
        }
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
        let none_waits = self.waiting.is_empty() && self.forwards.is_empty();
        none_waits && self.running.is_empty() && self.sent.is_empty()
    }

    fn move_in(&mut self) {
        let Some(peer) = &self.home.peer else { return };
        self.acceptor.set_control(Some(peer.inbox.clone()));
        self.intakes = [Source::Work, Source::Quarantine]
            .into_iter()
            .take(peer.consumers.len() - 1)
            .map(|source| self.acceptor.intake(source))
            .collect();
    }

    fn news(&mut self, wire: &mut Wire, ledger: &mut Ledger, setting: &Setting, news: News<u64>) {
        match news {
            News::Confirmed(number, result) => {
                self.confirmed(wire, ledger, setting, number, result);
            }
            News::Delivery(0, deliver) => {
                if self.acceptor.handle_cancel(&deliver.message) {
                    self.stop_cancelled(wire, ledger, setting);
                }
            }
            News::Delivery(place, deliver) => {
                self.deliver(wire, ledger, setting, place, &deliver);
            }
            News::CancelOk => {
                if let Drain::Asked(left) = &mut self.drain {
                    *left -= 1;
                    if *left == 0 {
                        self.stop(wire, ledger, setting);
                    }
                }
            }
            News::Cancelled => {
                // What has begun still needs the transport, where no other is to come.
                if self.drain == Drain::No {
                    let news = self.home.leave(wire);
                    self.news(wire, ledger, setting, news);
                }
            }
            News::Ended(cause, open) => {
                self.intakes.clear();
                self.acceptor.set_control(None);
                for number in open {
                    self.confirmed(wire, ledger, setting, number, Err(cause.clone()));
                }
                self.begin_next(wire, ledger, setting);
                if matches!(self.drain, Drain::Asked(_)) {
                    self.stop(wire, ledger, setting);
                }
            }
            News::Unblocked | News::Nothing => {}
        }
    }

    fn deliver(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        place: usize,
        deliver: &Deliver,
    ) {
        let (Some(peer), Some(intake)) = (&self.home.peer, self.intakes.get(place - 1)) else {
            return;
        };
        let mut message = (*deliver.message).clone();
        if let Some(failures) = deliver.failures.filter(|&failures| failures > 0) {
            let count = i64::from(failures);
            let _ = message.headers.insert(form::DELIVERY_COUNT, count);
        }
        let delivery = Delivery {
            message,
            received_at: wire.instant(),
            redelivered: deliver.redelivered,
            token: Some(AckToken::new(peer.consumers[place].1, deliver.tag)),
        };
        wire.trace(
            "worker.take",
            [
                self.number as u64,
                deliver.tag,
                u64::from(deliver.redelivered),
            ],
        );
        let unix_ms = setting.unix_ms(self.home.owner.process, wire.now);
        let accepted = intake.accept(delivery, wire.instant(), unix_ms);
        let origin = Origin {
            correlation_id: deliver.message.correlation_id.clone(),
            generation: self.home.generation,
            redelivered: deliver.redelivered,
            joined: false,
            turn: self.acceptor.arrive(&accepted),
            asked: None,
            forced: false,
        };
        match accepted {
            Accepted::Forward(forward) => {
                let life = forward.message.expiration.map(Expiration::as_duration);
                let until = deadline_after(wire.instant(), life.unwrap_or(LONGEST_WAIT));
                self.forwards.push_back((*forward, until, origin));
            }
            Accepted::Job(job) => self.waiting.push_back((job, origin)),
            Accepted::Joined => {}
            Accepted::Settlement(settlement) => {
                self.settle(wire, ledger, setting, settlement, origin);
            }
        }
        self.begin_next(wire, ledger, setting);
    }

    /// Lets nothing begin any more, and hands back what has not begun.
    fn stop(&mut self, wire: &mut Wire, ledger: &mut Ledger, setting: &Setting) {
        self.drain = Drain::Stopped;
        self.acceptor.drain();
        self.begin_next(wire, ledger, setting);
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

const DRAIN_LIMIT: Micros = 3_000 * MS;
