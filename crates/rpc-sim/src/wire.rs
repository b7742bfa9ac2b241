//! The network and the clock: what everything in the world shares.

use std::rc::Rc;
use std::time::Instant;

use rpc_proto::{Message, ShortString};

use crate::conn::{Conn, ConnId, Down, LANES, Lane, Owner, ProcessId, Up};
use crate::event::{Agenda, Event, Wake};
use crate::mix::{Fault, Mix};
use crate::pipe::Hold;
use crate::rng::Rng;
use crate::time::{Clock, MS, Micros};
use crate::trace::Trace;

/// The network and the clock.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) now: Micros,
    pub(crate) clock: Clock,
    pub(crate) agenda: Agenda,
    pub(crate) conns: Vec<Conn>,
    pub(crate) mix: Mix,
    pub(crate) trace: Trace,
    /// Faults happen no more.
    pub(crate) healed: bool,
    /// Processes that packets do not reach.
    pub(crate) cut_off: Vec<ProcessId>,
    latency: Micros,
    rng: Rng,
}

impl Wire {
    pub(crate) fn new(seed: u64, mix: Mix, keep_trace: bool) -> Self {
        let mut rng = Rng::new(seed, 2);
        let latency = rng.between(100, 2 * MS);
        Self {
            now: 0,
            clock: Clock::new(),
            agenda: Agenda::default(),
            conns: Vec::new(),
            mix,
            trace: Trace::new(keep_trace),
            healed: false,
            cut_off: Vec::new(),
            latency,
            rng,
        }
    }

    pub(crate) fn trace(&mut self, what: &'static str, with: [u64; 3]) {
        self.trace.add(self.now, what, with);
    }

    pub(crate) fn instant(&self) -> Instant {
        self.clock.instant(self.now)
    }

    /// Plans something this much later.
    pub(crate) fn after(&mut self, wait: Micros, event: Event) {
        self.agenda.plan(self.now.saturating_add(wait), event);
    }

    pub(crate) fn wake(&mut self, owner: Owner, at: Micros, wake: Wake) {
        self.agenda.plan(at.max(self.now), Event::Wake(owner, wake));
    }

    /// How long one frame takes.
    pub(crate) fn delay(&mut self) -> Micros {
        if self.mix.has(Fault::Latency) && !self.healed {
            let level = self.mix.level(Fault::Latency);
            self.rng.heavy(self.latency * level * level)
        } else {
            self.rng.between(self.latency / 2, self.latency)
        }
    }

    pub(crate) fn conn(&self, id: ConnId) -> &Conn {
        &self.conns[id.0]
    }

    /// A new connection of a process, with nothing said on it yet.
    pub(crate) fn connect(&mut self, owner: Owner) -> ConnId {
        let id = ConnId(self.conns.len());
        let mut conn = Conn::new(owner);
        if self.cut_off.contains(&owner.process) {
            for lane in LANES {
                conn.up[lane as usize].hold(Hold::Partition);
                conn.down[lane as usize].hold(Hold::Partition);
            }
        }
        self.conns.push(conn);
        id
    }

    pub(crate) fn send_up(&mut self, id: ConnId, lane: Lane, frame: Up) {
        let at = self.now + self.delay();
        if let Some(due) = self.conns[id.0].up[lane as usize].send(at, frame) {
            self.agenda.plan(due, Event::Up(id, lane));
        }
    }

    pub(crate) fn send_down(&mut self, id: ConnId, lane: Lane, frame: Down) {
        let at = self.now + self.delay();
        if let Some(due) = self.conns[id.0].down[lane as usize].send(at, frame) {
            self.agenda.plan(due, Event::Down(id, lane));
        }
    }

    /// The process hands a message over.
    pub(crate) fn publish(&mut self, id: ConnId, tag: u64, to: ShortString, m: Message) {
        let frame = Up::Publish {
            tag,
            to,
            message: Rc::new(m),
        };
        self.send_up(id, Lane::Publish, frame);
    }

    /// The process ends a connection in good order: what it has sent arrives.
    pub(crate) fn close(&mut self, id: ConnId) {
        for lane in LANES {
            if std::mem::replace(&mut self.conns[id.0].open_here[lane as usize], false) {
                self.send_up(id, lane, Up::End);
                self.conns[id.0].down[lane as usize].clear();
            }
        }
    }

    /// The process is gone: some of what it has sent last does not arrive.
    pub(crate) fn abort(&mut self, id: ConnId) {
        for lane in LANES {
            if std::mem::replace(&mut self.conns[id.0].open_here[lane as usize], false) {
                self.break_up(id, lane);
                self.conns[id.0].down[lane as usize].clear();
            }
        }
    }

    /// Breaks a lane towards the broker.
    pub(crate) fn break_up(&mut self, id: ConnId, lane: Lane) {
        let at = self.now + self.delay();
        let pipe = &mut self.conns[id.0].up[lane as usize];
        let keep = self.rng.index(pipe.len() + 1);
        if let Some(due) = pipe.cut(keep, at, Up::End) {
            self.agenda.plan(due, Event::Up(id, lane));
        }
    }

    /// Breaks a lane towards the process.
    pub(crate) fn break_down(&mut self, id: ConnId, lane: Lane) {
        let at = self.now + self.delay();
        let pipe = &mut self.conns[id.0].down[lane as usize];
        let keep = self.rng.index(pipe.len() + 1);
        if let Some(due) = pipe.cut(keep, at, Down::End) {
            self.agenda.plan(due, Event::Down(id, lane));
        }
    }

    /// The broker ends its side of a lane; what it has sent arrives.
    pub(crate) fn end_down(&mut self, id: ConnId, lane: Lane) {
        let conn = &mut self.conns[id.0];
        conn.open_there[lane as usize] = false;
        conn.up[lane as usize].clear();
        let at = self.now + self.delay();
        let pipe = &mut self.conns[id.0].down[lane as usize];
        let keep = pipe.len();
        if let Some(due) = pipe.cut(keep, at, Down::End) {
            self.agenda.plan(due, Event::Down(id, lane));
        }
    }

    pub(crate) fn hold_up(&mut self, id: ConnId, lane: Lane, why: Hold) {
        self.conns[id.0].up[lane as usize].hold(why);
    }

    pub(crate) fn hold_down(&mut self, id: ConnId, lane: Lane, why: Hold) {
        self.conns[id.0].down[lane as usize].hold(why);
    }

    /// Lets a lane flow again, in both directions as far as `why` held them.
    pub(crate) fn release(&mut self, id: ConnId, lane: Lane, why: Hold) {
        let conn = &mut self.conns[id.0];
        conn.up[lane as usize].release(why);
        conn.down[lane as usize].release(why);
        let up = conn.up[lane as usize].next_due();
        let down = conn.down[lane as usize].next_due();
        let now = self.now;
        if let Some(due) = up {
            self.agenda.plan(due.max(now), Event::Up(id, lane));
        }
        if let Some(due) = down {
            self.agenda.plan(due.max(now), Event::Down(id, lane));
        }
    }

    /// Draws that belong to no process: the network's and the faults'.
    pub(crate) const fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// Connections on which something can still happen.
    pub(crate) fn alive(&self) -> Vec<ConnId> {
        (0..self.conns.len())
            .map(ConnId)
            .filter(|&id| self.conn(id).is_alive())
            .collect()
    }

    pub(crate) fn of(&self, process: ProcessId) -> Vec<ConnId> {
        let mut alive = self.alive();
        alive.retain(|&id| self.conn(id).owner.process == process);
        alive
    }
}
