//! Who strikes when: the faults of a seed, planned ahead, and how each is carried out.

use crate::conn::{ConnId, LANES, Lane, ProcessId};
use crate::event::{Blow, Event, Mend};
use crate::mix::Fault;
use crate::pipe::Hold;
use crate::rng::Rng;
use crate::setting::Setting;
use crate::time::{MS, Micros, SECOND};
use crate::wire::Wire;

/// Plans all faults of the seed, each kind from a stream of its own.
pub(crate) fn plan(seed: u64, wire: &mut Wire, setting: &Setting) {
    let (clients, all) = (setting.clients, setting.clients + setting.workers);
    for &fault in Fault::ALL {
        let mut rng = Rng::new(seed, 100 + fault as u64);
        let level = wire.mix.level(fault);
        let blow = |rng: &mut Rng| {
            let client = ProcessId(rng.index(clients));
            let worker = ProcessId(clients + rng.index(all - clients));
            Some(match fault {
                Fault::Alarm => Blow::Alarm,
                Fault::BrokerCrash => Blow::BrokerCrash,
                Fault::ClientClose => Blow::Close(client),
                Fault::ClientCrash => Blow::Kill(client),
                Fault::ClientPause => Blow::Pause(client),
                Fault::ConsumerCancelled => Blow::CancelConsumer,
                Fault::Cut => Blow::Cut,
                Fault::Drain => Blow::Drain,
                Fault::Partition => Blow::Partition,
                Fault::StrayMessage => Blow::Stray,
                Fault::WorkerCrash => Blow::Kill(worker),
                Fault::WorkerPause => Blow::Pause(worker),
                _ => return None,
            })
        };
        // One to twelve times, and more often where that is cheap.
        let most = match fault {
            Fault::Alarm | Fault::BrokerCrash | Fault::ClientClose | Fault::ClientCrash => level,
            _ => level * 3,
        };
        if level == 0 {
            continue;
        }
        for _ in 0..rng.between(1, most) {
            let at = rng.below(setting.faults_end);
            if let Some(blow) = blow(&mut rng) {
                wire.agenda.plan(at, Event::Fault(blow));
            }
        }
    }
    wire.agenda.plan(setting.faults_end, Event::Heal);
}

/// Breaks one connection: in each direction what was on its way is lost from some point on.
pub(crate) fn cut(wire: &mut Wire) {
    let mut alive = wire.alive();
    alive.retain(|&id| wire.conn(id).open_there[0]);
    if alive.is_empty() {
        return;
    }
    let id = wire.rng().pick(&alive);
    let lane = wire.rng().pick(&LANES);
    cut_lane(wire, id, lane);
}

/// Breaks one of its two lanes.
pub(crate) fn cut_lane(wire: &mut Wire, id: ConnId, lane: Lane) {
    wire.trace("cut", [id.0 as u64, lane as u64, 0]);
    wire.break_up(id, lane);
    wire.break_down(id, lane);
}

/// Packets to and from one process vanish for a while, or only those in one direction.
pub(crate) fn partition(wire: &mut Wire, setting: &Setting) {
    let all = setting.clients + setting.workers;
    let process = ProcessId(wire.rng().index(all));
    if wire.cut_off.contains(&process) {
        return;
    }
    let directions = wire.rng().between(1, 4);
    let typical = setting.heartbeat;
    let lasts = wire.rng().heavy(typical);
    wire.trace("partition", [process.0 as u64, lasts, directions]);
    wire.cut_off.push(process);
    for id in wire.of(process) {
        for lane in LANES {
            // 1: only towards the broker, 2: only from it, otherwise both.
            if directions != 2 {
                wire.hold_up(id, lane, Hold::Partition);
            }
            if directions != 1 {
                wire.hold_down(id, lane, Hold::Partition);
            }
        }
        for at_broker in [true, false] {
            let wait = wire.rng().between(setting.heartbeat, 2 * setting.heartbeat);
            wire.after(
                wait,
                Event::Silent {
                    conn: id,
                    at_broker,
                },
            );
        }
    }
    wire.after(lasts, Event::Mend(Mend::Partition(process)));
}

pub(crate) fn mend_partition(wire: &mut Wire, process: ProcessId) {
    if !wire.cut_off.contains(&process) {
        return;
    }
    wire.trace("partition.end", [process.0 as u64, 0, 0]);
    wire.cut_off.retain(|&other| other != process);
    for id in wire.of(process) {
        for lane in LANES {
            wire.release(id, lane, Hold::Partition);
        }
    }
}

/// Stops a process: nothing reaches it, and the broker may tire of its silence.
pub(crate) fn pause(wire: &mut Wire, setting: &Setting, process: ProcessId) -> Micros {
    let lasts = wire.rng().heavy(setting.heartbeat);
    wire.trace("pause", [process.0 as u64, lasts, 0]);
    for id in wire.of(process) {
        for lane in LANES {
            wire.hold_down(id, lane, Hold::Pause);
        }
        let wait = wire.rng().between(setting.heartbeat, 2 * setting.heartbeat);
        wire.after(
            wait,
            Event::Silent {
                conn: id,
                at_broker: true,
            },
        );
    }
    wire.after(lasts, Event::Mend(Mend::Resume(process)));
    lasts
}

pub(crate) fn resume(wire: &mut Wire, process: ProcessId) {
    wire.trace("resume", [process.0 as u64, 0, 0]);
    for id in wire.of(process) {
        for lane in LANES {
            wire.release(id, lane, Hold::Pause);
        }
    }
}

/// How long something stays away that was killed.
pub(crate) fn downtime(wire: &mut Wire, typical: Micros) -> Micros {
    wire.rng().heavy(typical)
}

/// How long the broker is away, and how long an alarm lasts.
pub(crate) const OUTAGE: Micros = SECOND;
/// How long a process takes to start.
pub(crate) const START: Micros = 100 * MS;

/// The lane on which silence is looked for.
pub(crate) const HEARTBEAT: Lane = Lane::Consume;
