//! The simulated broker: what RabbitMQ promises, and nothing that it does not.
//!
//! Persistent messages in durable queues outlive a crash once they are confirmed, and may or may
//! not when they are not. What was delivered and not acknowledged comes back, marked; so may what
//! was acknowledged a moment ago. `redelivered = false` proves a first delivery, unless the broker
//! crashed: only quorum queues remember over that what they have delivered. A return comes before its
//! confirm. Expired messages are dropped at the head of a queue only.

mod faults;
mod publish;
mod queue;
mod settle;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use rpc_proto::{Message, ShortString};

pub(crate) use self::publish::Confirmed;
pub(crate) use self::queue::{Entry, Queue};
use crate::conn::{ConnId, Declare, Deliver, Down, Lane, Open, Opened, Up};
use crate::ledger::{EXPIRED, Ledger};
use crate::wire::Wire;
use crate::worker::QUARANTINE;

/// The broker.
#[derive(Debug, Default)]
pub(crate) struct Broker {
    pub(crate) up: bool,
    pub(crate) alarm: bool,
    /// Counts its lives: a confirm that was due in an earlier one never comes.
    pub(crate) life: u32,
    /// By name. Never walked: its order is not that of the seed.
    names: HashMap<ShortString, usize>,
    queues: Vec<Option<Queue>>,
    consumers: BTreeMap<u64, Consumer>,
    /// Messages that are not confirmed yet.
    unconfirmed: BTreeMap<u64, Rc<Message>>,
    next_serial: u64,
    next_consumer: u64,
}

#[derive(Debug)]
struct Consumer {
    conn: ConnId,
    queue: usize,
    /// None: settled by being delivered.
    prefetch: Option<usize>,
    unacked: BTreeMap<u64, Entry>,
    next_tag: u64,
}

impl Consumer {
    fn has_credit(&self) -> bool {
        self.prefetch.is_none_or(|most| self.unacked.len() < most)
    }
}

impl Broker {
    pub(crate) fn new() -> Self {
        Self {
            up: true,
            ..Self::default()
        }
    }

    /// Something came from a process.
    pub(crate) fn handle(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        (id, lane): (ConnId, Lane),
        frame: Up,
    ) {
        match frame {
            Up::Open(open) => self.open(wire, ledger, id, open),
            Up::Publish { tag, to, message } => {
                self.publish(wire, ledger, (id, tag), &to, &message);
            }
            Up::Ack { consumer, tag } => self.ack(wire, ledger, consumer, tag),
            Up::Reject {
                consumer,
                tag,
                requeue,
            } => self.reject(wire, ledger, consumer, tag, requeue),
            Up::Cancel { consumer } => {
                self.cancel(wire, ledger, consumer);
                wire.send_down(id, lane, Down::CancelOk);
            }
            Up::End => self.lost(wire, ledger, id, lane),
        }
    }

    fn open(&mut self, wire: &mut Wire, ledger: &mut Ledger, id: ConnId, open: Open) {
        if !self.up {
            wire.send_down(id, Lane::Consume, Down::Refused);
            return;
        }
        wire.trace("broker.open", [id.0 as u64, open.consume.len() as u64, 0]);
        wire.conns[id.0].open_there = [true; 2];
        for declare in open.declare {
            self.declare(declare, None);
        }
        let inbox = inbox_name(id, wire.rng().next());
        let place = self.declare(
            Declare {
                durable: false,
                ..Declare::durable(inbox.clone())
            },
            Some(id),
        );
        let inbox_consumer = self.consume(id, place, None);
        let mut consumers = Vec::new();
        for (name, prefetch) in &open.consume {
            if let Some(&place) = self.names.get(name) {
                consumers.push(self.consume(id, place, Some(*prefetch)));
            }
        }
        if consumers.len() < open.consume.len() {
            wire.send_down(id, Lane::Consume, Down::Refused);
            return;
        }
        let opened = Opened {
            inbox,
            inbox_consumer,
            consumers,
        };
        wire.send_down(id, Lane::Consume, Down::Opened(opened));
        if self.alarm {
            self.block(wire, id);
        }
        for (name, _) in open.consume {
            if let Some(&place) = self.names.get(&name) {
                self.pump(wire, ledger, place);
            }
        }
    }

