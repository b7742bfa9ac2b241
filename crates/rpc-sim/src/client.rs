//! A simulated client process: the driver of the client machine, without tasks.
//!
//! What it does and in which order is that of rpc-core's client driver: open the call, publish,
//! wait for reply and confirm at once, end at the deadline. It takes no decision of its own.

use std::collections::BTreeMap;

use rpc_proto::client::{Calls, Ended, Limits, Request};
use rpc_proto::{Address, CallError, CallId, DeliveryMode, ErrorKind, Headers, TransportError};

use crate::conn::{ConnId, Down, Open, Owner};
use crate::event::Wake;
use crate::home::{Arrival, Home};
use crate::ledger::{End, Ledger};
use crate::peer::News;
use crate::rng::Rng;
use crate::rule::Rule;
use crate::setting::Setting;
use crate::time::Micros;
use crate::wire::Wire;
use crate::worker::{QUEUE, answer};

/// A client process.
#[derive(Debug)]
pub(crate) struct Client {
    number: usize,
    home: Home<CallId>,
    calls: Calls<usize>,
    open: BTreeMap<usize, CallId>,
    limits: Limits,
    rng: Rng,
    durable: bool,
    armed: Micros,
    /// When the process last went on after a pause.
    pub(crate) resumed: Micros,
}

impl Client {
    pub(crate) fn new(
        wire: &Wire,
        owner: Owner,
        number: usize,
        setting: &Setting,
        seed: u64,
    ) -> Self {
        let mut limits = Limits::default();
        limits.max_in_flight = setting.max_in_flight;
        Self {
            number,
            home: Home::new(wire, owner, seed),
            calls: Calls::new(limits),
            open: BTreeMap::new(),
            limits,
            rng: Rng::new(seed, 7),
            durable: setting.durable,
            armed: 0,
            resumed: 0,
        }
    }

    /// A caller begins.
    pub(crate) fn call(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        call: usize,
    ) {
        let plan = setting.calls[call];
        let deadline = wire.now + plan.timeout;
        wire.trace("call", [call as u64, self.number as u64, plan.timeout]);
        ledger.begun(call, deadline);
        if let Some(wait) = plan.give_up_after {
            wire.wake(self.home.owner, wire.now + wait, Wake::GiveUp(call));
        }
        self.attempt(wire, ledger, setting, call);
        self.go_on(wire, ledger, setting);
    }

    /// Something came from the broker.
    pub(crate) fn handle(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        (conn, frame): (ConnId, Down),
    ) {
        match self.home.handle(wire, conn, frame) {
            Arrival::Up => self.calls = Calls::new(self.limits),
            Arrival::News(news) => self.news(wire, news),
            Arrival::Nothing => {}
        }
        self.go_on(wire, ledger, setting);
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
                self.calls.handle_timeout(wire.instant());
            }
            Wake::DialTimeout(conn) => self.home.dial_timeout(wire, conn),
            Wake::GiveUp(call) => self.give_up(wire, ledger, call),
            Wake::Retry(_) | Wake::Handler(_) | Wake::DrainTimeout => {}
        }
        self.go_on(wire, ledger, setting);
    }

    /// After a start, after a pause, and after everything that happens.
    pub(crate) fn go_on(&mut self, wire: &mut Wire, ledger: &mut Ledger, _setting: &Setting) {
        self.tell(wire, ledger);
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
        self.calls.in_flight()
    }

    /// The process is killed: its callers are gone with it.
    pub(crate) fn killed(&mut self, ledger: &mut Ledger) {
        for &call in self.open.keys() {
            ledger.calls[call].orphaned = true;
        }
    }

    fn attempt(&mut self, wire: &mut Wire, ledger: &mut Ledger, setting: &Setting, call: usize) {
        let id = CallId::from_bits(self.rng.bits());
        let request = Request {
            body: call.to_string().into(),
            content_type: None,
            delivery_mode: if self.durable {
                DeliveryMode::Persistent
            } else {
                DeliveryMode::Transient
            },
            headers: Headers::new(),
            method: None,
        };
        let deadline = wire.now + setting.calls[call].timeout;
        let deadline = wire.clock.instant(deadline);
        let Some(peer) = self.home.peer.as_mut().filter(|peer| peer.open) else {
            let cause = TransportError::new(ErrorKind::Closed, "sim", "call");
            let error = CallError::NotSent(cause);
            return self.ended(wire, ledger, call, Err(error));
        };
        let started = self
            .calls
            .start(wire.instant(), id, request, &peer.inbox, deadline, call);
        match started {
            Err(error) => self.ended(wire, ledger, call, Err(error)),
            Ok(message) => {
                self.open.insert(call, id);
                ledger.attempt(call, &message);
                let sent = peer.publish(wire, &Address::queue(QUEUE), message, id);
                if let Err(error) = sent {
                    self.calls.handle_publish(id, Err(error));
                }
            }
        }
    }

    fn news(&mut self, wire: &mut Wire, news: News<CallId>) {
        match news {
            News::Confirmed(id, result) => self.calls.handle_publish(id, result),
            News::Delivery(_, deliver) => {
                wire.trace("client.reply", [self.number as u64, deliver.tag, 0]);
                self.calls.handle_reply((*deliver.message).clone());
            }
            News::Cancelled(_) => {
                let news = self.home.leave(wire);
                self.news(wire, news);
            }
            News::Ended(cause, ids) => {
                let confirms_first = self.rng.chance(500);
                if !confirms_first {
                    self.calls.handle_disconnect(cause.clone());
                }
                for id in ids {
                    self.calls.handle_publish(id, Err(cause.clone()));
                }
                self.calls.handle_disconnect(cause);
            }
            News::CancelOk | News::Unblocked | News::Nothing => {}
        }
    }

    fn give_up(&mut self, wire: &mut Wire, ledger: &mut Ledger, call: usize) {
        let Some(id) = self.open.remove(&call) else {
            return;
        };
        wire.trace("call.give-up", [call as u64, 0, 0]);
        self.calls.cancel(id);
        ledger.ended(call, End::GivenUp, self.resumed);
    }

    /// Passes on what has ended.
    fn tell(&mut self, wire: &mut Wire, ledger: &mut Ledger) {
        let mut ended: Vec<_> = std::iter::from_fn(|| self.calls.poll_ended()).collect();
        ended.sort_by_key(|ended| ended.waiter);
        for Ended { result, waiter } in ended {
            let result = result.map(|reply| reply.body);
            if let Ok(body) = &result
                && *body != answer(waiter)
            {
                let detail = format!("{body:?} instead of {}", answer(waiter));
                ledger.breach(Rule::RightAnswer, Some(waiter), detail);
            }
            self.ended(wire, ledger, waiter, result.map(|_| ()));
        }
    }

    fn ended(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        call: usize,
        result: Result<(), CallError>,
    ) {
        self.open.remove(&call);
        let end = match result {
            Ok(()) => End::Ok,
            Err(error) => {
                ledger.attempt_failed(call, error.certainty(), None);
                End::Failed(error.certainty(), error.reason().to_string())
            }
        };
        wire.trace("call.end", [call as u64, u64::from(end == End::Ok), 0]);
        ledger.ended(call, end, self.resumed);
    }
}
