//! Tests of what queues do besides keeping messages: limits, dead letters, what a crash leaves.

use std::time::Duration;

use rpc_core::{DeliveryMode, Fate, Message, QueueKind, QueueSpec, ShortString};

use super::tests::{Bench, WORK};
use crate::refusal::Refusal;

const DEAD: ShortString = ShortString::from_static("work.dead");

/// A broker with the quorum queue `work` and its limits.
fn quorum(limit: u32) -> Bench {
    let mut bench = Bench::empty(100);
    let spec = QueueSpec::quorum(WORK).with_delivery_limit(limit);
    bench.declare(&spec).unwrap();
    bench
}

/// Bodies and reasons of what is in the queue for dead letters.
fn dead(bench: &mut Bench) -> Vec<(String, String)> {
    let id = bench.consume_from(&DEAD, 100);
    std::iter::from_fn(|| bench.parcel(id))
        .map(|parcel| {
            let body = String::from_utf8(parcel.message.body.to_vec()).unwrap();
            let reason = parcel.message.headers.get("x-first-death-reason").unwrap();
            assert_eq!(parcel.message.expiration, None, "it would die again");
            (body, reason.as_text().unwrap().to_owned())
        })
        .collect()
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(body, reason): &(&str, &str)| ((*body).to_owned(), (*reason).to_owned());
    all.iter().map(owned).collect()
}

#[test]
fn a_message_is_delivered_once_more_than_the_limit_and_is_dead_then() {
    for limit in [1, 3] {
        let mut bench = quorum(limit);
        bench.publish("work", "poison").unwrap();
        let id = bench.consume(1);
        for count in 0..=limit {
            let parcel = bench.parcel(id).unwrap();
            assert_eq!(parcel.returns, count);
            assert!(parcel.counted);
            bench.settle(&parcel.token.unwrap(), Fate::Requeue).unwrap();
        }
        assert!(bench.parcel(id).is_none());
        assert_eq!(dead(&mut bench), pairs(&[("poison", "delivery_limit")]));
    }
}

#[test]
fn a_lost_consumer_counts_as_well_and_once() {
    let mut bench = quorum(1);
    bench.publish("work", "poison").unwrap();
    for count in [0, 1] {
        let other = bench.broker.connect();
        let own = std::mem::replace(&mut bench.on, other);
        let id = bench.consume(1);
        assert_eq!(bench.parcel(id).unwrap().returns, count);
        bench.sever();
        bench.on = own;
    }
    assert_eq!(bench.ready(), Some(0));
    assert_eq!(dead(&mut bench), pairs(&[("poison", "delivery_limit")]));
}

#[test]
fn what_is_discarded_or_expires_is_a_dead_letter_and_what_is_done_is_not() {
    let mut bench = quorum(3);
    let id = bench.consume(1);
    for body in ["done", "discarded"] {
        bench.publish("work", body).unwrap();
    }
    bench.publish_for("expired", 10);
    let done = bench.token(id);
    bench.acknowledge(&done).unwrap();
    let discarded = bench.token(id);
    bench.now += Duration::from_millis(11);
    bench.settle(&discarded, Fate::Discard).unwrap();
    assert!(bench.parcel(id).is_none());
    assert_eq!(
        dead(&mut bench),
        pairs(&[("discarded", "rejected"), ("expired", "expired")])
    );
}

#[test]
fn of_dead_letters_the_newest_are_kept_and_without_a_queue_none() {
    let mut bench = Bench::empty(9);
    let spec = QueueSpec::durable(WORK).with_dead_letter();
    bench.declare(&spec.with_dead_letters_kept(2)).unwrap();
    let id = bench.consume(1);
    for body in ["0", "1", "2"] {
        bench.publish("work", body).unwrap();
        let token = bench.token(id);
        bench.settle(&token, Fate::Discard).unwrap();
    }
    assert_eq!(
        dead(&mut bench),
        pairs(&[("1", "rejected"), ("2", "rejected")])
    );
    bench.with(|broker, _, _, effects| broker.delete(&DEAD, effects));
    bench.publish("work", "2").unwrap();
    let token = bench.token(id);
    bench.settle(&token, Fate::Discard).unwrap();
}

