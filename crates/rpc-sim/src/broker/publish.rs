//! What the simulated broker does with a message: return it, refuse it, or take it and say so.

use std::rc::Rc;

use rpc_proto::{DeliveryMode, HeaderValue, Message, ShortString, wire as form};

use super::Broker;
use crate::chaos;
use crate::conn::{ConnId, Down, Lane};
use crate::event::Event;
use crate::ledger::Ledger;
use crate::mix::Fault;
use crate::time::MS;
use crate::wire::Wire;
use crate::worker::QUARANTINE;

impl Broker {
    pub(super) fn publish(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        (id, tag): (ConnId, u64),
        to: &ShortString,
        message: &Rc<Message>,
    ) {
        let place = self.names.get(to).copied();
        let queue = place.and_then(|place| self.queues[place].as_mut());
        let (Some(place), Some(queue)) = (place, queue) else {
            wire.trace("broker.return", [id.0 as u64, tag, ledger.number(message)]);
            ledger.answered(message);
            wire.send_down(id, Lane::Publish, Down::Return { tag });
            wire.send_down(id, Lane::Publish, Down::Confirm { tag, ok: true });
            return;
        };
        if queue.is_full() {
            wire.trace("broker.full", [id.0 as u64, tag, 0]);
            if *to == QUARANTINE {
                ledger.turned_away(message);
            }
            wire.send_down(id, Lane::Publish, Down::Confirm { tag, ok: false });
            return;
        }
        let is_inbox = queue.exclusive.is_some();
        let synced = queue.declare.durable;
        let twice = is_inbox && strikes(wire, Fault::DuplicateReply, 60);
        let foreign = is_inbox && strikes(wire, Fault::ForeignReply, 200);
        let foreign = if foreign {
            foreign_status(message, wire.rng().below(4))
        } else {
            None
        };
        let message = foreign.as_ref().unwrap_or(message);
        let serial = self.next_serial;
        self.next_serial += 1;
        queue.push(serial, Rc::clone(message), wire.now);
        wire.trace(
            "broker.take",
            [place as u64, serial, ledger.number(message)],
        );
        if is_inbox {
            ledger.answered(message);
            // The worst moment: the answer is out, and the acknowledgement will be lost. Worst of all
            // where it says that nothing ran.
            let refusal = message.headers.get(form::REASON).is_some();
            if strikes(wire, Fault::Cut, if refusal { 60 } else { 10 }) {
                chaos::cut_lane(wire, id, Lane::Consume);
            }
            if twice {
                wire.trace("broker.twice", [id.0 as u64, tag, serial]);
                queue.push(serial, Rc::clone(message), wire.now);
            }
        }
        if synced {
            self.unconfirmed.insert(serial, Rc::clone(message));
            let wait = wire.rng().heavy(2 * MS);
            let ok = !strikes(wire, Fault::Nack, 40);
            if *to == QUARANTINE {
                ledger.quarantined(message, ok);
            }
            let event = Event::Confirm {
                conn: id,
                tag,
                serial,
                ok,
                broker_life: self.life,
            };
            wire.after(wait, event);
        } else {
            wire.send_down(id, Lane::Publish, Down::Confirm { tag, ok: true });
        }
        self.pump(wire, ledger, place);
    }

    /// The disk has it.
    pub(crate) fn confirm(&mut self, wire: &mut Wire, ledger: &mut Ledger, at: Confirmed) {
        if self.life != at.broker_life {
            return;
        }
        let message = self.unconfirmed.remove(&at.serial);
        // Whether or not its word arrives, it has given it.
        if let Some(message) = message
            && at.ok
            && message.delivery_mode == DeliveryMode::Persistent
        {
            ledger.confirmed(&message);
        }
        if wire.conn(at.conn).open_there[Lane::Publish as usize] {
            let (tag, ok) = (at.tag, at.ok);
            wire.send_down(at.conn, Lane::Publish, Down::Confirm { tag, ok });
        }
    }
}

/// A message that has reached the disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Confirmed {
    pub(crate) conn: ConnId,
    pub(crate) tag: u64,
    pub(crate) serial: u64,
    pub(crate) ok: bool,
    pub(crate) broker_life: u32,
}

/// Whether a fault happens at this occasion.
fn strikes(wire: &mut Wire, fault: Fault, per_mille: u64) -> bool {
    let mix = wire.mix;
    mix.strikes(wire.rng(), fault, per_mille) && !wire.healed
}

/// The same error of a handler, as a peer says it that has its own idea of statuses; nothing for any
/// other message.
fn foreign_status(message: &Message, kind: u64) -> Option<Rc<Message>> {
    let origin = message.headers.get(form::ORIGIN)?.as_text()?;
    if origin != "handler" {
        return None;
    }
    let mut foreign = message.clone();
    let status = match kind {
        0 => HeaderValue::Int(99),
        1 => HeaderValue::Int(-3),
        2 => HeaderValue::from("no number"),
        _ => HeaderValue::from(" 11 "),
    };
    foreign.headers.insert(form::STATUS, status).ok()?;
    Some(Rc::new(foreign))
}
