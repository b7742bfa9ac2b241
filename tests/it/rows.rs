//! All rows: each transport, on each face, made by its connector.
//!
//! Those on RabbitMQ take the URL of the broker, so that a fault can stand between.

use rpc_core::adapt::{BlockOnConnector, Guarded, OffloadConnector};
use transport_amiquip::{AmiquipConnector, AmqpUrl};
use transport_conformance::{AsyncRow, Backend, BlockingRow};
use transport_lapin::LapinConnector;
use transport_memory::MemoryBroker;

pub(crate) fn memory_on_tasks() -> AsyncRow {
    let broker = MemoryBroker::new();
    AsyncRow::over(broker.clone()).with_alarm(alarm(broker))
}

pub(crate) fn memory_on_threads() -> BlockingRow {
    let broker = MemoryBroker::new();
    BlockingRow::over(broker.clone()).with_alarm(alarm(broker))
}

/// The adapters on a transport with no quirks: what fails here is theirs.
pub(crate) fn offloaded_memory() -> AsyncRow {
    let broker = MemoryBroker::new();
    AsyncRow::over(OffloadConnector::new(broker.clone())).with_alarm(alarm(broker))
}

pub(crate) fn blocked_on_memory() -> BlockingRow {
    let broker = MemoryBroker::new();
    BlockingRow::over(BlockOnConnector::new(broker.clone())).with_alarm(alarm(broker))
}

/// Under a clock that it does not need.
pub(crate) fn guarded_memory() -> BlockingRow {
    let broker = MemoryBroker::new();
    let alarm = alarm(broker.clone());
    BlockingRow::new(move || Guarded::new(broker.connect())).with_alarm(alarm)
}

pub(crate) fn lapin(url: &str) -> AsyncRow {
    AsyncRow::over(LapinConnector::new(parsed(url)))
}

pub(crate) fn blocked_on_lapin(url: &str) -> BlockingRow {
    BlockingRow::over(BlockOnConnector::new(LapinConnector::new(parsed(url))))
}

pub(crate) fn amiquip(url: &str) -> BlockingRow {
    BlockingRow::over(AmiquipConnector::new(parsed(url)))
}

pub(crate) fn offloaded_amiquip(url: &str) -> AsyncRow {
    AsyncRow::over(OffloadConnector::new(AmiquipConnector::new(parsed(url))))
}

/// The four rows that need RabbitMQ, with their names.
pub(crate) fn on_rabbitmq(url: &str) -> [(&'static str, Box<dyn Backend>); 4] {
    [
        ("lapin", Box::new(lapin(url))),
        ("amiquip", Box::new(amiquip(url))),
        ("offloaded amiquip", Box::new(offloaded_amiquip(url))),
        ("blocked-on lapin", Box::new(blocked_on_lapin(url))),
    ]
}

fn alarm(broker: MemoryBroker) -> impl Fn(bool) + Send + 'static {
    move |blocked| broker.block_publishers(blocked)
}

fn parsed(url: &str) -> AmqpUrl {
    url.parse().expect("it is the URL of a broker")
}
