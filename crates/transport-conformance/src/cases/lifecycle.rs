//! Consumers and transports end when they are told to, and whoever waits hears of it.

use std::num::NonZeroU16;
use std::thread;
use std::time::{Duration, Instant};

use rpc_core::{Address, ConsumeOptions, ErrorKind, Fate, Inbox, Message, QueueKind, QueueSpec};

use crate::backend::{Backend, Received, Receiver};
use crate::steps::{SOON, fails_with, text};

/// Begins to receive, so that what follows meets a receive that waits.
fn nothing_yet(receiver: &mut dyn Receiver) {
    match receiver.recv_within(Duration::from_millis(20)) {
        Received::Nothing => {}
        other => panic!("nothing was sent, and there was {other:?}"),
    }
}

pub(super) fn cancel_ends_a_waiting_receive(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    let mut receiver = connection.receive(&queue, 1);
    let id = receiver.id();
    nothing_yet(&mut *receiver);
    let waiting = thread::spawn(move || {
        receiver.expect_end();
        // And for ever after.
        receiver.expect_end();
        receiver.expect_end();
    });
    connection.cancel(id).expect("it is cancelled");
    waiting.join().expect("the receive ended");
    connection.assert_usable();
}

pub(super) fn cancel_is_idempotent(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    let (work, inbox) = (connection.receive(&queue, 1), connection.inbox());
    for receiver in [work, inbox] {
        let id = receiver.id();
        connection.cancel(id).expect("the first time");
        connection.cancel(id).expect("the second time");
        drop(receiver);
        connection.cancel(id).expect("and when it is dropped");
    }
    connection.assert_usable();
}

pub(super) fn cancel_of_a_foreign_consumer_is_misuse(backend: &dyn Backend) {
    let (owner, queue) = backend.with_queue();
    let stranger = backend.dial();
    let mut receiver = owner.receive(&queue, 1);
    let cancelled = stranger.cancel(receiver.id());
    fails_with("cancel", cancelled, ErrorKind::Misuse);
    owner.send_all(&queue, &["still here"]);
    receiver.expect("still here");
}

pub(super) fn cancel_hands_back_what_was_not_received(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    connection.send_all(&queue, &["1", "2", "3", "4", "5"]);
    let mut first = connection.receive(&queue, 10);
    let held = first.expect("1");
    connection.cancel(first.id()).expect("it is cancelled");
    first.expect_end();
    // Its connection lives on, so only the cancel can have handed these back.
    let second = backend.dial();
    let mut receiver = second.receive(&queue, 10);
    let mut rest: Vec<_> = (0..4).map(|_| text(&receiver.next())).collect();
    rest.sort_unstable();
    assert_eq!(rest, ["2", "3", "4", "5"]);
    connection.settle(held);
}

pub(super) fn a_dropped_consumer_is_cancelled(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    connection.send_all(&queue, &["1", "2", "3"]);
    let mut first = connection.receive(&queue, 10);
    let held = first.expect("1");
    drop(first);
    let mut second = connection.receive(&queue, 10);
    let mut rest = [text(&second.next()), text(&second.next())];
    rest.sort_unstable();
    assert_eq!(rest, ["2", "3"]);
    connection.send_all(&queue, &["4"]);
    second.expect("4");
    connection.settle(held);
}

pub(super) fn close_ends_every_waiting_receive(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    let receivers = [
        connection.receive(&queue, 1),
        connection.receive(&queue, 10),
        connection.inbox(),
    ];
    let waiting: Vec<_> = receivers
        .into_iter()
        .map(|mut receiver| {
            nothing_yet(&mut *receiver);
            thread::spawn(move || {
                receiver.expect_end();
                receiver.expect_end();
            })
        })
        .collect();
    connection.close().expect("it closes");
    for receiver in waiting {
        receiver.join().expect("the receive ended");
    }
}

pub(super) fn close_is_idempotent_and_quick(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    connection.send_all(&queue, &["1", "2", "3"]);
    let mut receiver = connection.receive(&queue, 2);
    let _held = receiver.next();
    let begun = Instant::now();
    connection.close().expect("the first time");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(3), "closing took {took:?}");
    connection.close().expect("the second time");
}

pub(super) fn close_resolves_every_open_confirm(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    let confirms: Vec<_> = (0..100)
        .map(|number| connection.post(&queue, Message::new(number.to_string())))
        .collect();
    connection.close().expect("it closes");
    for confirm in confirms {
        match connection.verdict(confirm, SOON) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}"),
        }
    }
}

pub(super) fn after_close_every_verb_is_closed(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    connection.send_all(&queue, &["1", "2"]);
    let mut receiver = connection.receive(&queue, 2);
    let (one, two) = (receiver.next().token, receiver.next().token);
    connection.close().expect("it closes");

    let kind = ErrorKind::Closed;
    let address = Address::queue(queue.clone());
    let published = connection.publish(&address, Message::new("late"), Instant::now() + SOON);
    fails_with("publish", published, kind);
    let spec = QueueSpec::new(queue.clone(), QueueKind::Durable);
    fails_with("declare", connection.declare(&spec), kind);
    let consumed = connection.consume(ConsumeOptions::queue(queue, NonZeroU16::MIN));
    fails_with("consume", consumed, kind);
    let consumed = connection.consume(ConsumeOptions::inbox(Inbox::Exclusive));
    fails_with("consume", consumed, kind);
    fails_with("ack", connection.ack(one.expect("a token")), kind);
    let rejected = connection.reject(two.expect("a token"), Fate::Requeue);
    fails_with("reject", rejected, kind);
}

pub(super) fn close_leaves_other_connections_alone(backend: &dyn Backend) {
    let (one, queue) = backend.with_queue();
    let two = backend.dial();
    let mut receiver = two.receive(&queue, 1);
    one.close().expect("it closes");
    two.send_all(&queue, &["still here"]);
    receiver.expect("still here");
    two.assert_usable();
}
