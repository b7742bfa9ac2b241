//! Short forms of the fault scenarios: what `cargo xtask torture` shows at length must hold here too.
//!
//! Those that only use a broker have the one of all tests. Those that break one share a private node:
//! one scenario at a time, and each leaves it as it found it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rabbitmq_node::Node;
use rpc_tests::ground::Ground;
use rpc_tests::scenario::Scenario;
use rpc_tests::setting::{Face, Setting, Transport};
use transport_memory::MemoryBroker;

use crate::broker;

const RABBITMQ: [Transport; 2] = [Transport::Lapin, Transport::Amiquip];

/// Runs the short form of a scenario, and asserts that every rule holds.
#[track_caller]
fn holds(name: &str, transport: Transport, face: Face, ground: &mut Ground) {
    let scenario = Scenario::find(name).expect("it is in the list");
    let worker = env!("CARGO_BIN_EXE_torture").into();
    let setting = Setting::new(transport, face, scenario.short, worker);
    let report = scenario.run(&setting, ground).expect("the rig works");
    assert!(report.passed, "{}\n{}", report.table(), report.json());
}

fn alone() -> MutexGuard<'static, ()> {
    // Two loads at once on a small machine would measure each other.
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[track_caller]
fn holds_in_the_process(name: &str) {
    for face in [Face::Async, Face::Blocking] {
        let mut ground = Ground::Memory(MemoryBroker::new());
        holds(name, Transport::Memory, face, &mut ground);
    }
}

#[track_caller]
fn holds_on_the_broker(name: &str) {
    let _alone = alone();
    for transport in RABBITMQ {
        let mut ground = Ground::Given(broker::url());
        holds(name, transport, transport.native_face(), &mut ground);
    }
}

/// The node is never dropped; its watchdog sees the end of this process.
#[track_caller]
fn holds_on_own_node(name: &str) {
    static NODE: Mutex<Option<Ground>> = Mutex::new(None);
    let mut node = NODE.lock().unwrap_or_else(PoisonError::into_inner);
    let ground = node.get_or_insert_with(|| Ground::Own(Node::builder().start().unwrap()));
    let _alone = alone();
    if !ground.node().unwrap().is_running() {
        // A scenario that failed half-way must not fail the next.
        ground.node().unwrap().restart().unwrap();
    }
    for transport in RABBITMQ {
        holds(name, transport, transport.native_face(), ground);
    }
}

#[test]
fn in_the_process_workers_that_die_lose_no_call() {
    holds_in_the_process("worker-kill");
}

#[test]
fn in_the_process_a_broker_that_dies_loses_no_call() {
    holds_in_the_process("broker-kill");
}

#[test]
fn in_the_process_a_rolling_restart_runs_nothing_twice() {
    holds_in_the_process("drain");
}

#[test]
fn a_library_that_hangs_holds_nobody_up() {
    // Of each kind on each face: natively, guarded, and behind the two adapters.
    let kinds = [
        (Transport::Memory, Face::Async),
        (Transport::Memory, Face::Blocking),
        (Transport::Lapin, Face::Blocking),
        (Transport::Amiquip, Face::Async),
    ];
    for (transport, face) in kinds {
        holds("hang", transport, face, &mut Ground::Nothing);
    }
}

#[test]
fn in_the_process_retries_do_not_become_the_load() {
    holds_in_the_process("retry-storm");
}

#[test]
fn the_simulator_finds_no_broken_promise() {
    holds_in_the_process("sim");
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn workers_that_die_lose_no_call() {
    holds_on_the_broker("worker-kill");
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_rolling_restart_runs_nothing_twice() {
    holds_on_the_broker("drain");
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn the_ledger_balances_wherever_the_connection_is_cut() {
    holds_on_the_broker("byte-cut");
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn the_ledger_balances_over_random_faults_of_the_network() {
    holds_on_the_broker("proxy-chaos");
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn under_overload_the_work_that_is_done_is_of_use() {
    holds_on_the_broker("overload");
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn retries_do_not_become_the_load() {
    holds_on_the_broker("retry-storm");
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn forged_replies_are_not_accepted() {
    holds_on_the_broker("forged");
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn panics_cost_their_own_calls_and_no_others() {
    holds_on_the_broker("panic-storm");
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn handlers_that_never_come_back_cost_their_own_calls() {
    holds_on_the_broker("stuck-handlers");
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_request_to_answer_oneself_goes_nowhere() {
    holds_on_the_broker("self-loop");
}

#[test]
#[ignore = "needs RabbitMQ installed: run cargo xtask test"]
fn a_broker_that_dies_loses_no_call() {
    holds_on_own_node("broker-kill");
}

#[test]
#[ignore = "needs RabbitMQ installed: run cargo xtask test"]
fn clients_that_die_cost_nobody_else_anything() {
    holds_on_own_node("kill-client");
}

#[test]
#[ignore = "needs RabbitMQ installed: run cargo xtask test"]
fn an_alarm_hangs_no_call_and_stops_no_acknowledgement() {
    holds_on_own_node("alarm");
}

#[test]
#[ignore = "needs RabbitMQ installed: run cargo xtask test"]
fn poison_is_taken_out_and_its_neighbours_are_answered() {
    holds_on_own_node("poison");
}

#[test]
#[ignore = "needs RabbitMQ installed: run cargo xtask test"]
fn a_queue_that_is_deleted_is_served_again() {
    holds_on_own_node("consumer-cancelled");
}

#[test]
#[ignore = "needs RabbitMQ installed: run cargo xtask test"]
fn a_client_closes_in_time_under_an_alarm() {
    holds_on_own_node("close-under-alarm");
}

#[test]
#[ignore = "needs RabbitMQ installed: run cargo xtask test"]
fn clients_and_workers_may_start_before_the_broker() {
    holds_on_own_node("broker-down-at-start");
}
