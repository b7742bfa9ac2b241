//! How a fault begins and ends, and what follows when somebody hears nothing for too long.

use super::World;
use crate::chaos;
use crate::conn::{ConnId, Down, LANES, ProcessId, Up};
use crate::event::{Blow, Event, Mend};
use crate::pipe::Hold;

impl World {
    pub(super) fn strike(&mut self, blow: Blow) {
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

    pub(super) fn mend(&mut self, mend: Mend) {
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

    /// Somebody has heard nothing for too long, unless it has come right meanwhile.
    pub(super) fn silent(&mut self, id: ConnId, at_broker: bool) {
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
    pub(super) fn heal(&mut self) {
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
