//! A simulated client process: the driver of the client machine, without tasks.
//!
//! What it does and in which order is that of rpc-core's client driver: open the attempt, publish,
//! wait for reply and confirm at once, and when it has ended ask whether there is another. It takes
//! no decision of its own.

mod calls;

use std::collections::BTreeMap;
use std::time::Instant;

use rpc_proto::client::{Attempts, Budget, Calls, Limits, RetryPolicy};
use rpc_proto::link::Generation;
use rpc_proto::{CallId, Message};

use crate::conn::{ConnId, Down, Open, Owner};
use crate::event::Wake;
use crate::home::{Arrival, Home};
use crate::ledger::Ledger;
use crate::peer::{News, closed};
use crate::rng::Rng;
use crate::rule::Rule;
use crate::setting::Setting;
use crate::time::Micros;
use crate::wire::Wire;

/// A client process.
#[derive(Debug)]
pub(crate) struct Client {
    number: usize,
    home: Home<CallId>,
    calls: Calls<usize>,
    policy: RetryPolicy,
    budget: Budget,
    max_waiting: usize,
    /// Calls that have not ended, by their numbers in the world.
    open: BTreeMap<usize, OpenCall>,
    /// Requests that wait for the broker to take messages again.
    held: Vec<(CallId, Message, Micros)>,
    /// The generation that has ended last.
    ended: Option<Generation>,
    rng: Rng,
    armed: Micros,
    /// When the process last went on after a pause.
    pub(crate) resumed: Micros,
}

/// A call that has not ended.
#[derive(Debug)]
struct OpenCall {
    attempts: Attempts,
    /// Of the last attempt.
    generation: Generation,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// An attempt runs.
    Running(CallId),
    /// The next attempt comes at its time. There may be alarms for earlier times, of a wait before.
    Waiting { until: Instant },
    /// The next attempt comes with the next connection.
    WhenUp { after: Instant, until: Instant },
}

impl Client {
    pub(crate) fn new(
        wire: &Wire,
        ledger: &mut Ledger,
        owner: Owner,
        setting: &Setting,
        seed: u64,
    ) -> Self {
        let mut limits = Limits::default();
        limits.max_in_flight = setting.max_in_flight;
        let policy = RetryPolicy::default();
        ledger.fresh_budget(owner.process.0);
        Self {
            number: owner.process.0,
            home: Home::new(wire, owner, seed, true),
            calls: Calls::new(limits),
            policy,
            budget: Budget::new(&policy),
            max_waiting: setting.max_in_flight,
            open: BTreeMap::new(),
            held: Vec::new(),
            ended: None,
            rng: Rng::new(seed, 7),
            armed: 0,
            resumed: 0,
        }
    }

    /// Something came from the broker.
    pub(crate) fn handle(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        (conn, frame): (ConnId, Down),
    ) {
        let arrival = self.home.handle(wire, conn, frame);
        self.arrival(wire, ledger, setting, arrival);
        self.go_on(wire, ledger);
    }

    pub(crate) fn wake(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        wake: Wake,
    ) {
        match wake {
            Wake::Timer => {
                self.armed = 0;
                self.unsent(wire);
                self.calls.handle_timeout(wire.instant());
            }
            Wake::DialTimeout(conn) => {
                let arrival = self.home.dial_timeout(wire, conn);
                self.arrival(wire, ledger, setting, arrival);
            }
            Wake::GiveUp(call) => self.give_up(wire, ledger, setting, call),
            Wake::Retry(call) => self.retry(wire, ledger, setting, call),
            Wake::DrainTimeout
            | Wake::Handler(_)
            | Wake::Notice(_)
            | Wake::Returned(_)
            | Wake::Thread(_) => {}
        }
        self.go_on(wire, ledger);
    }

    /// After a start, after a pause, and after everything that happens.
    pub(crate) fn go_on(&mut self, wire: &mut Wire, ledger: &mut Ledger) {
        self.tell(wire, ledger);
        self.send_cancels(wire);
        let dial = self.home.poll(wire, Open::default);
        let calls = self
            .calls
            .poll_timeout()
            .map(|until| wire.clock.micros(until));
        let next = dial.into_iter().chain(calls).min();
        if let Some(at) = next
            && (self.armed == 0 || at < self.armed)
        {
            self.armed = at;
            wire.wake(self.home.owner, at, Wake::Timer);
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.home.is_up()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.calls.in_flight() + self.open.len()
    }

    /// Its owner ends it: all calls first, then the link.
    pub(crate) fn close(&mut self, wire: &mut Wire, ledger: &mut Ledger, setting: &Setting) {
        wire.trace("client.close", [self.number as u64, 0, 0]);
        self.calls.close();
        self.held.clear();
        self.tell(wire, ledger);
        // Whoever waits for another attempt makes it, and hears that there is none.
        let waiting: Vec<_> = self.open.keys().copied().collect();
        for call in waiting {
            self.attempt(wire, ledger, setting, call);
        }
        self.send_cancels(wire);
        self.home.close(wire);
        for &call in self.open.keys() {
            ledger.breach(
                Rule::EndsInTime,
                Some(call),
                "open, and its client is closed",
            );
        }
    }

    /// The process is killed: its callers are gone with it.
    pub(crate) fn killed(&mut self, ledger: &mut Ledger) {
        for &call in self.open.keys() {
            ledger.calls[call].orphaned = true;
        }
    }

    fn arrival(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        arrival: Arrival<CallId>,
    ) {
        match arrival {
            Arrival::Up => {
                if let Some(peer) = &self.home.peer {
                    let inbox = peer.inbox.clone();
                    self.calls.handle_connect(self.home.generation, inbox);
                }
                self.arrive(wire, ledger, setting);
                // Somebody notices only now that the connection before has ended.
                let late = self.rng.chance(200);
                if let Some(earlier) = self.ended.take().filter(|_| late) {
                    self.calls.handle_disconnect(earlier, closed("receive"));
                }
            }
            Arrival::News(news) => self.news(wire, news),
            Arrival::Nothing => {}
        }
    }

    fn news(&mut self, wire: &mut Wire, news: News<CallId>) {
        let generation = self.home.generation;
        match news {
            News::Confirmed(id, result) => self.calls.handle_publish(id, result),
            News::Delivery(_, deliver) => {
                wire.trace("client.reply", [self.number as u64, deliver.tag, 0]);
                self.calls
                    .handle_reply(generation, (*deliver.message).clone());
            }
            News::Cancelled(_) => {
                let news = self.home.leave(wire);
                self.news(wire, news);
            }
            News::Ended(cause, ids) => {
                self.held.clear();
                self.ended = Some(generation);
                // The end of the inbox and the ends of the publishes come in any order.
                if self.rng.chance(500) {
                    self.calls.handle_disconnect(generation, cause.clone());
                }
                for id in ids {
                    self.calls.handle_publish(id, Err(cause.clone()));
                }
                self.calls.handle_disconnect(generation, cause);
            }
            News::Unblocked => {
                for (id, message, until) in std::mem::take(&mut self.held) {
                    if until > wire.now {
                        self.publish(wire, id, message);
                    }
                }
            }
            News::CancelOk | News::Nothing => {}
        }
    }
}
