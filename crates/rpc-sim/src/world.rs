//! The world: processes, broker and network, and the loop that lets one thing happen after another.

use crate::broker::{Broker, Confirmed};
use crate::chaos;
use crate::check;
use crate::client::Client;
use crate::conn::{ConnId, Down, LANES, Lane, Owner, ProcessId, Up};
use crate::event::{Blow, Event, Mend, Wake};
use crate::ledger::Ledger;
use crate::mix::{Fault, Mix};
use crate::pipe::Hold;
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
#[expect(clippy::large_enum_variant, reason = "a handful in a world")]
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

    fn fate(&mut self, process: ProcessId, fate: Fate) {
        match fate {
            Fate::Lives => {}
            Fate::Dies => self.kill(process),
            Fate::Ends => {
                self.wire.trace("process.end", [process.0 as u64, 0, 0]);
                self.processes[process.0].running = None;
                self.start_later(process);
            }
        }
    }

    fn kill(&mut self, process: ProcessId) {
        let slot = &mut self.processes[process.0];
        let Some(running) = slot.running.take() else {
            return;
        };
        self.wire.trace("process.kill", [process.0 as u64, 0, 0]);
        if let Process::Client(mut client) = running {
            client.killed(&mut self.ledger);
        }
        (slot.paused, slot.missed) = (false, Vec::new());
        for id in self.wire.of(process) {
            self.wire.abort(id);
        }
        self.start_later(process);
    }

    fn start_later(&mut self, process: ProcessId) {
        let wait = chaos::downtime(&mut self.wire, chaos::START);
        self.wire.after(wait, Event::Mend(Mend::Start(process)));
    }

    fn start(&mut self, process: ProcessId) {
        let slot = &mut self.processes[process.0];
        if slot.running.is_some() {
            return;
        }
        slot.life += 1;
        let owner = Owner {
            process,
            life: slot.life,
        };
        let seed = self.rng.next();
        let (wire, setting) = (&mut self.wire, &self.setting);
        wire.trace("process.start", [process.0 as u64, u64::from(slot.life), 0]);
        if process.0 < setting.clients {
            let mut client = Client::new(wire, &mut self.ledger, owner, setting, seed);
            client.go_on(wire, &mut self.ledger);
            slot.running = Some(Process::Client(client));
        } else {
            let number = process.0 - setting.clients;
            let mut worker = Worker::new(wire, owner, number, setting, seed);
            worker.go_on(wire);
            slot.running = Some(Process::Worker(worker));
        }
    }

    fn strike(&mut self, blow: Blow) {
        let wire = &mut self.wire;
        match blow {
            Blow::Alarm => {
                if self.broker.up {
                    self.broker.set_alarm(wire, true);
                    let lasts = chaos::downtime(wire, chaos::OUTAGE);
                    wire.after(lasts, Event::Mend(Mend::Alarm));
                }
            }
            Blow::BrokerCrash => {
                if self.broker.up {
                    self.broker.crash(wire, &mut self.ledger);
                    let lasts = chaos::downtime(wire, chaos::OUTAGE);
                    wire.after(lasts, Event::Mend(Mend::Broker));
                }
            }
            Blow::CancelConsumer => self.broker.cancel_some(wire, &mut self.ledger),
            Blow::Close(process) => self.close(process),
            Blow::Cut => chaos::cut(wire),
            Blow::Drain => self.drain(),
            Blow::Kill(process) => self.kill(process),
            Blow::Partition => chaos::partition(wire, &self.setting),
            Blow::Pause(process) => {
                let slot = &mut self.processes[process.0];
                if slot.running.is_some() && !slot.paused {
                    slot.paused = true;
                    chaos::pause(wire, &self.setting, process);
                }
            }
            Blow::Stray => self.broker.stray(wire, &mut self.ledger),
        }
    }

    fn drain(&mut self) {
        let workers = self.setting.workers as u64;
        let worker = self.wire.rng().below(workers);
        let place = self.setting.clients + usize::try_from(worker).unwrap_or(0);
        let slot = &mut self.processes[place];
        if let Some(Process::Worker(worker)) = &mut slot.running
            && !slot.paused
        {
            let fate = worker.drain(&mut self.wire, &mut self.ledger, &self.setting);
            self.fate(ProcessId(place), fate);
        }
    }

    fn close(&mut self, process: ProcessId) {
        let slot = &mut self.processes[process.0];
        if let Some(Process::Client(client)) = &mut slot.running
            && !slot.paused
        {
            client.close(&mut self.wire, &mut self.ledger, &self.setting);
            self.fate(process, Fate::Ends);
        }
    }

    fn mend(&mut self, mend: Mend) {
        match mend {
            Mend::Alarm => self.broker.set_alarm(&mut self.wire, false),
            Mend::Broker => {
                if !self.broker.up {
                    self.broker.restart(&mut self.wire);
                }
            }
            Mend::Partition(process) => chaos::mend_partition(&mut self.wire, process),
            Mend::Resume(process) => self.resume(process),
            Mend::Start(process) => self.start(process),
        }
    }

    fn resume(&mut self, process: ProcessId) {
        let slot = &mut self.processes[process.0];
        if !std::mem::replace(&mut slot.paused, false) {
            return;
        }
        if let Some(Process::Client(client)) = &mut slot.running {
            client.resumed = self.wire.now;
        }
        let (missed, life) = (std::mem::take(&mut slot.missed), slot.life);
        chaos::resume(&mut self.wire, process);
        // The order in which its threads go on, and its socket is read, is anybody's guess.
        for wake in missed {
            let wait = self.wire.rng().below(200);
            let owner = Owner { process, life };
            self.wire.after(wait, Event::Wake(owner, wake));
        }
    }

    /// Somebody has heard nothing for too long, unless it has come right meanwhile.
    fn silent(&mut self, id: ConnId, at_broker: bool) {
        let conn = self.wire.conn(id);
        let (lane, owner) = (chaos::HEARTBEAT as usize, conn.owner);
        if at_broker {
            let silent = conn.up[lane].is_held_by(Hold::Partition)
                || conn.down[lane].is_held_by(Hold::Pause);
            if silent && conn.open_there[lane] {
                self.wire.trace("silent.there", [id.0 as u64, 0, 0]);
                for lane in LANES {
                    self.broker
                        .handle(&mut self.wire, &mut self.ledger, (id, lane), Up::End);
                }
            }
        } else if conn.down[lane].is_held_by(Hold::Partition) && conn.open_here[lane] {
            self.wire.trace("silent.here", [id.0 as u64, 0, 0]);
            if !self.processes[owner.process.0].paused {
                self.arrive(id, Down::End);
            }
        }
    }

    /// Faults stop: what is broken is mended, now or in a moment.
    fn heal(&mut self) {
        self.wire.trace("heal", [0; 3]);
        self.wire.healed = true;
        self.broker.set_alarm(&mut self.wire, false);
        self.mend(Mend::Broker);
        for process in 0..self.processes.len() {
            let process = ProcessId(process);
            chaos::mend_partition(&mut self.wire, process);
            self.resume(process);
            self.start(process);
        }
    }
}

/// A hundred times what a busy world has.
const MOST_EVENTS: u64 = 500_000;
