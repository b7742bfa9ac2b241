//! What the transport does with a broker that is well.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rpc_core::blocking::Transport;
use rpc_core::{
    AckToken, Address, Certainty, ConsumeOptions, ConsumerId, DeliveryMode, ErrorKind, Expiration,
    Fate, HeaderValue, Inbox, Message, QueueKind, QueueSpec, ShortString,
};
use support::*;
use transport_amiquip::{AmiquipConfig, AmiquipTransport, Confirms};

fn text(text: &str) -> Option<ShortString> {
    Some(ShortString::new(text).unwrap())
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn every_property_and_header_comes_back_as_it_was_sent() {
    let transport = connect();
    let queue = queue(&transport, "properties");
    let mut consumer = transport.consume(work(&queue, 8)).unwrap();
    let mut message = Message::new(Bytes::from_static(b"30"));
    message.content_type = text("text/plain");
    message.correlation_id = text(&"c".repeat(255));
    message.delivery_mode = DeliveryMode::Persistent;
    message.expiration = Expiration::parse("60000");
    message.kind = text("fib");
    message.message_id = text("m-1");
    message.reply_to = text("somewhere");
    for (name, value) in [
        ("bytes", HeaderValue::Bytes(Bytes::from_static(&[0xff, 0]))),
        ("flag", HeaderValue::Flag(true)),
        ("float", HeaderValue::Float(0.5)),
        ("int", HeaderValue::Int(i64::MIN)),
        ("text", HeaderValue::Text("é".to_owned())),
    ] {
        message.headers.insert(name, value).unwrap();
    }
    send(&transport, &queue, message.clone()).unwrap();
    let delivery = next(&mut *consumer);
    assert_eq!(delivery.message, message);
    assert!(!delivery.redelivered);
    transport.ack(delivery.token.unwrap()).unwrap();
    transport.close().unwrap();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn bodies_of_nothing_and_of_many_frames_arrive_whole() {
    let transport = connect();
    let queue = queue(&transport, "bodies");
    let mut consumer = transport.consume(work(&queue, 8)).unwrap();
    for size in [0, 1, 131_064, 131_065, 5_000_000] {
        let body: Vec<u8> = (0..size).map(|place| place as u8).collect();
        send(&transport, &queue, Message::new(body.clone())).unwrap();
        let delivery = next(&mut *consumer);
        assert!(delivery.message.body == body, "{size} bytes");
        transport.ack(delivery.token.unwrap()).unwrap();
    }
    transport.close().unwrap();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn what_is_requeued_comes_again_and_what_is_settled_does_not() {
    let transport = connect();
    let queue = queue(&transport, "settle");
    let mut consumer = transport.consume(work(&queue, 8)).unwrap();
    for body in ["ack", "requeue", "discard", "open"] {
        send(&transport, &queue, Message::new(body)).unwrap();
    }
    let mut token = || next(&mut *consumer).token.unwrap();
    let tokens = [token(), token(), token(), token()];
    let [ack, requeue, discard, open] = tokens;
    // Out of order, so that a joined acknowledgement would take too much.
    transport.reject(discard, Fate::Discard).unwrap();
    transport.reject(requeue, Fate::Requeue).unwrap();
    let again = next(&mut *consumer);
    assert_eq!(again.message.body, "requeue");
    assert!(again.redelivered);
    transport.ack(again.token.unwrap()).unwrap();
    transport.ack(ack).unwrap();
    drop(open);
    transport.close().unwrap();

    let transport = connect();
    let mut consumer = transport.consume(work(&queue, 8)).unwrap();
    let left = next(&mut *consumer);
    assert_eq!(left.message.body, "open");
    assert!(left.redelivered);
    send(&transport, &queue, Message::new("end")).unwrap();
    assert_eq!(next(&mut *consumer).message.body, "end");
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn acknowledgements_from_many_threads_in_any_order_lose_nothing() {
    let transport = connect();
    let queue = queue(&transport, "acks");
    let mut consumer = transport.consume(work(&queue, 64)).unwrap();
    let confirms: Vec<_> = (0..2_000)
        .map(|number: u32| {
            let message = Message::new(number.to_string());
            let to = Address::queue(queue.clone());
            transport.publish(&to, message, soon()).unwrap()
        })
        .collect();
    thread::scope(|scope| {
        let (tokens, to_ack) = crossbeam_channel::unbounded::<(u32, AckToken)>();
        for _ in 0..4 {
            let (to_ack, tokens, transport) = (to_ack.clone(), tokens.clone(), &transport);
            // A tenth is settled in another way, so that the runs have gaps.
            scope.spawn(move || {
                drop(tokens);
                for (number, token) in to_ack {
                    match number % 10 {
                        3 => transport.reject(token, Fate::Discard).unwrap(),
                        _ => transport.ack(token).unwrap(),
                    }
                }
            });
        }
        drop(to_ack);
        for number in 0..2_000 {
            let delivery = next(&mut *consumer);
            assert!(!delivery.redelivered);
            tokens.send((number, delivery.token.unwrap())).unwrap();
        }
    });
    for confirm in confirms {
        confirm.wait(soon()).unwrap();
    }
    transport.close().unwrap();
    let transport = connect();
    let mut consumer = transport.consume(work(&queue, 1)).unwrap();
    send(&transport, &queue, Message::new("end")).unwrap();
    assert_eq!(next(&mut *consumer).message.body, "end");
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn of_two_thousand_publishes_exactly_those_without_a_queue_have_no_route() {
    let transport = connect();
    let queue = queue(&transport, "pipelined");
    let nowhere = unique("nowhere");
    for id in [Some("same"), None, Some("own")] {
        let confirms: Vec<_> = (0..2_000)
            .map(|number| {
                let to = if number % 2 == 0 { &queue } else { &nowhere };
                let mut message = Message::new("x");
                message.correlation_id = id.and_then(|id| match id {
                    "own" => text(&format!("{number}")),
                    same => text(same),
                });
                let to = Address::queue(to.clone());
                transport.publish(&to, message, soon()).unwrap()
            })
            .collect();
        for (number, confirm) in confirms.into_iter().enumerate() {
            let kind = confirm.wait(soon()).err().map(|error| error.kind());
            let expected = (number % 2 == 1).then_some(ErrorKind::NoRoute);
            assert_eq!(kind, expected, "publish {number} with id {id:?}");
        }
    }
    transport.close().unwrap();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn no_route_is_known_in_about_a_round_trip() {
    let transport = connect();
    let nowhere = unique("nowhere");
    let started = Instant::now();
    let error = send(&transport, &nowhere, Message::new("x")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoRoute);
    assert!(started.elapsed() < Duration::from_secs(1));
    // Without confirms it is not known at all.
    let config = AmiquipConfig::new(url()).with_confirms(Confirms::Off);
    let transport = AmiquipTransport::connect(config).unwrap();
    send(&transport, &nowhere, Message::new("x")).unwrap();
    let queue = queue(&transport, "unconfirmed");
    let mut consumer = transport.consume(work(&queue, 1)).unwrap();
    send(&transport, &queue, Message::new("x")).unwrap();
    assert_eq!(next(&mut *consumer).message.body, "x");
    transport.close().unwrap();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_passed_deadline_keeps_a_message_here() {
    let transport = connect();
    let queue = queue(&transport, "deadline");
    let to = Address::queue(queue.clone());
    let error = transport
        .publish(&to, Message::new("late"), Instant::now())
        .and_then(|confirm| confirm.wait(soon()))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.certainty(), Certainty::NotExecuted);
    let mut consumer = transport.consume(work(&queue, 1)).unwrap();
    send(&transport, &queue, Message::new("in time")).unwrap();
    assert_eq!(next(&mut *consumer).message.body, "in time");
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn an_inbox_has_a_name_of_its_own_and_needs_no_acks() {
    let transport = connect();
    let mut one = transport
        .consume(ConsumeOptions::inbox(Inbox::Exclusive))
        .unwrap();
    let two = transport
        .consume(ConsumeOptions::inbox(Inbox::Exclusive))
        .unwrap();
    assert_ne!(one.queue(), two.queue());
    let name = one.queue().clone();
    send(&transport, &name, Message::new("reply")).unwrap();
    let delivery = next(&mut *one);
    assert_eq!(delivery.message.body, "reply");
    assert_eq!(delivery.token, None);
    // Gone with its consumer.
    transport.cancel(one.id()).unwrap();
    let error = send(&transport, &name, Message::new("late")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoRoute);
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn refusals_are_typed_and_leave_the_transport_usable() {
    let transport = connect();
    let kind_of = |name: &ShortString, kind| {
        let error = transport.declare(&QueueSpec::new(name.clone(), kind));
        error.err().map(|error| error.kind())
    };
    let known = queue(&transport, "known");
    let missing = unique("missing");
    let reserved = ShortString::from_static("amq.reserved");
    for _ in 0..5 {
        assert_eq!(kind_of(&known, QueueKind::Durable), None);
        assert_eq!(kind_of(&known, QueueKind::Passive), None);
        assert_eq!(
            kind_of(&known, QueueKind::Transient),
            Some(ErrorKind::Conflict)
        );
        assert_eq!(
            kind_of(&missing, QueueKind::Passive),
            Some(ErrorKind::NotFound)
        );
        assert_eq!(
            kind_of(&reserved, QueueKind::Durable),
            Some(ErrorKind::Denied)
        );
        let error = transport.consume(work(&missing, 1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let foreign = AckToken::new(ConsumerId::unique(), 1);
        let error = transport.ack(foreign).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse);
        let error = transport.cancel(ConsumerId::unique()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse);
    }
    let mut consumer = transport.consume(work(&known, 1)).unwrap();
    let forged = AckToken::new(consumer.id(), 7);
    assert_eq!(transport.ack(forged).unwrap_err().kind(), ErrorKind::Misuse);
    send(&transport, &known, Message::new("still here")).unwrap();
    assert_eq!(next(&mut *consumer).message.body, "still here");
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn cancel_wakes_a_waiting_recv_and_what_was_delivered_can_be_settled() {
    let transport = connect();
    let queue = queue(&transport, "cancel");
    let mut consumer = transport.consume(work(&queue, 8)).unwrap();
    let id = consumer.id();
    send(&transport, &queue, Message::new("taken")).unwrap();
    let token = next(&mut *consumer).token.unwrap();
    let (ended, end) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            ended.send(consumer.recv().unwrap().is_none()).unwrap();
            assert!(consumer.recv().unwrap().is_none());
        });
        transport.cancel(id).unwrap();
        assert!(end.recv_timeout(PATIENCE).unwrap());
    });
    transport.ack(token).unwrap();
    transport.cancel(id).unwrap();
    transport.close().unwrap();
    let transport = connect();
    let mut consumer = transport.consume(work(&queue, 8)).unwrap();
    send(&transport, &queue, Message::new("end")).unwrap();
    assert_eq!(next(&mut *consumer).message.body, "end");
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn cancel_gives_back_at_once_what_was_not_received() {
    let transport = connect();
    let queue = queue(&transport, "give-back");
    let first = transport.consume(work(&queue, 100)).unwrap();
    let confirms: Vec<_> = (0..100)
        .map(|_| {
            let to = Address::queue(queue.clone());
            transport.publish(&to, Message::new("x"), soon()).unwrap()
        })
        .collect();
    for confirm in confirms {
        confirm.wait(soon()).unwrap();
    }
    transport.cancel(first.id()).unwrap();
    let mut second = transport.consume(work(&queue, 1)).unwrap();
    for _ in 0..100 {
        let token = next(&mut *second).token.unwrap();
        transport.ack(token).unwrap();
    }
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn cancel_against_a_receiver_at_work_hangs_neither_and_loses_nothing() {
    let transport = connect();
    let queue = queue(&transport, "race");
    let to = Address::queue(queue.clone());
    for round in 0..100 {
        let mut consumer = transport.consume(work(&queue, 32)).unwrap();
        let id = consumer.id();
        let confirms: Vec<_> = (0..20)
            .map(|_| transport.publish(&to, Message::new("x"), soon()).unwrap())
            .collect();
        let received = thread::scope(|scope| {
            let transport = &transport;
            let receiver = scope.spawn(move || {
                let mut received = 0;
                while let Some(delivery) = consumer.recv().unwrap() {
                    transport.ack(delivery.token.unwrap()).unwrap();
                    received += 1;
                }
                received
            });
            for confirm in confirms {
                confirm.wait(soon()).unwrap();
            }
            transport.cancel(id).unwrap();
            receiver.join().unwrap()
        });
        let mut rest = transport.consume(work(&queue, 32)).unwrap();
        for _ in received..20 {
            let token = next(&mut *rest).token.unwrap();
            transport.ack(token).unwrap();
        }
        drop(rest);
        assert!(received <= 20, "round {round}");
    }
    transport.close().unwrap();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn two_hundred_dropped_consumers_do_not_cost_the_connection() {
    let transport = connect();
    let queue = queue(&transport, "drop");
    for _ in 0..200 {
        drop(transport.consume(work(&queue, 8)).unwrap());
        drop(
            transport
                .consume(ConsumeOptions::inbox(Inbox::Exclusive))
                .unwrap(),
        );
    }
    let mut consumer = transport.consume(work(&queue, 1)).unwrap();
    send(&transport, &queue, Message::new("alive")).unwrap();
    assert_eq!(next(&mut *consumer).message.body, "alive");
    transport.close().unwrap();
}
