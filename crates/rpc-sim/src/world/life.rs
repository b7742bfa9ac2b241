//! The lives of the processes: how each begins, goes on after a pause, and ends.

use super::{Process, World};
use crate::chaos;
use crate::client::Client;
use crate::conn::{Owner, ProcessId};
use crate::event::{Event, Mend};
use crate::worker::{Fate, Worker};

impl World {
    pub(super) fn fate(&mut self, process: ProcessId, fate: Fate) {
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

    pub(super) fn kill(&mut self, process: ProcessId) {
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

    pub(super) fn start_later(&mut self, process: ProcessId) {
        let wait = chaos::downtime(&mut self.wire, chaos::START);
        self.wire.after(wait, Event::Mend(Mend::Start(process)));
    }

    pub(super) fn start(&mut self, process: ProcessId) {
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

    pub(super) fn drain(&mut self) {
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

    pub(super) fn close(&mut self, process: ProcessId) {
        let slot = &mut self.processes[process.0];
        if let Some(Process::Client(client)) = &mut slot.running
            && !slot.paused
        {
            client.close(&mut self.wire, &mut self.ledger, &self.setting);
            self.fate(process, Fate::Ends);
        }
    }

    pub(super) fn resume(&mut self, process: ProcessId) {
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
}
