//! One call after the other: their attempts, and how they end.

use std::time::Duration;

use rpc_proto::client::{Attempts, Ended, Next, Request};
use rpc_proto::wire::Reply;
use rpc_proto::{
    Address, CallError, CallId, Certainty, DeliveryMode, ErrorKind, Headers, Message, Reason,
    TransportError,
};

use super::{Client, OpenCall, Stage};
use crate::event::Wake;
use crate::ledger::{End, Failure, Ledger};
use crate::rule::Rule;
use crate::setting::Setting;
use crate::time::Micros;
use crate::wire::Wire;
use crate::worker::{QUEUE, answer};

impl Client {
    /// A caller begins.
    pub(crate) fn call(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        call: usize,
    ) {
        let plan = setting.calls[call];
        wire.trace("call", [call as u64, self.number as u64, plan.timeout]);
        ledger.begun(call, wire.now + plan.timeout);
        if let Some(wait) = plan.give_up_after {
            wire.wake(self.home.owner, wire.now + wait, Wake::GiveUp(call));
        }
        let deadline = wire.instant() + Duration::from_micros(plan.timeout);
        let attempts = Attempts::new(self.policy, deadline, self.rng.next())
            .idempotent(plan.idempotent)
            .wait_for_ready(plan.wait_for_ready)
            .hops(plan.hops);
        let stage = Stage::Waiting {
            until: wire.instant(),
        };
        let generation = self.home.generation;
        let open = OpenCall {
            attempts,
            generation,
            stage,
        };
        self.open.insert(call, open);
        self.attempt(wire, ledger, setting, call);
        self.go_on(wire, ledger);
    }

    pub(super) fn attempt(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        call: usize,
    ) {
        let id = CallId::from_bits(self.rng.bits());
        let Some(open) = self.open.get_mut(&call) else {
            return;
        };
        let mut attempt = open.attempts.begin(wire.instant(), id);
        attempt.unix_ms = Some(setting.unix_ms(self.home.owner.process, wire.now));
        let mode = if setting.durable {
            DeliveryMode::Persistent
        } else {
            DeliveryMode::Transient
        };
        let request = Request {
            body: call.to_string().into(),
            content_type: None,
            delivery_mode: mode,
            headers: Headers::new(),
            method: None,
        };
        match self.calls.start(wire.instant(), request, attempt, call) {
            Err(error) => self.outcome(wire, ledger, call, Err(error)),
            Ok(message) => {
                open.stage = Stage::Running(id);
                open.generation = self.home.generation;
                wire.trace("attempt", [call as u64, self.number as u64, 0]);
                ledger.attempt(call, &message);
                self.hand_over(wire, setting, call, id, message);
            }
        }
    }

    /// Publishes, or waits until the broker takes messages again.
    fn hand_over(
        &mut self,
        wire: &mut Wire,
        setting: &Setting,
        call: usize,
        id: CallId,
        message: Message,
    ) {
        let blocked = self.home.peer.as_ref().is_some_and(|peer| peer.blocked);
        if blocked && setting.fail_fast {
            let cause = TransportError::new(ErrorKind::Blocked, "sim", "publish").unsent();
            self.calls.handle_publish(id, Err(cause));
        } else if blocked && setting.holds {
            let until = self.open.get(&call).map(|open| open.attempts.deadline());
            let until = until.map_or(wire.now, |until| wire.clock.micros(until));
            self.held.push((id, message, until));
        } else {
            self.publish(wire, id, message);
        }
    }

    pub(super) fn publish(&mut self, wire: &mut Wire, id: CallId, message: Message) {
        let Some(peer) = &mut self.home.peer else {
            return;
        };
        let sent = peer.publish(wire, &Address::queue(QUEUE), message, id);
        if let Err(error) = sent {
            self.calls.handle_publish(id, Err(error));
        }
    }

    /// Passes on what has ended.
    pub(super) fn tell(&mut self, wire: &mut Wire, ledger: &mut Ledger) {
        while let Some(Ended { result, waiter }) = self.calls.poll_ended() {
            self.outcome(wire, ledger, waiter, result);
        }
    }

    /// An attempt has ended.
    fn outcome(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        call: usize,
        result: Result<Reply, CallError>,
    ) {
        let waits = |open: &&OpenCall| !matches!(open.stage, Stage::Running(_));
        let waiting = self.open.values().filter(waits).count();
        let Some(open) = self.open.get_mut(&call) else {
            let detail = "an attempt ended of a call that had ended before";
            return ledger.breach(Rule::EndsOnce, Some(call), detail);
        };
        let sent = matches!(open.stage, Stage::Running(_));
        let failure = result.as_ref().err().map(|error| failure(wire.now, error));
        if let Some(failure) = failure
            && sent
        {
            ledger.attempt_failed(call, failure);
        }
        if matches!(result, Err(CallError::ConnectionLost(_)))
            && open.generation == self.home.generation
            && self.home.is_up()
        {
            let detail = "ended as lost with its connection, which lives";
            ledger.breach(Rule::LostIsLost, Some(call), detail);
        }
        if let Err(error) = &result {
            let (certainty, code) = (error.certainty() as u64, error.code().number());
            wire.trace("attempt.fail", [call as u64, certainty, code.into()]);
        }
        let now = wire.instant();
        match open.attempts.handle_outcome(now, &self.budget, result) {
            Next::Done(result) => return self.end(wire, ledger, call, result),
            // Too many wait already.
            _ if waiting >= self.max_waiting => {
                let error = open.attempts.give_up();
                return self.end(wire, ledger, call, Err(error));
            }
            Next::RetryAt(at) => {
                open.stage = Stage::Waiting { until: at };
                let at = wire.clock.micros(at);
                wire.wake(self.home.owner, at, Wake::Retry(call));
            }
            Next::WhenUp { after, until } => {
                open.stage = Stage::WhenUp { after, until };
                for at in [after, until] {
                    let at = wire.clock.micros(at);
                    wire.wake(self.home.owner, at, Wake::Retry(call));
                }
            }
        }
        if failure.is_some_and(|one| one.certainty == Certainty::MaybeExecuted && !one.loss) {
            ledger.charged(self.number, call);
        }
    }

