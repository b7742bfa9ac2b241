//! Bad input costs its sender, and nobody else.

use std::thread;
use std::time::{Duration, Instant};

use rpc_core::proto::wire;
use rpc_core::{Expiration, Message};

use crate::backend::Backend;
use crate::steps::{Gate, SOON, echo, eventually, gated, one_at_a_time, short};

pub(super) fn a_request_answered_to_its_own_queue_does_not_loop(backend: &dyn Backend) {
    let served = backend.with_service(echo());
    let evil = Message {
        correlation_id: Some(short("1")),
        reply_to: Some(served.queue.clone()),
        ..Message::new("loop")
    };
    served.connection.send(&served.queue, evil);
    let client = served.connection.calls(&served.queue);
    eventually("it is dropped", || served.server.stats().discarded == 1);
    for _ in 0..10 {
        client.assert_works();
    }
    let stats = served.server.drain(SOON).stats;
    assert_eq!((stats.received, stats.ok, stats.discarded), (11, 10, 1));
}

pub(super) fn a_reply_in_the_request_queue_is_dropped(backend: &dyn Backend) {
    let served = backend.with_service(echo());
    let sender = backend.dial();
    let mut inbox = sender.inbox();
    let stray = Message {
        correlation_id: Some(short("1")),
        kind: Some(wire::REPLY_TYPE),
        reply_to: Some(inbox.queue().clone()),
        ..Message::new("stray")
    };
    sender.send(&served.queue, stray);
    let question = Message {
        correlation_id: Some(short("2")),
        reply_to: Some(inbox.queue().clone()),
        ..Message::new("question")
    };
    sender.send(&served.queue, question);
    inbox.expect("question");
    let stats = served.server.drain(SOON).stats;
    assert_eq!((stats.received, stats.ok, stats.discarded), (2, 1, 1));
}

pub(super) fn a_reply_that_nobody_can_receive_is_done_with(backend: &dyn Backend) {
    let served = backend.with_service(echo());
    let gone = backend.queue();
    for number in 0..10 {
        let question = Message {
            correlation_id: Some(short(number.to_string())),
            reply_to: Some(gone.clone()),
            ..Message::new("hello")
        };
        served.connection.send(&served.queue, question);
    }
    eventually("the replies are given up", || {
        served.server.stats().undeliverable == 10
    });
    served.connection.calls(&served.queue).assert_works();
    let stats = served.server.drain(SOON).stats;
    assert_eq!((stats.requeued, stats.received), (0, 11), "none came again");
    served.connection.close().expect("it closes");
    let next = backend.dial();
    next.send_all(&served.queue, &["marker"]);
    next.receive(&served.queue, 10).expect("marker");
}

/// Some versions of RabbitMQ close the connection of whoever replies to such an address.
pub(super) fn a_forged_direct_reply_address_costs_no_worker(backend: &dyn Backend) {
    let served = backend.with_service(echo());
    for address in [
        "forged",
        "AAAA.BBBB",
        "g1h2AA5yZXBseUA.AAAAAAAA.AAAAAAAAAAAAAAAAAAAAAA==",
    ] {
        let question = Message {
            correlation_id: Some(short("1")),
            reply_to: Some(short(format!("amq.rabbitmq.reply-to.{address}"))),
            ..Message::new("hello")
        };
        served.connection.send(&served.queue, question);
    }
    eventually("the replies are done with", || {
        let stats = served.server.stats();
        stats.undeliverable + stats.replied == 3
    });
    served.connection.calls(&served.queue).assert_works();
    let stats = served.server.drain(SOON).stats;
    assert_eq!((stats.requeued, stats.received), (0, 4), "none came again");
}

/// One that expires in the hands of a worker that is busy with another.
pub(super) fn a_stale_request_does_not_run(backend: &dyn Backend) {
    const LIFETIME: Duration = Duration::from_millis(100);
    let (gate, last) = (Gate::default(), Gate::default());
    let _open = gate.opened_at_the_end();
    last.open();
    let finish = last.clone();
    let router = gated(&gate).handle("last", move |text: String| {
        finish.pass();
        Ok(text)
    });
    let (connection, queue) = backend.with_queue();
    let server = connection.run(router, one_at_a_time(&queue, 10));
    let question = |kind: &str, expiration: Option<Duration>| Message {
        content_type: Some(wire::TEXT),
        expiration: expiration.map(Expiration::after),
        kind: Some(short(kind)),
        ..Message::new("hello")
    };
    connection.send(&queue, question("wait", None));
    gate.expect(1);
    let sent = Instant::now();
    connection.send(&queue, question("wait", Some(LIFETIME)));
    // Its time passes by the clock of the worker, and nothing that could be observed ends it.
    while sent.elapsed() < LIFETIME + Duration::from_millis(50) {
        thread::sleep(Duration::from_millis(5));
    }
    gate.open();
    connection.send(&queue, question("last", None));
    last.expect(1);
    let stats = server.drain(SOON).stats;
    assert_eq!(gate.come(), 1, "the stale one ran");
    // It was refused here, or the broker has dropped it.
    assert_eq!((stats.ok, stats.received - stats.refused), (2, 2));
}
