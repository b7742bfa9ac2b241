//! How the simulated broker takes messages back, drops them, and loses connections.

use super::{Broker, Entry};
use crate::conn::{ConnId, Lane};
use crate::ledger::{DELIVERY_LIMIT, Ledger, REJECTED};
use crate::wire::Wire;
use crate::worker::QUARANTINE;

impl Broker {
    pub(super) fn ack(&mut self, wire: &mut Wire, ledger: &mut Ledger, id: u64, tag: u64) {
        let Some(consumer) = self.consumers.get_mut(&id) else {
            // Cancelled or not, RabbitMQ takes the acknowledgement while its channel lives; here a
            // consumer lives as long as its connection.
            return;
        };
        let place = consumer.queue;
        let Some(entry) = consumer.unacked.remove(&tag) else {
            ledger.unknown_tag(id, tag);
            return;
        };
        wire.trace("broker.ack", [id, tag, ledger.number(&entry.message)]);
        if let Some(queue) = &mut self.queues[place] {
            let in_quarantine = queue.declare.name == QUARANTINE;
            ledger.acknowledged(&entry.message, in_quarantine);
            queue.settle(entry, wire.now);
        }
        self.pump(wire, ledger, place);
    }

    pub(super) fn reject(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        id: u64,
        tag: u64,
        requeue: bool,
    ) {
        let Some(consumer) = self.consumers.get_mut(&id) else {
            return;
        };
        let place = consumer.queue;
        let Some(entry) = consumer.unacked.remove(&tag) else {
            ledger.unknown_tag(id, tag);
            return;
        };
        let call = ledger.number(&entry.message);
        wire.trace("broker.reject", [id, tag, call]);
        if requeue {
            self.requeue(wire, ledger, place, entry);
        } else {
            ledger.discarded(&entry.message);
            self.dead_letter(wire, ledger, place, &entry, REJECTED);
            if let Some(queue) = &mut self.queues[place] {
                queue.settle(entry, wire.now);
            }
        }
        self.pump(wire, ledger, place);
    }

    /// Ends a consumer. What it holds can still be settled; so it stays, out of its queue's round.
    pub(super) fn cancel(&mut self, wire: &mut Wire, ledger: &mut Ledger, id: u64) {
        let Some(place) = self.consumers.get(&id).map(|consumer| consumer.queue) else {
            return;
        };
        if let Some(queue) = &mut self.queues[place] {
            queue.consumers.retain(|&other| other != id);
            if queue.declare.auto_delete && queue.consumers.is_empty() {
                self.delete(wire, ledger, place);
            }
        }
    }

    /// A lane has ended. What was delivered on it comes back, and its inbox is gone.
    pub(super) fn lost(&mut self, wire: &mut Wire, ledger: &mut Ledger, id: ConnId, lane: Lane) {
        if !wire.conn(id).open_there[lane as usize] {
            return;
        }
        wire.trace("broker.lost", [id.0 as u64, lane as u64, 0]);
        wire.end_down(id, lane);
        if lane == Lane::Publish {
            return;
        }
        let consumers: Vec<_> = self
            .consumers
            .iter()
            .filter(|(_, consumer)| consumer.conn == id)
            .map(|(&consumer, _)| consumer)
            .collect();
        for consumer in consumers {
            self.cancel(wire, ledger, consumer);
            let Some(consumer) = self.consumers.remove(&consumer) else {
                continue;
            };
            for entry in consumer.unacked.into_values() {
                self.requeue(wire, ledger, consumer.queue, entry);
            }
            self.pump(wire, ledger, consumer.queue);
        }
        for place in 0..self.queues.len() {
            let queue = self.queues[place].as_ref();
            if queue.is_some_and(|queue| queue.exclusive == Some(id)) {
                self.delete(wire, ledger, place);
            }
        }
    }

    fn requeue(&mut self, wire: &mut Wire, ledger: &mut Ledger, place: usize, entry: Entry) {
        let Some(queue) = &mut self.queues[place] else {
            ledger.gone(&entry.message, "lost");
            return;
        };
        if queue.gives_up(&entry) {
            self.dead_letter(wire, ledger, place, &entry, DELIVERY_LIMIT);
            return;
        }
        queue.take_back(entry);
    }

    pub(super) fn dead_letter(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        place: usize,
        entry: &Entry,
        cause: &'static str,
    ) {
        let target = self.queues[place]
            .as_ref()
            .and_then(|queue| queue.declare.dead_letter.as_ref())
            .and_then(|name| self.names.get(name))
            .copied();
        ledger.gone(&entry.message, cause);
        let Some(queue) = target.and_then(|target| self.queues[target].as_mut()) else {
            return;
        };
        let call = ledger.number(&entry.message);
        wire.trace("broker.dead", [place as u64, entry.serial, call]);
        let mut message = (*entry.message).clone();
        // As RabbitMQ does, or it would die a second time.
        message.expiration = None;
        let _ = message.headers.insert("x-first-death-reason", cause);
        let serial = self.next_serial;
        self.next_serial += 1;
        queue.push(serial, std::rc::Rc::new(message), wire.now);
        ledger.dead_lettered(&entry.message, cause);
    }

    pub(super) fn delete(&mut self, wire: &mut Wire, ledger: &mut Ledger, place: usize) {
        let Some(queue) = self.queues[place].take() else {
            return;
        };
        wire.trace("broker.delete", [place as u64, queue.len() as u64, 0]);
        self.names.remove(&queue.declare.name);
        let is_inbox = queue.exclusive.is_some();
        for entry in queue.into_entries() {
            if !is_inbox {
                ledger.gone(&entry.message, "lost");
            }
        }
    }

    /// Drops what has expired by now, everywhere.
    pub(crate) fn sweep(&mut self, wire: &mut Wire, ledger: &mut Ledger) {
        for place in 0..self.queues.len() {
            self.drop_expired(wire, ledger, place);
        }
    }
}
