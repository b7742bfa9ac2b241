//! The scenarios, one in each file.

mod alarm;
mod broker_kill;
mod byte_cut;
mod cluster;
mod drain;
mod forged;
mod overload;
mod poison;
mod proxy_chaos;
mod sim;
mod stage;
mod worker_kill;

use crate::scenario::Scenario;

/// All there are, in the order of the list.
pub(crate) const ALL: &[Scenario] = &[
    broker_kill::SCENARIO,
    worker_kill::SCENARIO,
    byte_cut::SCENARIO,
    proxy_chaos::SCENARIO,
    alarm::SCENARIO,
    overload::SCENARIO,
    drain::SCENARIO,
    poison::SCENARIO,
    cluster::SCENARIO,
    forged::SCENARIO,
    sim::SCENARIO,
    broker_kill::GRACEFUL,
];
