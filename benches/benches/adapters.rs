//! The price of changing face: a transport that has both natively, against each of them made of
//! the other by an adapter.

use criterion::{Criterion, SamplingMode, Throughput};
use rpc_benches::{Plan, bench};
use rpc_core::adapt::{BlockOn, Offload};
use transport_memory::MemoryBroker;

/// One at a time, and enough to keep all threads busy.
const IN_FLIGHT: [usize; 2] = [1, 16];

pub(crate) fn define(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("adapters");
    group.throughput(Throughput::Elements(1));
    group.sampling_mode(SamplingMode::Flat);
    for plan in plans() {
        bench(&mut group, &plan, &IN_FLIGHT);
    }
    group.finish();
}

fn plans() -> [Plan; 4] {
    // One broker for all: each row has a queue of its own, and only one row is open at a time.
    let broker = MemoryBroker::new();
    let [a, b, c, d] = std::array::from_fn(|_| broker.clone());
    [
        Plan::asynchronous("native", async move || Ok(a.connect())),
        Plan::asynchronous("offload", async move || Offload::new(b.connect())),
        Plan::blocking("native", move || Ok(c.connect())),
        Plan::blocking("blockon", move || {
            BlockOn::with_runtime(async || Ok(d.connect()))
        }),
    ]
}
