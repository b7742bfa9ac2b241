//! What queues do besides keeping messages. Where a transport has no limits or no dead letters it
//! says so when such a queue is declared, and the rest of the case is passed over.

use rpc_core::{ErrorKind, Fate, HeaderValue, Message, QueueKind, QueueSpec, ShortString};

use crate::backend::{Backend, Connection, Receiver};
use crate::steps::{fails_with, short};

/// Declares a queue, where the transport has such.
#[track_caller]
fn has(connection: &dyn Connection, spec: &QueueSpec) -> bool {
    match connection.declare(spec) {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            assert!(!spec.is_plain(), "a plain queue must be there: {error:?}");
            connection.assert_usable();
            false
        }
        Err(error) => panic!("cannot declare: {error:?}"),
    }
}

pub(super) fn every_preset_can_be_declared_again(backend: &dyn Backend) {
    let connection = backend.dial();
    for preset in [QueueSpec::durable, QueueSpec::quorum, QueueSpec::transient] {
        let spec = preset(backend.queue());
        if has(&*connection, &spec) {
            connection.declare(&spec).expect("it is there, as wanted");
            let other = backend.dial();
            other.declare(&spec).expect("others want the same");
            connection.send_all(&spec.name, &["hello"]);
            let delivery = other.receive(&spec.name, 1).expect("hello");
            other.settle(delivery);
        }
    }
}

pub(super) fn the_argument_that_differs_is_named(backend: &dyn Backend) {
    let connection = backend.dial();
    let spec = QueueSpec::quorum(backend.queue());
    if !has(&*connection, &spec) {
        return;
    }
    for (differing, argument) in [
        (spec.clone().with_max_length(7), "x-max-length"),
        (spec.clone().with_delivery_limit(7), "x-delivery-limit"),
        (
            spec.clone().with_dead_letter_to(backend.queue()),
            "x-dead-letter-routing-key",
        ),
    ] {
        let error = connection.declare(&differing).expect_err("it differs");
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
        // Some brokers do not say, but none says what is wrong.
        if let Some(named) = error.conflicting_argument() {
            assert_eq!(named, argument, "{error:?}");
        }
    }
    connection.declare(&spec).expect("it is as it was");
}

pub(super) fn what_no_broker_can_declare_is_misuse(backend: &dyn Backend) {
    let connection = backend.dial();
    let long = short("x".repeat(255));
    for spec in [
        QueueSpec::durable(backend.queue()).with_delivery_limit(3),
        QueueSpec::durable(long).with_dead_letter(),
        QueueSpec::durable(backend.queue()).with_dead_letter_to(ShortString::default()),
    ] {
        let error = connection.declare(&spec).expect_err("it cannot be");
        let told = matches!(error.kind(), ErrorKind::Misuse | ErrorKind::Unsupported);
        assert!(told, "{error:?}");
    }
    connection.assert_usable();
}

pub(super) fn a_full_queue_refuses_and_takes_again_when_there_is_room(backend: &dyn Backend) {
    let connection = backend.dial();
    let spec = QueueSpec::durable(backend.queue()).with_max_length(5);
    if !has(&*connection, &spec) {
        return;
    }
    for number in 0..5 {
        connection.send(&spec.name, Message::new(number.to_string()));
    }
    let sixth = connection.try_send(&spec.name, Message::new("too many"));
    fails_with("publish", sixth, ErrorKind::Refused);
    let mut receiver = connection.receive(&spec.name, 1);
    for number in 0..5 {
        let delivery = receiver.expect(&number.to_string());
        connection.settle(delivery);
    }
    connection.send_all(&spec.name, &["again"]);
    receiver.expect("again");
}

pub(super) fn what_is_discarded_is_found_among_the_dead_letters(backend: &dyn Backend) {
    let connection = backend.dial();
    let spec = QueueSpec::durable(backend.queue()).with_dead_letter();
    if !has(&*connection, &spec) {
        return;
    }
    let sent = Message {
        correlation_id: Some(short("call-1")),
        reply_to: Some(short("amq.gen-somewhere")),
        ..Message::new("discarded")
    };
    connection.send(&spec.name, sent.clone());
    connection.send_all(&spec.name, &["done"]);
    let mut receiver = connection.receive(&spec.name, 2);
    let discarded = receiver.expect("discarded");
    let token = discarded.token.expect("it is to be settled");
    connection.reject(token, Fate::Discard).expect("rejected");
    connection.settle(receiver.expect("done"));

    let mut dead = connection.receive(&dead_letters(&spec), 2);
    let letter = dead.expect("discarded");
    assert_eq!(letter.message.correlation_id, sent.correlation_id);
    assert_eq!(letter.message.reply_to, sent.reply_to);
    let reason = letter.message.headers.get("x-first-death-reason");
    assert_eq!(reason, Some(&HeaderValue::from("rejected")));
    connection.settle(letter);
}

