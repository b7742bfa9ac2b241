//! All rows: each transport, on each face.
//!
//! Those on RabbitMQ take the URL of the broker, so that a fault can stand between.

use std::future::ready;

use rpc_core::TransportError;
use rpc_core::adapt::{BlockOn, Offload};
use transport_amiquip::{AmiquipConfig, AmiquipTransport};
use transport_conformance::{AsyncRow, Backend, BlockingRow};
use transport_lapin::{LapinConfig, LapinTransport};
use transport_memory::MemoryBroker;

pub(crate) fn memory_on_tasks() -> AsyncRow {
    let broker = MemoryBroker::new();
    let alarm = broker.clone();
    AsyncRow::new(move || ready(Ok(broker.connect())))
        .with_alarm(move |blocked| alarm.block_publishers(blocked))
}

pub(crate) fn memory_on_threads() -> BlockingRow {
    let broker = MemoryBroker::new();
    let alarm = broker.clone();
    BlockingRow::new(move || Ok(broker.connect()))
        .with_alarm(move |blocked| alarm.block_publishers(blocked))
}

/// The adapters on a transport with no quirks: what fails here is theirs.
pub(crate) fn offloaded_memory() -> AsyncRow {
    let broker = MemoryBroker::new();
    let alarm = broker.clone();
    AsyncRow::new(move || ready(Offload::new(broker.connect())))
        .with_alarm(move |blocked| alarm.block_publishers(blocked))
}

pub(crate) fn blocked_on_memory() -> BlockingRow {
    let broker = MemoryBroker::new();
    let alarm = broker.clone();
    BlockingRow::new(move || BlockOn::with_runtime(|| ready(Ok(broker.connect()))))
        .with_alarm(move |blocked| alarm.block_publishers(blocked))
}

pub(crate) fn lapin(url: &str) -> AsyncRow {
    let config = lapin_config(url);
    AsyncRow::new(move || LapinTransport::connect(config.clone()))
}

pub(crate) fn blocked_on_lapin(url: &str) -> BlockingRow {
    let config = lapin_config(url);
    BlockingRow::new(move || {
        let config = config.clone();
        BlockOn::with_runtime(|| LapinTransport::connect(config))
    })
}

pub(crate) fn amiquip(url: &str) -> BlockingRow {
    let config = amiquip_config(url);
    BlockingRow::new(move || AmiquipTransport::connect(config.clone()))
}

pub(crate) fn offloaded_amiquip(url: &str) -> AsyncRow {
    let config = amiquip_config(url);
    AsyncRow::new(move || offload(config.clone()))
}

/// amiquip has no other way to connect than to block.
async fn offload(config: AmiquipConfig) -> Result<Offload<AmiquipTransport>, TransportError> {
    tokio::task::spawn_blocking(move || Offload::new(AmiquipTransport::connect(config)?))
        .await
        .expect("connecting does not panic")
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

fn lapin_config(url: &str) -> LapinConfig {
    LapinConfig::new(url.parse().expect("it is the URL of a broker"))
}

fn amiquip_config(url: &str) -> AmiquipConfig {
    AmiquipConfig::new(url.parse().expect("it is the URL of a broker"))
}
