//! What is settled is done with; what is not comes again.

use std::thread;

use rpc_core::{ErrorKind, Fate, Message};

use crate::backend::Backend;
use crate::steps::fails_with;

pub(super) fn what_is_not_settled_comes_again(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    connection.send_all(&queue, &["received", "waiting"]);
    let mut receiver = connection.receive(&queue, 1);
    assert!(!receiver.expect("received").redelivered);
    connection.close().expect("it closes");

    let next = backend.dial();
    let mut receiver = next.receive(&queue, 10);
    assert!(receiver.expect("received").redelivered, "it is marked");
    // The prefetch kept it in the broker.
    assert!(!receiver.expect("waiting").redelivered, "and this is not");
}

pub(super) fn what_is_acknowledged_does_not_come_again(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    connection.send_all(&queue, &["done", "open"]);
    let mut receiver = connection.receive(&queue, 1);
    let done = receiver.expect("done");
    connection.settle(done);
    // That this one comes is proof that the broker has the acknowledgement.
    receiver.expect("open");
    connection.close().expect("it closes");

    let next = backend.dial();
    next.receive(&queue, 10).expect("open");
}

/// An orderly close sends what was handed over before it.
pub(super) fn acks_before_a_close_hold(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    for number in 0..50 {
        connection.send(&queue, Message::new(number.to_string()));
    }
    connection.send(&queue, Message::new("marker"));
    let mut receiver = connection.receive(&queue, 50);
    let held: Vec<_> = (0..50).map(|_| receiver.next()).collect();
    for delivery in held {
        connection.settle(delivery);
    }
    connection.close().expect("it closes");
    backend.dial().receive(&queue, 100).expect("marker");
}

pub(super) fn any_thread_can_acknowledge(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    connection.send_all(&queue, &["1", "2", "3", "4", "marker"]);
    let mut receiver = connection.receive(&queue, 4);
    let held = [
        receiver.next(),
        receiver.next(),
        receiver.next(),
        receiver.next(),
    ];
    let connection = &connection;
    thread::scope(|scope| {
        for delivery in held {
            scope.spawn(move || connection.settle(delivery));
        }
    });
    receiver.expect("marker");
}

pub(super) fn deliveries_outlive_their_consumer(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    connection.send_all(&queue, &["acked", "rejected"]);
    let mut receiver = connection.receive(&queue, 10);
    let (acked, rejected) = (receiver.expect("acked"), receiver.expect("rejected"));
    connection.cancel(receiver.id()).expect("it is cancelled");
    drop(receiver);
    connection.settle(acked);
    let token = rejected.token.expect("a delivery of a queue has a token");
    connection
        .reject(token, Fate::Requeue)
        .expect("it can still be rejected");

    let mut receiver = connection.receive(&queue, 10);
    let again = receiver.expect("rejected");
    assert!(again.redelivered);
    connection.settle(again);
    connection.close().expect("it closes");
    let next = backend.dial();
    next.send_all(&queue, &["marker"]);
    next.receive(&queue, 10).expect("marker");
}

pub(super) fn a_foreign_token_is_misuse_and_harms_nothing(backend: &dyn Backend) {
    let (owner, queue) = backend.with_queue();
    let (stranger, other_queue) = backend.with_queue();
    owner.send_all(&queue, &["1", "2", "3"]);
    stranger.send_all(&other_queue, &["own", "next"]);
    let mut receiver = owner.receive(&queue, 2);
    let mut other = stranger.receive(&other_queue, 1);
    // Both begin to count at one, so the stranger's own delivery has the same number.
    let own = other.expect("own");
    let foreign = receiver.expect("1").token.expect("a token");
    let acked = stranger.ack(foreign);
    fails_with("ack", acked, ErrorKind::Misuse);
    let foreign = receiver.expect("2").token.expect("a token");
    let rejected = stranger.reject(foreign, Fate::Discard);
    fails_with("reject", rejected, ErrorKind::Misuse);

    stranger.settle(own);
    other.expect("next");
    stranger.assert_usable();
    owner.assert_usable();
    owner.close().expect("it closes");
    let next = backend.dial();
    let mut receiver = next.receive(&queue, 10);
    for body in ["1", "2"] {
        assert!(receiver.expect(body).redelivered, "nobody settled it");
    }
    receiver.expect("3");
}

pub(super) fn a_requeued_delivery_comes_back(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    let mut receiver = connection.receive(&queue, 1);
    connection.send_all(&queue, &["again"]);
    let delivery = receiver.expect("again");
    assert!(!delivery.redelivered);
    let token = delivery.token.expect("a token");
    connection.reject(token, Fate::Requeue).expect("it goes");
    let delivery = receiver.expect("again");
    assert!(delivery.redelivered, "it is marked");
    connection.settle(delivery);
}

pub(super) fn a_discarded_delivery_does_not_come_back(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    let mut receiver = connection.receive(&queue, 1);
    connection.send_all(&queue, &["poison", "marker"]);
    let token = receiver.expect("poison").token.expect("a token");
    connection.reject(token, Fate::Discard).expect("it goes");
    let marker = receiver.expect("marker");
    connection.settle(marker);
    connection.close().expect("it closes");
    let next = backend.dial();
    next.send_all(&queue, &["last"]);
    next.receive(&queue, 10).expect("last");
}