pub(super) fn a_quorum_queue_counts_its_deliveries(backend: &dyn Backend) {
    let (connection, queue) = (backend.dial(), backend.queue());
    let spec = QueueSpec::new(queue.clone(), QueueKind::Quorum);
    assert!(has(&*connection, &spec), "quorum queues are offered");
    connection.send_all(&queue, &["again and again"]);
    let lost = backend.dial();
    let mut receiver = lost.receive(&queue, 1);
    for count in 0..2 {
        let token = counted(&mut *receiver, count);
        lost.reject(token, Fate::Requeue).expect("requeued");
    }
    // The last time it is not given back, but lost with its consumer.
    let _ = counted(&mut *receiver, 2);
    lost.close().expect("closed");
    let mut receiver = connection.receive(&queue, 1);
    let token = counted(&mut *receiver, 3);
    connection.ack(token).expect("acknowledged");
}

pub(super) fn what_is_over_the_delivery_limit_is_a_dead_letter(backend: &dyn Backend) {
    let connection = backend.dial();
    let spec = QueueSpec::quorum(backend.queue()).with_delivery_limit(2);
    if !has(&*connection, &spec) {
        return;
    }
    connection.send_all(&spec.name, &["poison", "next"]);
    let mut receiver = connection.receive(&spec.name, 1);
    for count in 0..=2 {
        let token = counted(&mut *receiver, count);
        connection.reject(token, Fate::Requeue).expect("requeued");
    }
    receiver.expect("next");
    let mut dead = connection.receive(&dead_letters(&spec), 1);
    let letter = dead.expect("poison");
    let reason = letter.message.headers.get("x-first-death-reason");
    assert_eq!(reason, Some(&HeaderValue::from("delivery_limit")));
    connection.settle(letter);
}

pub(super) fn of_dead_letters_the_newest_are_kept(backend: &dyn Backend) {
    let connection = backend.dial();
    let spec = QueueSpec::quorum(backend.queue()).with_dead_letters_kept(2);
    if !has(&*connection, &spec) {
        return;
    }
    let dead = dead_letters(&spec);
    connection.send_all(&dead, &["0", "1", "2"]);
    let mut receiver = connection.receive(&dead, 2);
    for body in ["1", "2"] {
        let letter = receiver.expect(body);
        connection.settle(letter);
    }
}

pub(super) fn a_queue_for_dead_letters_without_that_limit_is_a_conflict(backend: &dyn Backend) {
    let connection = backend.dial();
    let spec = QueueSpec::quorum(backend.queue());
    let dead = QueueSpec::new(dead_letters(&spec), QueueKind::Quorum);
    if !has(&*connection, &dead) || !has(&*connection, &QueueSpec::quorum(backend.queue())) {
        return;
    }
    let error = connection.declare(&spec).expect_err("it differs");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    if let Some(named) = error.conflicting_argument() {
        assert_eq!(named, "x-max-length", "{error:?}");
        let said = format!("{error:?}");
        assert!(said.contains(dead.name.as_str()), "which queue? {said}");
    }
    connection.assert_usable();
}

/// The token of the next delivery, which must say that it came so often before.
#[track_caller]
fn counted(receiver: &mut dyn Receiver, count: i64) -> rpc_core::AckToken {
    let delivery = receiver.next();
    let header = delivery.message.headers.get("x-delivery-count");
    let said = header.and_then(HeaderValue::as_int);
    // Absent or zero at the first time, as the broker likes.
    assert_eq!(said.unwrap_or(0), count, "{:?}", delivery.message);
    assert_eq!(delivery.redelivered, count > 0);
    delivery.token.expect("a delivery of a queue has a token")
}

/// The name of the queue for dead letters.
fn dead_letters(spec: &QueueSpec) -> ShortString {
    let dead = spec.dead_letter_queue().expect("its name is short");
    dead.expect("it has dead letters").name
}