    fn declare(&mut self, declare: Declare, exclusive: Option<ConnId>) -> usize {
        if let Some(&place) = self.names.get(&declare.name) {
            return place;
        }
        let place = self.queues.len();
        self.names.insert(declare.name.clone(), place);
        self.queues.push(Some(Queue::new(declare, exclusive)));
        place
    }

    fn consume(&mut self, conn: ConnId, queue: usize, prefetch: Option<usize>) -> u64 {
        let id = self.next_consumer;
        self.next_consumer += 1;
        self.consumers.insert(
            id,
            Consumer {
                conn,
                queue,
                prefetch,
                unacked: BTreeMap::new(),
                next_tag: 1,
            },
        );
        if let Some(queue) = &mut self.queues[queue] {
            queue.consumers.push_back(id);
        }
        id
    }

    /// Hands out what can be handed out.
    fn pump(&mut self, wire: &mut Wire, ledger: &mut Ledger, place: usize) {
        loop {
            self.drop_expired(wire, ledger, place);
            let Some(queue) = self.queues[place].as_mut() else {
                return;
            };
            let turn = queue
                .consumers
                .iter()
                .position(|id| self.consumers.get(id).is_some_and(Consumer::has_credit));
            let Some(turn) = turn else { return };
            let Some(entry) = queue.pop() else { return };
            let id = queue.consumers[turn];
            queue.consumers.rotate_left(turn + 1);
            let counts = queue.declare.counts;
            let is_inbox = queue.exclusive.is_some();
            let in_quarantine = queue.declare.name == QUARANTINE;
            let Some(consumer) = self.consumers.get_mut(&id) else {
                return;
            };
            let tag = consumer.next_tag;
            consumer.next_tag += 1;
            let deliver = Deliver {
                consumer: id,
                tag,
                message: Rc::clone(&entry.message),
                redelivered: entry.redelivered,
                failures: counts.then_some(entry.failures),
            };
            let conn = consumer.conn;
            if !is_inbox {
                let marked = (entry.redelivered, entry.forgotten);
                let strikes = in_quarantine.then_some(entry.failures);
                ledger.delivered(&entry.message, marked, strikes);
            }
            if consumer.prefetch.is_some() {
                let call = ledger.number(&entry.message);
                wire.trace("broker.deliver", [id, tag, call]);
                consumer.unacked.insert(tag, entry);
            }
            wire.send_down(conn, Lane::Consume, Down::Deliver(deliver));
        }
    }

    fn drop_expired(&mut self, wire: &mut Wire, ledger: &mut Ledger, place: usize) {
        while let Some(queue) = &mut self.queues[place] {
            let Some(entry) = queue.pop_expired(wire.now) else {
                return;
            };
            wire.trace("broker.expire", [place as u64, entry.serial, 0]);
            self.dead_letter(wire, ledger, place, &entry, EXPIRED);
        }
    }

    /// What waits in a queue.
    pub(crate) fn messages(&self, name: &ShortString) -> impl Iterator<Item = &Message> {
        let place = self.names.get(name).copied();
        let queue = place.and_then(|place| self.queues[place].as_ref());
        queue.into_iter().flat_map(Queue::messages)
    }

    /// Messages in a queue and with its consumers.
    pub(crate) fn depth(&self, name: &ShortString) -> usize {
        let Some(place) = self.names.get(name).copied() else {
            return 0;
        };
        let ready = self.queues[place].as_ref().map_or(0, Queue::len);
        let with = |consumer: &&Consumer| consumer.queue == place;
        let unacked: usize = self
            .consumers
            .values()
            .filter(with)
            .map(|consumer| consumer.unacked.len())
            .sum();
        ready + unacked
    }
}

/// One that nobody can guess, and that says in the trace whose it is.
fn inbox_name(id: ConnId, secret: u64) -> ShortString {
    ShortString::new(format!("inbox-{}-{secret:016x}", id.0)).unwrap_or_default()
}