    /// It is time for the next attempt, or too late for one.
    pub(super) fn retry(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        call: usize,
    ) {
        let Some(open) = self.open.get_mut(&call) else {
            return;
        };
        let now = wire.instant();
        match open.stage {
            Stage::Running(_) => {}
            Stage::Waiting { until } => {
                if until <= now {
                    self.attempt(wire, ledger, setting, call);
                }
            }
            Stage::WhenUp { until, .. } if until <= now => {
                let error = open.attempts.give_up();
                self.end(wire, ledger, call, Err(error));
            }
            Stage::WhenUp { after, .. } => {
                if after <= now && self.home.is_up() {
                    self.attempt(wire, ledger, setting, call);
                }
            }
        }
    }

    /// There is a connection: for those that wait for one.
    pub(super) fn arrive(&mut self, wire: &mut Wire, ledger: &mut Ledger, setting: &Setting) {
        let waiting: Vec<_> = self
            .open
            .iter()
            .filter(|(_, open)| matches!(open.stage, Stage::WhenUp { .. }))
            .map(|(&call, _)| call)
            .collect();
        for call in waiting {
            self.retry(wire, ledger, setting, call);
        }
    }

    /// What was held back is due: the transport gives it up, if the call does not come first.
    pub(super) fn unsent(&mut self, wire: &Wire) {
        let (late, held) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|&(.., until)| until <= wire.now);
        self.held = held;
        let late: Vec<(CallId, Message, Micros)> = late;
        for (id, ..) in late {
            if self.rng.chance(500) {
                let cause = TransportError::new(ErrorKind::Timeout, "sim", "publish").unsent();
                self.calls.handle_publish(id, Err(cause));
            }
        }
    }

    pub(super) fn give_up(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        call: usize,
    ) {
        let Some(open) = self.open.get(&call) else {
            return;
        };
        let dropped = setting.calls[call].dropped;
        wire.trace("call.give-up", [call as u64, u64::from(dropped), 0]);
        if !dropped {
            // Its caller waits to be told.
            match open.stage {
                Stage::Running(id) => {
                    self.held.retain(|(held, ..)| *held != id);
                    self.calls.give_up(id);
                }
                Stage::Waiting { .. } | Stage::WhenUp { .. } => {
                    let certainty = Certainty::NotExecuted;
                    let error = CallError::GivenUp { certainty };
                    self.outcome(wire, ledger, call, Err(error));
                }
            }
            return;
        }
        let Some(open) = self.open.remove(&call) else {
            return;
        };
        if let Stage::Running(id) = open.stage {
            self.held.retain(|(held, ..)| *held != id);
            self.calls.cancel(id);
        }
        ledger.ended(call, End::GivenUp, self.resumed);
    }

    /// Tells workers that nobody awaits their replies any more.
    pub(super) fn send_cancels(&mut self, wire: &mut Wire) {
        while let Some((to, message)) = self.calls.poll_cancel() {
            // Nor would it arrive while it is of use.
            let Some(peer) = self.home.peer.as_mut().filter(|peer| !peer.blocked) else {
                continue;
            };
            wire.trace("client.cancel", [self.number as u64, 0, 0]);
            peer.publish_unasked(wire, &to, message);
        }
    }

    fn end(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        call: usize,
        result: Result<Reply, CallError>,
    ) {
        self.open.remove(&call);
        let end = match result {
            Ok(reply) => {
                ledger.rewarded(self.number);
                if reply.body != answer(call) {
                    let detail = format!("{:?} instead of {}", reply.body, answer(call));
                    ledger.breach(Rule::RightAnswer, Some(call), detail);
                }
                End::Ok
            }
            Err(error) => End::Failed(error.certainty(), error.reason().to_string()),
        };
        wire.trace("call.end", [call as u64, u64::from(end == End::Ok), 0]);
        ledger.ended(call, end, self.resumed);
    }
}

/// What the ledger wants to know of an attempt that failed.
fn failure(at: Micros, error: &CallError) -> Failure {
    Failure {
        at,
        certainty: error.certainty(),
        pushback: match error {
            CallError::Remote(status) => status.pushback(),
            _ => None,
        },
        shed: error.reason() == Reason::Shed,
        loss: match error {
            CallError::Closed { .. } | CallError::ConnectionLost(_) => true,
            CallError::Publish(cause) => cause.kind() == ErrorKind::Closed,
            _ => false,
        },
    }
}
