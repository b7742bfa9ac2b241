//! The world: processes, broker and network, and the loop that lets one thing happen after another.

mod faults;
mod life;

use crate::broker::{Broker, Confirmed};
use crate::chaos;
use crate::check;
use crate::client::Client;
use crate::conn::{ConnId, Down, Lane, Owner, ProcessId};
use crate::event::{Event, Mend, Wake};
use crate::ledger::Ledger;
use crate::mix::{Fault, Mix};
use crate::rng::Rng;
use crate::rule::Rule;
use crate::setting::Setting;
use crate::time::SECOND;
use crate::wire::Wire;
use crate::worker::{Fate, Worker};

/// Everything there is.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) wire: Wire,
    pub(crate) ledger: Ledger,
    pub(crate) setting: Setting,
    pub(crate) broker: Broker,
    pub(crate) processes: Vec<Slot>,
    rng: Rng,
}

/// A place for a process, which lives there many times.
#[derive(Debug)]
pub(crate) struct Slot {
    life: u32,
    pub(crate) running: Option<Process>,
    paused: bool,
    /// What it had planned for itself and could not do while it was stopped.
    missed: Vec<Wake>,
}

#[derive(Debug)]
pub(crate) enum Process {
    Client(Client),
    Worker(Worker),
}

impl World {
    pub(crate) fn new(seed: u64, mix: Mix, setting: Setting, keep_trace: bool) -> Self {
        let mut wire = Wire::new(seed, mix, keep_trace);
        chaos::plan(seed, &mut wire, &setting);
        for (number, plan) in setting.calls.iter().enumerate() {
            wire.agenda.plan(plan.at, Event::Call(number));
        }
        let mut rng = Rng::new(seed, 5);
        let slot = || Slot {
            life: 0,
            running: None,
            paused: false,
            missed: Vec::new(),
        };
        let processes = std::iter::repeat_with(slot)
            .take(setting.clients + setting.workers)
            .collect();
        for process in 0..setting.clients + setting.workers {
            let late = rng.between(0, 3 * SECOND);
            let is_late = process >= setting.clients && wire.mix.has(Fault::WorkersLate);
            let at = if is_late { late } else { 0 };
            wire.agenda
                .plan(at, Event::Mend(Mend::Start(ProcessId(process))));
        }
        Self {
            ledger: Ledger::new(&setting),
            wire,
            setting,
            broker: Broker::new(),
            processes,
            rng,
        }
    }

    /// Lets everything happen, until the end or the first broken promise.
    pub(crate) fn run(&mut self) {
        while let Some((at, event)) = self.wire.agenda.next() {
            if at > self.setting.end || !self.ledger.breaches.is_empty() {
                break;
            }
            self.wire.now = at;
            self.ledger.now = at;
            self.ledger.counts.events += 1;
            if self.ledger.counts.events > MOST_EVENTS {
                let detail = "so much happens that nothing can come to an end";
                self.ledger.breach(Rule::Liveness, None, detail);
            }
            self.happen(event);
        }
        if self.ledger.breaches.is_empty() {
            self.broker.sweep(&mut self.wire, &mut self.ledger);
            check::at_the_end(self);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Up(conn, lane) => self.up(conn, lane),
            Event::Down(conn, lane) => self.down(conn, lane),
            Event::Confirm {
                conn,
                tag,
                serial,
                ok,
                broker_life,
            } => {
                let confirmed = Confirmed {
                    conn,
                    tag,
                    serial,
                    ok,
                    broker_life,
                };
                self.broker
                    .confirm(&mut self.wire, &mut self.ledger, confirmed);
            }
            Event::Wake(owner, wake) => self.wake(owner, wake),
            Event::Silent { conn, at_broker } => self.silent(conn, at_broker),
            Event::Fault(blow) => self.strike(blow),
            Event::Mend(mend) => self.mend(mend),
            Event::Call(call) => self.call(call),
            Event::Heal => self.heal(),
        }
    }

    fn up(&mut self, conn: ConnId, lane: Lane) {
        let now = self.wire.now;
        while let Some(frame) = self.wire.conns[conn.0].up[lane as usize].take(now) {
            self.broker
                .handle(&mut self.wire, &mut self.ledger, (conn, lane), frame);
        }
    }

    fn down(&mut self, conn: ConnId, lane: Lane) {
        let now = self.wire.now;
        while let Some(frame) = self.wire.conns[conn.0].down[lane as usize].take(now) {
            self.arrive(conn, frame);
        }
    }

    fn arrive(&mut self, conn: ConnId, frame: Down) {
        let owner = self.wire.conn(conn).owner;
        let slot = &mut self.processes[owner.process.0];
        if slot.life != owner.life {
            return;
        }
        let (wire, ledger, setting) = (&mut self.wire, &mut self.ledger, &self.setting);
        let fate = match &mut slot.running {
            None => return,
            Some(Process::Client(client)) => {
                client.handle(wire, ledger, setting, (conn, frame));
                Fate::Lives
            }
            Some(Process::Worker(worker)) => worker.handle(wire, ledger, setting, (conn, frame)),
        };
        self.fate(owner.process, fate);
    }

    fn wake(&mut self, owner: Owner, wake: Wake) {
        let slot = &mut self.processes[owner.process.0];
        if slot.life != owner.life {
            return;
        }
        if slot.paused {
            slot.missed.push(wake);
            return;
        }
        let (wire, ledger, setting) = (&mut self.wire, &mut self.ledger, &self.setting);
        let fate = match &mut slot.running {
            None => return,
            Some(Process::Client(client)) => {
                client.wake(wire, ledger, setting, wake);
                Fate::Lives
            }
            Some(Process::Worker(worker)) => worker.wake(wire, ledger, setting, wake),
        };
        self.fate(owner.process, fate);
    }

    fn call(&mut self, call: usize) {
        let slot = &mut self.processes[self.setting.calls[call].client];
        // A call that nobody is there to make is none.
        if let Some(Process::Client(client)) = &mut slot.running
            && !slot.paused
        {
            client.call(&mut self.wire, &mut self.ledger, &self.setting, call);
        }
    }
}

/// A hundred times what a busy world has.
const MOST_EVENTS: u64 = 500_000;