#[test]
fn a_queue_refuses_what_is_over_its_own_length() {
    let mut bench = Bench::empty(100);
    bench
        .declare(&QueueSpec::durable(WORK).with_max_length(1))
        .unwrap();
    bench.publish("work", "0").unwrap();
    let full = Refusal::Full { name: WORK, max: 1 };
    assert_eq!(bench.publish("work", "1"), Err(full));
}

#[test]
fn a_queue_that_keeps_the_newest_drops_its_oldest() {
    let mut bench = Bench::empty(100);
    bench
        .declare(&QueueSpec::durable(WORK).with_newest(2))
        .unwrap();
    for body in ["0", "1", "2"] {
        bench.publish("work", body).unwrap();
    }
    assert_eq!(bench.ready(), Some(2));
    let id = bench.consume(2);
    assert_eq!(bench.parcel(id).unwrap().message.body, "1");
}

#[test]
fn each_argument_that_differs_is_named() {
    let spec = QueueSpec::quorum(WORK);
    let other = ShortString::from_static("elsewhere");
    for (differing, argument) in [
        (QueueSpec::new(WORK, QueueKind::Transient), "auto_delete"),
        (QueueSpec::durable(WORK), "x-queue-type"),
        (spec.clone().with_delivery_limit(1), "x-delivery-limit"),
        (spec.clone().with_max_length(1), "x-max-length"),
        (
            spec.clone().with_newest(QueueSpec::MAX_LENGTH),
            "x-overflow",
        ),
        (spec.clone().without_dead_letter(), "x-dead-letter-exchange"),
        (
            spec.clone().with_dead_letter_to(other),
            "x-dead-letter-routing-key",
        ),
    ] {
        let mut bench = Bench::empty(100);
        bench.declare(&spec).unwrap();
        bench.declare(&spec).unwrap();
        let name = WORK;
        assert_eq!(
            bench.declare(&differing),
            Err(Refusal::Differs { name, argument })
        );
    }
}

#[test]
fn a_crash_leaves_persistent_messages_of_queues_that_stay() {
    let mut bench = Bench::empty(100);
    let [quorum, gone] = ["quorum", "gone"].map(ShortString::from_static);
    for spec in [
        QueueSpec::durable(WORK),
        QueueSpec::quorum(quorum.clone()),
        QueueSpec::transient(gone.clone()),
    ] {
        bench.declare(&spec).unwrap();
    }
    for to in ["work", "quorum", "gone"] {
        for delivery_mode in [DeliveryMode::Persistent, DeliveryMode::Transient] {
            let message = Message {
                delivery_mode,
                ..Message::new(format!("{delivery_mode:?}"))
            };
            bench.publish_message(to, message).unwrap();
        }
    }
    // One of them is out when it comes, with a consumer on either connection.
    bench.broker.connect();
    let id = bench.consume(1);
    bench.parcel(id).unwrap();
    bench.with(|broker, _, now, effects| broker.crash(now, effects));
    assert_eq!(bench.publish("work", "x"), Err(Refusal::Severed));

    bench.on = bench.broker.connect();
    let id = bench.consume(9);
    let survivor = bench.parcel(id).unwrap();
    assert_eq!(survivor.message.delivery_mode, DeliveryMode::Persistent);
    assert_eq!(survivor.returns, 1);
    assert!(bench.parcel(id).is_none());
    let id = bench.consume_from(&quorum, 9);
    assert_eq!(std::iter::from_fn(|| bench.parcel(id)).count(), 2);
    assert_eq!(bench.publish("gone", "x"), Err(Refusal::NoRoute(gone)));
}

#[test]
fn nobody_connects_to_a_broker_that_is_stopped() {
    let mut bench = Bench::new(QueueKind::Durable, 10);
    bench.with(|broker, _, now, effects| broker.stop(now, effects));
    assert!(bench.broker.is_stopped());
    bench.on = bench.broker.connect();
    assert_eq!(bench.publish("work", "x"), Err(Refusal::Severed));
    assert_eq!(bench.broker.open_connections(), 0);
    bench.broker.start();
    bench.on = bench.broker.connect();
    bench.publish("work", "x").unwrap();
    assert_eq!(bench.broker.open_connections(), 1);
}
