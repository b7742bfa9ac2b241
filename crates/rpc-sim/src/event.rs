//! What will happen, by time; at the same time, in the order it was planned.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::conn::{ConnId, Lane, Owner, ProcessId};
use crate::time::Micros;

/// Something that will happen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// Something may have arrived at the broker.
    Up(ConnId, Lane),
    /// Something may have arrived at the process.
    Down(ConnId, Lane),
    /// The broker's disk has the message; the broker says so, or the contrary.
    Confirm {
        conn: ConnId,
        tag: u64,
        serial: u64,
        ok: bool,
        broker_life: u32,
    },
    /// Something that a process planned for itself.
    Wake(Owner, Wake),
    /// A heartbeat is overdue: at the broker's end, or at the process's.
    Silent { conn: ConnId, at_broker: bool },
    /// A fault begins.
    Fault(Blow),
    /// A fault ends.
    Mend(Mend),
    /// A caller begins.
    Call(usize),
    /// Faults stop.
    Heal,
}

/// What a process planned for itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wake {
    /// The earliest of its timers.
    Timer,
    /// An attempt to connect has gone on for long enough.
    DialTimeout(ConnId),
    /// The caller of this call stops waiting.
    GiveUp(usize),
    /// The next attempt at this call is due.
    Retry(usize),
    /// There is a thread for this handler, or it is too late for one.
    Thread(u64),
    /// This handler has come to an end.
    Handler(u64),
    /// This handler was given up, and has come back now.
    Returned(u64),
    /// This handler has run for so long that its caller should know.
    Notice(u64),
    /// The drain has taken long enough.
    DrainTimeout,
}

/// A fault begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Blow {
    Alarm,
    BrokerCrash,
    CancelConsumer,
    Close(ProcessId),
    Cut,
    Drain,
    Kill(ProcessId),
    Partition,
    Pause(ProcessId),
    Stray,
}

/// A fault ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mend {
    Alarm,
    Broker,
    Partition(ProcessId),
    Resume(ProcessId),
    Start(ProcessId),
}

/// What is planned.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    heap: BinaryHeap<Reverse<Entry>>,
    planned: u64,
}

#[derive(Debug)]
struct Entry {
    at: Micros,
    place: u64,
    event: Event,
}

impl Agenda {
    pub(crate) fn plan(&mut self, at: Micros, event: Event) {
        self.heap.push(Reverse(Entry {
            at,
            place: self.planned,
            event,
        }));
        self.planned += 1;
    }

    pub(crate) fn next(&mut self) -> Option<(Micros, Event)> {
        let Reverse(entry) = self.heap.pop()?;
        Some((entry.at, entry.event))
    }
}

impl Entry {
    const fn key(&self) -> (Micros, u64) {
        (self.at, self.place)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}
