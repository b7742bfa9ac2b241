//! What goes wrong in the simulated broker: alarms, crashes, consumers that it ends, strays.

use rpc_proto::{CallId, Message, ShortString, wire as form};

use super::{Broker, Entry};
use crate::conn::{ConnId, Down, LANES, Lane};
use crate::ledger::{DELIVERY_LIMIT, Ledger};
use crate::pipe::Hold;
use crate::wire::Wire;

impl Broker {
    /// The alarm rings, or is over.
    pub(crate) fn set_alarm(&mut self, wire: &mut Wire, on: bool) {
        if self.alarm == on {
            return;
        }
        self.alarm = on;
        wire.trace("broker.alarm", [u64::from(on), 0, 0]);
        for id in wire.alive() {
            if on {
                self.block(wire, id);
            } else {
                wire.release(id, Lane::Publish, Hold::Alarm);
                wire.send_down(id, Lane::Publish, Down::Blocked(false));
            }
        }
    }

    pub(super) fn block(&self, wire: &mut Wire, id: ConnId) {
        if wire.conn(id).open_there[Lane::Publish as usize] {
            wire.hold_up(id, Lane::Publish, Hold::Alarm);
            wire.send_down(id, Lane::Publish, Down::Blocked(true));
        }
    }

    /// Killed: connections break, and what was not on disk is gone.
    pub(crate) fn crash(&mut self, wire: &mut Wire, ledger: &mut Ledger) {
        wire.trace("broker.crash", [u64::from(self.life), 0, 0]);
        (self.up, self.alarm) = (false, false);
        self.life += 1;
        for id in wire.alive() {
            for lane in LANES {
                wire.release(id, lane, Hold::Alarm);
                wire.conns[id.0].open_there[lane as usize] = false;
                wire.break_down(id, lane);
                wire.conns[id.0].up[lane as usize].clear();
            }
        }
        for (_, consumer) in std::mem::take(&mut self.consumers) {
            for entry in consumer.unacked.into_values() {
                let forgets = wire.rng().chance(500);
                self.come_back(wire, ledger, consumer.queue, entry, forgets);
            }
        }
        for place in 0..self.queues.len() {
            let Some(queue) = &mut self.queues[place] else {
                continue;
            };
            queue.consumers.clear();
            if !queue.declare.durable {
                self.delete(wire, ledger, place);
                continue;
            }
            for entry in queue.take_unsynced(wire.now) {
                if wire.rng().chance(500) {
                    wire.trace("broker.unsynced", [place as u64, entry.serial, 0]);
                    let forgets = wire.rng().chance(500);
                    self.come_back(wire, ledger, place, entry, forgets);
                }
            }
            let Some(queue) = &mut self.queues[place] else {
                continue;
            };
            let unconfirmed = &self.unconfirmed;
            let rng = wire.rng();
            let lost = queue.keep(|entry| {
                entry.is_persistent()
                    && (!unconfirmed.contains_key(&entry.serial) || rng.chance(500))
            });
            for entry in lost {
                wire.trace("broker.lose", [place as u64, entry.serial, 0]);
                ledger.gone(&entry.message, "lost");
            }
        }
        self.unconfirmed.clear();
    }

    /// What was delivered before a crash comes back, unless that was once too often.
    fn come_back(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        place: usize,
        entry: Entry,
        forgets: bool,
    ) {
        let Some(queue) = &mut self.queues[place] else {
            return ledger.gone(&entry.message, "lost");
        };
        if queue.gives_up(&entry) {
            self.dead_letter(wire, ledger, place, &entry, DELIVERY_LIMIT);
        } else {
            queue.recover(entry, forgets);
        }
    }

    pub(crate) fn restart(&mut self, wire: &mut Wire) {
        wire.trace("broker.restart", [u64::from(self.life), 0, 0]);
        self.up = true;
    }

    /// Ends a consumer of a shared queue, as a broker does whose queue moves; at times that of an
    /// inbox, which is deleted.
    pub(crate) fn cancel_some(&mut self, wire: &mut Wire, ledger: &mut Ledger) {
        let inbox = wire.rng().chance(200);
        let shared: Vec<_> = self
            .consumers
            .iter()
            .filter(|(_, consumer)| consumer.prefetch.is_none() == inbox)
            .map(|(&id, consumer)| (id, consumer.conn, consumer.queue))
            .collect();
        if shared.is_empty() {
            return;
        }
        let (consumer, conn, place) = wire.rng().pick(&shared);
        wire.trace("broker.cancel", [consumer, conn.0 as u64, 0]);
        self.cancel(wire, ledger, consumer);
        if inbox {
            self.delete(wire, ledger, place);
        }
        wire.send_down(conn, Lane::Consume, Down::Cancelled { consumer });
    }

    /// Something reaches a queue that nobody there can do anything with: a forged reply, a reply in
    /// the queue of requests, a request whose answer would go to that queue.
    pub(crate) fn stray(&mut self, wire: &mut Wire, ledger: &mut Ledger) {
        let places: Vec<_> = (0..self.queues.len())
            .filter(|&place| self.queues[place].is_some())
            .collect();
        if !self.up || places.is_empty() {
            return;
        }
        let place = wire.rng().pick(&places);
        let bits = wire.rng().bits();
        let kind = wire.rng().below(4);
        let Some(queue) = self.queues[place].as_mut() else {
            return;
        };
        let mut message = Message::new("stray");
        let forged = CallId::from_bits(bits).to_correlation_id();
        message.correlation_id = Some(match kind {
            0 => ShortString::from_static("not one of ours"),
            _ => forged,
        });
        let is_inbox = queue.exclusive.is_some();
        match kind {
            1 if !is_inbox => message.reply_to = Some(queue.declare.name.clone()),
            2 if !is_inbox => {}
            _ => message.kind = Some(form::REPLY_TYPE),
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        queue.push(serial, std::rc::Rc::new(message), wire.now);
        wire.trace("broker.stray", [place as u64, serial, kind]);
        self.pump(wire, ledger, place);
    }
}
