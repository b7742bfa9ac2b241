//! Consumers share a queue, each within its prefetch, and lose nothing.

use std::num::NonZeroU16;
use std::time::Duration;

use rpc_core::{ConsumeOptions, ErrorKind, Message};

use crate::backend::{Backend, Received};
use crate::steps::{fails_with, text};

pub(super) fn consuming_a_missing_queue_is_not_found(backend: &dyn Backend) {
    let connection = backend.dial();
    for _ in 0..2 {
        let consumed = connection.consume(ConsumeOptions::queue(backend.queue(), NonZeroU16::MIN));
        fails_with("consume", consumed, ErrorKind::NotFound);
    }
    connection.assert_usable();
}

pub(super) fn two_consumers_share_a_queue(backend: &dyn Backend) {
    let (one, queue) = backend.with_queue();
    let two = backend.dial();
    // Each holds what it has, so neither can have taken the other's share.
    let (mut first, mut second) = (one.receive(&queue, 1), two.receive(&queue, 1));
    let mut third = two.receive(&queue, 1);
    one.send_all(&queue, &["a", "b", "c"]);
    let held = [first.next(), second.next(), third.next()];
    let mut shares: Vec<_> = held.iter().map(text).collect();
    shares.sort_unstable();
    assert_eq!(shares, ["a", "b", "c"]);
}

/// What the first consumer does not hold is there for the second one.
pub(super) fn a_consumer_holds_at_most_its_prefetch(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    connection.send_all(&queue, &["1", "2", "3", "4", "5"]);
    let mut first = connection.receive(&queue, 2);
    // Held, so that they are out of the way whether or not the transport reads ahead.
    let _held = [first.expect("1"), first.expect("2")];
    let mut second = connection.receive(&queue, 10);
    for body in ["3", "4", "5"] {
        second.expect(body);
    }
}

pub(super) fn settling_makes_room_for_more(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    let mut receiver = connection.receive(&queue, 1);
    connection.send_all(&queue, &["1", "2", "3"]);
    for body in ["1", "2", "3"] {
        let delivery = receiver.expect(body);
        connection.settle(delivery);
    }
}

pub(super) fn receives_that_are_given_up_lose_nothing(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    let mut receiver = connection.receive(&queue, 200);
    let mut got = Vec::new();
    let mut confirms = Vec::new();
    for number in 0..100 {
        // Given up before, while and after the message arrives.
        for patience in [Duration::ZERO, Duration::from_micros(number * 20)] {
            match receiver.recv_within(patience) {
                Received::Delivery(delivery) => got.push(text(&delivery)),
                Received::Nothing => {}
                other => panic!("a consumer that nobody ended: {other:?}"),
            }
        }
        confirms.push(connection.post(&queue, Message::new(number.to_string())));
    }
    while got.len() < 100 {
        got.push(text(&receiver.next()));
    }
    let all: Vec<_> = (0..100).map(|number: u32| number.to_string()).collect();
    assert_eq!(got, all, "each message once, and in order");
    for confirm in confirms {
        let verdict = connection.verdict(confirm, crate::steps::SOON);
        verdict.expect("all had a route");
    }
}
