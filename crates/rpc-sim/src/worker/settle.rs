//! What goes out of a worker: replies and forwards with their confirms, and verdicts.

use rpc_proto::server::{Forward, Forwarded, Part, Settlement, Verdict};
use rpc_proto::{Address, Certainty, ConsumerId, ErrorKind, Message, TransportError};

use super::turns::Task;
use super::{Origin, Sent, Then, Worker};
use crate::ledger::{Ledger, is_poison};
use crate::peer::closed;
use crate::rule::Rule;
use crate::setting::Setting;
use crate::time::span;
use crate::wire::Wire;

impl Worker {
    /// Reply, confirm, settle, in this order. Where the transport that the request came by is gone,
    /// its caller need not be: the reply goes out on the one that is up now.
    pub(super) fn settle(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        settlement: Settlement,
        mut origin: Origin,
    ) {
        if origin.part() == Part::Work {
            origin.turn = None;
        }
        if origin.joined && !self.is_ours(settlement.consumer()) {
            // It went back with its transport.
            return;
        }
        match settlement {
            Settlement::Settle(verdict) => {
                if let Verdict::Discard(_) | Verdict::GiveUp(_) = verdict {
                    let poison = matches!(verdict, Verdict::Discard(_));
                    let id = origin.correlation_id.as_ref();
                    self.watch.gives_up(ledger, id);
                    ledger.unanswerable(id, poison);
                }
                self.carry_out(wire, &verdict);
            }
            Settlement::Reply { to, message, then } => {
                let taken = (!origin.joined).then_some(origin.taken);
                self.watch.replies(ledger, setting, taken, &message);
                if origin.correlation_id.is_none() {
                    origin.correlation_id = message.correlation_id.clone();
                }
                let then = Then::Reply(then);
                self.send(wire, ledger, setting, (&to, message), (then, origin));
            }
        }
    }

    /// Passes a request on, by the transport that it came by.
    pub(super) fn pass_on(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        forward: Forward,
        origin: Origin,
    ) {
        let Forward { to, message, then } = forward;
        let then = Then::Forward(then);
        if origin.generation == self.home.generation {
            ledger.passes_on(origin.correlation_id.as_ref(), self.number);
            self.send(wire, ledger, setting, (&to, message), (then, origin));
        } else {
            let gone = Err(closed("publish").unsent());
            self.decide(wire, ledger, setting, then, (origin, false), gone);
        }
    }

    /// Whether a consumer is one of the transport that is up.
    fn is_ours(&self, consumer: Option<ConsumerId>) -> bool {
        let ours = |id| {
            let peer = self.home.peer.as_ref().filter(|peer| peer.open);
            peer.is_some_and(|peer| peer.consumers.iter().any(|(_, own)| *own == id))
        };
        consumer.is_some_and(ours)
    }

    /// Publishes something whose confirm decides what comes next.
    pub(super) fn send(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        (to, message): (&Address, Message),
        (then, origin): (Then, Origin),
    ) {
        let number = self.next;
        self.next += 1;
        let poison = is_poison(&message);
        // While the broker takes no messages, a reply waits for as long as it is of use.
        let lives = message
            .expiration
            .map_or(0, |left| span(left.as_duration()));
        let limit = match &self.home.peer {
            Some(peer) if peer.blocked => lives.max(self.settle_timeout),
            _ => self.settle_timeout,
        };
        let sent = match &mut self.home.peer {
            Some(peer) => peer.publish(wire, to, message, number),
            None => Err(closed("publish").unsent()),
        };
        match sent {
            Ok(tag) => {
                let until = wire.now + limit;
                let sent = Sent {
                    then,
                    origin,
                    poison,
                    tag,
                    until,
                };
                self.sent.insert(number, sent);
            }
            Err(cause) => {
                let why = (origin, poison);
                self.decide(wire, ledger, setting, then, why, Err(cause));
            }
        }
    }

    /// The verdict on something that was published is there.
    pub(super) fn confirmed(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        number: u64,
        result: Result<(), TransportError>,
    ) {
        if let Some(sent) = self.sent.remove(&number) {
            let why = (sent.origin, sent.poison);
            self.decide(wire, ledger, setting, sent.then, why, result);
        }
    }

    fn decide(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        then: Then,
        (mut origin, poison): (Origin, bool),
        result: Result<(), TransportError>,
    ) {
        let said = result.as_ref().map(|&()| ());
        match then {
            Then::Forward(then) => match then.handle_publish(said) {
                Forwarded::Run(job) => {
                    origin.turn = None;
                    self.wait(Task::Run(*job), origin);
                    self.begin_next(wire, ledger, setting);
                }
                Forwarded::Settle(verdict) => self.carry_out(wire, &verdict),
            },
            Then::Reply(then) => {
                if said.is_err_and(ends_with_connection) {
                    self.watch.struck(ledger, origin.correlation_id.as_ref());
                }
                let verdict = then.handle_publish(said);
                let kind = result.err().map(|error| error.kind());
                // What nobody can get, or what did not go out at the second delivery either.
                let hopeless = match kind {
                    Some(ErrorKind::NoRoute | ErrorKind::Refused) => true,
                    Some(ErrorKind::Timeout) => origin.taken.redelivered,
                    _ => false,
                };
                if hopeless {
                    ledger.unanswerable(origin.correlation_id.as_ref(), poison);
                    let certain = kind != Some(ErrorKind::Timeout) || !origin.joined;
                    if matches!(verdict, Verdict::Requeue(_)) && certain {
                        let call = ledger.find(origin.correlation_id.as_ref());
                        let detail = format!("requeued, and its reply failed with {kind:?}");
                        ledger.breach(Rule::RequeueEnds, call.map(|(call, _)| call), detail);
                    }
                }
                self.carry_out(wire, &verdict);
            }
        }
    }

    fn carry_out(&self, wire: &mut Wire, verdict: &Verdict) {
        let Some(peer) = &self.home.peer else { return };
        // Unsettled, the request comes again when its transport has ended.
        let _ = match verdict {
            Verdict::Ack(token) | Verdict::GiveUp(token) => peer.ack(wire, token),
            Verdict::Discard(token) => peer.reject(wire, token, false),
            Verdict::Requeue(token) => peer.reject(wire, token, true),
            Verdict::Settled => Ok(()),
        };
    }
}

/// Whether a reply was handed over, and then its connection ended.
fn ends_with_connection(error: &TransportError) -> bool {
    error.kind() == ErrorKind::Closed && error.certainty() != Certainty::NotExecuted
}
