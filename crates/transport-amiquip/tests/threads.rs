//! What is left of a transport when it has ended: nothing. Alone in its process, so that the count
//! of threads is its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use rpc_core::blocking::{Consumer, Transport};
use rpc_core::{ConsumeOptions, Inbox, Message};
use support::proxy::Proxy;
use support::*;
use transport_amiquip::{AmiquipConfig, AmiquipTransport};

fn busy(transport: &AmiquipTransport) -> Vec<Box<dyn Consumer>> {
    let queue = queue(transport, "threads");
    let mut consumers = vec![
        transport.consume(work(&queue, 8)).unwrap(),
        transport.consume(work(&queue, 8)).unwrap(),
        transport
            .consume(ConsumeOptions::inbox(Inbox::Exclusive))
            .unwrap(),
    ];
    // One is over while its delivery is open: its thread waits for the acknowledgement.
    transport.cancel(consumers[1].id()).unwrap();
    send(transport, &queue, Message::new("x")).unwrap();
    let _ = next(&mut *consumers[0]);
    transport.cancel(consumers[0].id()).unwrap();
    consumers
}

/// The timer thread of amiquip has no handle to be joined by, and may need a moment.
fn assert_left(count: usize) {
    eventually("all threads end", || threads().len() == count);
    let left = threads();
    assert!(!left.iter().any(|name| name.starts_with("am")), "{left:?}");
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn no_thread_outlives_its_transport() {
    let before = threads().len();

    let transport = connect();
    let consumers = busy(&transport);
    assert!(threads().iter().any(|name| name == "amq-publisher"));
    assert!(threads().iter().any(|name| name == "amq-consumer"));
    transport.close().unwrap();
    let left = threads();
    assert!(!left.iter().any(|name| name.starts_with("am")), "{left:?}");
    assert_left(before);
    drop(consumers);
    drop(transport);

    let transport = connect();
    let consumers = busy(&transport);
    drop(transport);
    assert_left(before);
    drop(consumers);

    // 100 consumers that were dropped leave no thread while the transport lives.
    let transport = connect();
    let idle = threads().len();
    for _ in 0..100 {
        let inbox = ConsumeOptions::inbox(Inbox::Exclusive);
        drop(transport.consume(inbox).unwrap());
    }
    eventually("the consumers' threads end", || threads().len() == idle);
    drop(transport);
    assert_left(before);

    let proxy = Proxy::start();
    let transport = AmiquipTransport::connect(AmiquipConfig::new(proxy.url(""))).unwrap();
    let consumers = busy(&transport);
    proxy.cut(0);
    eventually("the transport's threads end by themselves", || {
        !threads().iter().any(|name| name.starts_with("am"))
    });
    drop(proxy);
    assert_left(before);
    drop((transport, consumers));
}
