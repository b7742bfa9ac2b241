//! One queue of the simulated broker.

use std::collections::VecDeque;
use std::rc::Rc;

use rpc_proto::{DeliveryMode, Message};

use crate::conn::{ConnId, Declare};
use crate::time::Micros;

/// A message in the broker.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Its number in the broker.
    pub(crate) serial: u64,
    pub(crate) message: Rc<Message>,
    pub(crate) redelivered: bool,
    /// It was delivered before, and the broker does not know it any more.
    pub(crate) forgotten: bool,
    /// Deliveries in vain.
    pub(crate) failures: u32,
    expires_at: Option<Micros>,
    /// Where it stood in its queue, and comes back to.
    position: u64,
}

impl Entry {
    pub(crate) fn is_persistent(&self) -> bool {
        self.message.delivery_mode == DeliveryMode::Persistent
    }
}

/// A queue.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) declare: Declare,
    /// The connection that it goes with.
    pub(crate) exclusive: Option<ConnId>,
    /// The consumers, in the order of their turns.
    pub(crate) consumers: VecDeque<u64>,
    ready: VecDeque<Entry>,
    /// What was acknowledged a moment ago, and may not be on disk as such yet.
    settled: VecDeque<(Micros, Entry)>,
    next_position: u64,
}

impl Queue {
    pub(crate) const fn new(declare: Declare, exclusive: Option<ConnId>) -> Self {
        Self {
            declare,
            exclusive,
            consumers: VecDeque::new(),
            ready: VecDeque::new(),
            settled: VecDeque::new(),
            next_position: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ready.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.declare
            .max_length
            .is_some_and(|most| self.ready.len() >= most)
    }

    pub(crate) fn push(&mut self, serial: u64, message: Rc<Message>, now: Micros) {
        let lives = message.expiration.map(|left| u64::from(left.as_millis()));
        self.ready.push_back(Entry {
            serial,
            redelivered: false,
            forgotten: false,
            failures: 0,
            expires_at: lives.map(|millis| now + millis * 1_000),
            position: self.next_position,
            message,
        });
        self.next_position += 1;
    }

    /// Whether a message that was delivered in vain has had its last chance.
    pub(crate) fn gives_up(&self, entry: &Entry) -> bool {
        let limit = self.declare.delivery_limit;
        limit.is_some_and(|limit| entry.failures >= limit)
    }

    /// Takes back what was delivered, to where it was.
    pub(crate) fn take_back(&mut self, mut entry: Entry) {
        entry.redelivered = true;
        entry.failures += 1;
        let place = self
            .ready
            .partition_point(|other| other.position < entry.position);
        self.ready.insert(place, entry);
    }

    /// Takes back what was delivered before a crash. A queue that counts deliveries remembers them;
    /// another may have forgotten, since nobody waited for that to reach the disk.
    pub(crate) fn recover(&mut self, entry: Entry, forgets: bool) {
        let (position, marked) = (entry.position, entry.redelivered);
        self.take_back(entry);
        if forgets
            && !self.declare.counts
            && let Some(entry) = self
                .ready
                .iter_mut()
                .find(|other| other.position == position)
        {
            (entry.redelivered, entry.forgotten) = (marked, true);
        }
    }

    /// The first message, if it has expired. Behind one that lives on they stay.
    pub(crate) fn pop_expired(&mut self, now: Micros) -> Option<Entry> {
        let first = self.ready.front()?;
        if first.expires_at.is_some_and(|end| now > end) {
            self.ready.pop_front()
        } else {
            None
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Entry> {
        self.ready.pop_front()
    }

    /// Remembers what was acknowledged, for as long as a crash could bring it back.
    pub(crate) fn settle(&mut self, entry: Entry, now: Micros) {
        if !self.declare.durable || !entry.is_persistent() {
            return;
        }
        while let Some((at, _)) = self.settled.front() {
            if at + UNSYNCED >= now {
                break;
            }
            self.settled.pop_front();
        }
        self.settled.push_back((now, entry));
    }

    /// What is acknowledged and not on disk as such.
    pub(crate) fn take_unsynced(&mut self, now: Micros) -> Vec<Entry> {
        let settled = std::mem::take(&mut self.settled);
        settled
            .into_iter()
            .filter(|(at, _)| at + UNSYNCED >= now)
            .map(|(_, entry)| entry)
            .collect()
    }

    /// Keeps what the broker finds again after a crash.
    pub(crate) fn keep(&mut self, mut survives: impl FnMut(&Entry) -> bool) -> Vec<Entry> {
        let ready = std::mem::take(&mut self.ready);
        let (kept, lost) = ready.into_iter().partition(|entry| survives(entry));
        self.ready = kept;
        Vec::from(lost as VecDeque<Entry>)
    }

    pub(crate) fn messages(&self) -> impl Iterator<Item = &Message> {
        self.ready.iter().map(|entry| &*entry.message)
    }

    pub(crate) fn into_entries(self) -> impl Iterator<Item = Entry> {
        self.ready.into_iter()
    }
}

/// How long an acknowledgement may take to reach the disk.
const UNSYNCED: Micros = 20_000;
