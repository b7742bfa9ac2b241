//! Queues are made when asked for, and a refusal costs nobody the transport.

use std::num::NonZeroU16;

use rpc_core::{ConsumeOptions, ErrorKind, Message, QueueKind, QueueSpec, ShortString};

use crate::backend::Backend;
use crate::steps::fails_with;

pub(super) fn declaring_again_changes_nothing(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    connection.send(&queue, Message::new("kept"));
    connection.make(&queue);
    backend.dial().make(&queue);
    connection.receive(&queue, 1).expect("kept");
}

pub(super) fn other_arguments_are_a_conflict(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    let declared = connection.declare(&QueueSpec::new(queue.clone(), QueueKind::Quorum));
    fails_with("declare", declared, ErrorKind::Conflict);
    connection.send(&queue, Message::new("kept"));
    connection.receive(&queue, 1).expect("kept");
    connection.assert_usable();
}

pub(super) fn a_passive_declaration_only_looks(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    connection
        .declare(&QueueSpec::new(queue, QueueKind::Passive))
        .expect("the queue is there");
    let missing = QueueSpec::new(backend.queue(), QueueKind::Passive);
    for _ in 0..2 {
        let declared = connection.declare(&missing);
        fails_with("declare", declared, ErrorKind::NotFound);
    }
    connection.assert_usable();
}

pub(super) fn a_quorum_queue_works(backend: &dyn Backend) {
    let (connection, queue) = (backend.dial(), backend.queue());
    connection
        .declare(&QueueSpec::new(queue.clone(), QueueKind::Quorum))
        .expect("quorum queues are offered");
    connection.send(&queue, Message::new("hello"));
    let delivery = connection.receive(&queue, 1).expect("hello");
    connection.settle(delivery);
}

pub(super) fn a_queue_needs_a_name(backend: &dyn Backend) {
    let connection = backend.dial();
    let nameless = QueueSpec::new(ShortString::default(), QueueKind::Durable);
    fails_with("declare", connection.declare(&nameless), ErrorKind::Misuse);
    connection.assert_usable();
}

/// Refused verbs close a channel of the broker; what went on before must not have been on it.
pub(super) fn refusals_leave_the_rest_of_the_transport_alone(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    let mut receiver = connection.receive(&queue, 10);
    let mut inbox = connection.inbox();
    connection.send(&queue, Message::new("held"));
    let held = receiver.expect("held");

    let conflict = connection.declare(&QueueSpec::new(queue.clone(), QueueKind::Quorum));
    fails_with("declare", conflict, ErrorKind::Conflict);
    let missing = connection.declare(&QueueSpec::new(backend.queue(), QueueKind::Passive));
    fails_with("declare", missing, ErrorKind::NotFound);
    let missing = connection.consume(ConsumeOptions::queue(backend.queue(), NonZeroU16::MIN));
    fails_with("consume", missing, ErrorKind::NotFound);
    let lost = connection.try_send(&backend.queue(), Message::new("lost"));
    fails_with("publish", lost, ErrorKind::NoRoute);

    connection.settle(held);
    connection.send_all(&queue, &["next"]);
    let next = receiver.expect("next");
    assert!(!next.redelivered, "nothing came again");
    connection.send_all(&inbox.queue().clone(), &["reply"]);
    inbox.expect("reply");
    connection.assert_usable();
}
