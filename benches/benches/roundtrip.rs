//! Sync against async: the same service and the same calls over every transport, on both faces.

use std::env;

use amqp_broker::AmqpUrl;
use anyhow::{Context, Result};
use criterion::{Criterion, SamplingMode, Throughput};
use rpc_benches::setting::{IN_FLIGHT, PREFETCH, WORKERS};
use rpc_benches::{Plan, bench};
use rpc_core::adapt::{BlockOn, Offload};
use transport_amiquip::{AmiquipConfig, AmiquipTransport};
use transport_lapin::{LapinConfig, LapinTransport};
use transport_memory::MemoryBroker;

const URL: &str = "RPC_AMQP_URL";

pub(crate) fn define(criterion: &mut Criterion) -> Result<()> {
    let mut group = criterion.benchmark_group("roundtrip");
    group.throughput(Throughput::Elements(1));
    // All samples of one length: in short ones the time would be that of the first calls and of the
    // last, when fewer are in flight.
    group.sampling_mode(SamplingMode::Flat);
    for plan in in_this_process() {
        bench(&mut group, &plan, &IN_FLIGHT);
    }
    if let Ok(url) = env::var(URL) {
        let url: AmqpUrl = url.parse().with_context(|| format!("in {URL}"))?;
        println!("{}", what_is_equal(&url));
        for plan in on_a_broker(&url) {
            bench(&mut group, &plan, &IN_FLIGHT);
        }
    } else {
        println!(
            "roundtrip: the rows of lapin and amiquip are left out, for they need a RabbitMQ: \
             run `cargo xtask bench`, or set {URL}"
        );
    }
    group.finish();
    Ok(())
}

fn in_this_process() -> [Plan; 2] {
    let broker = MemoryBroker::new();
    let same = broker.clone();
    [
        Plan::asynchronous("memory", async move || Ok(broker.connect())),
        Plan::blocking("memory", move || Ok(same.connect())),
    ]
}

fn on_a_broker(url: &AmqpUrl) -> [Plan; 4] {
    let (to_lapin, to_amiquip) = (lapin(url), amiquip(url));
    let (lapin, amiquip) = (to_lapin.clone(), to_amiquip.clone());
    [
        Plan::asynchronous("lapin", async move || {
            LapinTransport::connect(lapin.clone()).await
        }),
        Plan::blocking("lapin", move || {
            BlockOn::with_runtime(|| LapinTransport::connect(to_lapin.clone()))
        }),
        Plan::asynchronous("amiquip", async move || {
            Offload::new(AmiquipTransport::connect(amiquip.clone())?)
        }),
        Plan::blocking("amiquip", move || {
            AmiquipTransport::connect(to_amiquip.clone())
        }),
    ]
}

// What the two configurations say is said here and not left to their defaults, so that a default
// which changes in one of them does not make the comparison unfair.

fn lapin(url: &AmqpUrl) -> LapinConfig {
    LapinConfig::new(url.clone())
        .with_confirms(transport_lapin::Confirms::On)
        .with_connection_name(NAME)
}

fn amiquip(url: &AmqpUrl) -> AmiquipConfig {
    AmiquipConfig::new(url.clone())
        .with_confirms(transport_amiquip::Confirms::On)
        .with_connection_name(NAME)
}

const NAME: &str = "rpc-benches";

/// The fairness list: each line is true of every row on the broker. README.md says where each is
/// made so.
fn what_is_equal(url: &AmqpUrl) -> String {
    format!(
        "
roundtrip: equal in all rows of lapin and amiquip
  broker        {url}
  sockets       TCP_NODELAY, opened by the same code
  connections   four: service and client have two each, one to consume and one to publish
  channels      four: one on each connection
  confirms      on, and every publish mandatory
  prefetch      {PREFETCH}
  queue         transient, auto-delete, no arguments; transient messages
  replies       exclusive queue
  service       fib(30), answered where it is received, on {WORKERS} threads
  codec         JSON"
    )
}
