//! Calls that their callers give up half-way, in numbers, on every row.

use std::time::{Duration, Instant};

use rpc_core::proto::client::Request;
use rpc_core::{ClientOptions, QueueKind, QueueSpec};
use transport_conformance::Backend;

use crate::{broker, rows};

fn ten_thousand_calls_given_up_leave_no_slot(row: &dyn Backend) {
    let connection = row.connect().unwrap();
    let queue = broker::queue("given-up");
    connection
        .declare(&QueueSpec::new(queue.clone(), QueueKind::Durable))
        .unwrap();
    let client = connection.client(ClientOptions::new(queue)).unwrap();
    let begun = Instant::now();
    client.give_up(10_000, &Request::default());
    assert_eq!(client.in_flight(), 0);
    let stats = client.stats();
    let (calls, attempts) = (stats.calls, stats.attempts);
    assert_eq!(calls.started, calls.given_up + calls.failed, "{stats:?}");
    assert_eq!(attempts.started, attempts.cancelled + attempts.failed);
    assert!(attempts.started > 0);
    assert!(begun.elapsed() < Duration::from_secs(60));
}

macro_rules! on_each_row {
    ($($(#[$ignore:meta])? $row:ident = $backend:expr;)+) => {
        mod ten_thousand_calls_given_up_leave_no_slot {
            use super::*;
            $(#[test]
            $(#[$ignore])?
            fn $row() {
                super::ten_thousand_calls_given_up_leave_no_slot(&$backend);
            })+
        }
    };
}

on_each_row! {
    memory_async = rows::memory_on_tasks();
    memory_blocking = rows::memory_on_threads();
    memory_offload = rows::offloaded_memory();
    memory_block_on = rows::blocked_on_memory();
    #[ignore = "needs RabbitMQ: run cargo xtask test"]
    lapin = rows::lapin(&broker::url());
    #[ignore = "needs RabbitMQ: run cargo xtask test"]
    lapin_block_on = rows::blocked_on_lapin(&broker::url());
    #[ignore = "needs RabbitMQ: run cargo xtask test"]
    amiquip = rows::amiquip(&broker::url());
    #[ignore = "needs RabbitMQ: run cargo xtask test"]
    amiquip_offload = rows::offloaded_amiquip(&broker::url());
}
