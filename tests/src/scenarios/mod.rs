//! The scenarios, one in each file.

mod absent;
mod alarm;
mod broker_kill;
mod byte_cut;
mod cluster;
mod drain;
mod forged;
mod frozen;
mod hang;
mod kill_client;
mod misdeeds;
mod overload;
mod poison;
mod proxy_chaos;
mod queues;
mod retry_storm;
mod sim;
mod stage;
mod worker_kill;

use crate::scenario::Scenario;

/// All there are, in the order of the list.
pub(crate) const ALL: &[Scenario] = &[
    broker_kill::SCENARIO,
    worker_kill::SCENARIO,
    kill_client::SCENARIO,
    byte_cut::SCENARIO,
    proxy_chaos::SCENARIO,
    alarm::SCENARIO,
    overload::SCENARIO,
    retry_storm::SCENARIO,
    drain::SCENARIO,
    poison::SCENARIO,
    cluster::SCENARIO,
    forged::SCENARIO,
    hang::SCENARIO,
    sim::SCENARIO,
    broker_kill::GRACEFUL,
    absent::AT_START,
    absent::SLOW_LORIS,
    absent::CREDENTIALS,
    frozen::ZOMBIE,
    frozen::BROKER,
    queues::CLOSING,
    queues::TIMEOUT,
    queues::CANCELLED,
    misdeeds::STUCK,
    misdeeds::PANICS,
    misdeeds::SELF_LOOP,
    queues::FULL,
];
