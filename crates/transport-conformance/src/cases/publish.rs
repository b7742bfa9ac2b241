//! What is published arrives as it was, in order, or its sender hears that it does not.

use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rpc_core::{
    Address, Certainty, DeliveryMode, ErrorKind, Expiration, HeaderValue, Headers, Message,
    ShortString,
};

use crate::backend::{Backend, Connection};
use crate::steps::{AT_ONCE, SOON, eventually, fails_with, fresh_name, short, text};

pub(super) fn what_is_published_is_consumed(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    connection.send(&queue, Message::new("hello"));
    let mut receiver = connection.receive(&queue, 1);
    let delivery = receiver.expect("hello");
    assert!(!delivery.redelivered, "it was never delivered before");
    assert!(delivery.received_at <= Instant::now());
    assert_eq!(receiver.queue(), &queue);
    let token = delivery.token.expect("a delivery of a queue has a token");
    assert_eq!(token.consumer(), receiver.id());
    connection.ack(token).expect("it can be acknowledged");
}

/// Around the largest body that fits one frame of RabbitMQ's default size, and beyond.
pub(super) fn bodies_of_any_size_survive(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    let mut receiver = connection.receive(&queue, 1);
    for len in [0, 1, 131_063, 131_064, 131_065, 1 << 20] {
        let body: Bytes = (0..len).map(|place| (place % 251) as u8).collect();
        connection.send(&queue, Message::new(body.clone()));
        let delivery = receiver.next();
        assert!(delivery.message.body == body, "a body of {len} bytes");
        connection.settle(delivery);
    }
}

pub(super) fn all_properties_and_headers_survive(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    let mut headers = Headers::new();
    let values = [
        ("bytes", HeaderValue::Bytes(Bytes::from_static(b"\x00\xff"))),
        (
            "bytes that could be text",
            HeaderValue::Bytes(Bytes::from_static(b"abc")),
        ),
        ("false", HeaderValue::Flag(false)),
        ("float", HeaderValue::Float(1.5)),
        ("least", HeaderValue::Int(i64::MIN)),
        ("most", HeaderValue::Int(i64::MAX)),
        ("text", HeaderValue::from("gr\u{fc}\u{df}e")),
        ("empty", HeaderValue::from("")),
        ("long", HeaderValue::from("x".repeat(10_000))),
        ("true", HeaderValue::Flag(true)),
    ];
    for (name, value) in values {
        headers.insert(name, value).expect("they fit");
    }
    let sent = Message {
        body: Bytes::from_static(b"30"),
        content_type: Some(short("text/plain")),
        correlation_id: Some(short("call-1 \u{e9}")),
        delivery_mode: DeliveryMode::Persistent,
        expiration: Some(Expiration::after(Duration::from_secs(60))),
        headers,
        kind: Some(short("fib")),
        message_id: Some(short("message-1")),
        reply_to: Some(short("amq.gen-somewhere")),
    };
    connection.send(&queue, sent.clone());
    let got = connection.receive(&queue, 1).next().message;
    // The order of headers is nobody's promise.
    for (name, value) in sent.headers.iter() {
        let arrived = got.headers.get(name.as_str());
        assert!(arrived == Some(value), "header {name} did not survive");
    }
    assert_eq!(got.headers.iter().count(), sent.headers.iter().count());
    let bare = |message| Message {
        headers: Headers::new(),
        ..message
    };
    assert_eq!(bare(got), bare(sent));
}

pub(super) fn what_is_absent_stays_absent(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    connection.send(&queue, Message::new("bare"));
    let delivery = connection.receive(&queue, 1).next();
    assert_eq!(delivery.message, Message::new("bare"));
}

pub(super) fn an_unknown_queue_is_no_route_at_once(backend: &dyn Backend) {
    let connection = backend.dial();
    let begun = Instant::now();
    let verdict = connection.try_send(&backend.queue(), Message::new("lost"));
    let took = begun.elapsed();
    assert!(took < AT_ONCE, "no route is known at once, not in {took:?}");
    let error = verdict.expect_err("no queue has this name");
    assert_eq!(error.kind(), ErrorKind::NoRoute, "{error:?}");
    assert_eq!(error.certainty(), Certainty::NotExecuted);
    connection.assert_usable();
}

pub(super) fn only_the_unroutable_of_many_are_no_route(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    let nowhere = backend.queue();
    let confirms: Vec<_> = (0..200)
        .map(|number| {
            let to = if number % 2 == 0 { &queue } else { &nowhere };
            // Like requests in flight, each with an identity of its own.
            let message = Message {
                correlation_id: Some(short(format!("call-{number}"))),
                ..Message::new(number.to_string())
            };
            (number, connection.post(to, message))
        })
        .collect();
    for (number, confirm) in confirms {
        match connection.verdict(confirm, SOON) {
            Ok(()) => assert_eq!(number % 2, 0, "message {number} had no route"),
            Err(error) => {
                assert_eq!(number % 2, 1, "message {number} had one: {error:?}");
                assert_eq!(error.kind(), ErrorKind::NoRoute, "{error:?}");
            }
        }
    }
    let mut receiver = connection.receive(&queue, 100);
    for number in (0..200).step_by(2) {
        receiver.expect(&number.to_string());
    }
}

pub(super) fn publishes_of_one_thread_keep_their_order(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    let mut receiver = connection.receive(&queue, 500);
    let confirms: Vec<_> = (0..500)
        .map(|number| connection.post(&queue, Message::new(number.to_string())))
        .collect();
    for number in 0..500 {
        receiver.expect(&number.to_string());
    }
    for confirm in confirms {
        connection.verdict(confirm, SOON).expect("all had a route");
    }
}

pub(super) fn many_threads_publish_at_once(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    let connection: &dyn Connection = &*connection;
    let queue = &queue;
    thread::scope(|scope| {
        for lane in 0..8 {
            scope.spawn(move || {
                for number in 0..50 {
                    connection.send(queue, Message::new(format!("{lane}/{number}")));
                }
            });
        }
    });
    let mut receiver = connection.receive(queue, 400);
    let mut seen: Vec<_> = (0..400).map(|_| text(&receiver.next())).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 400, "each arrives, and once");
}

pub(super) fn names_of_255_bytes_pass(backend: &dyn Backend) {
    let connection = backend.dial();
    let long = |begin: &ShortString| short(format!("{begin:x<255}", begin = begin.as_str()));
    let queue = long(&fresh_name());
    connection.make(&queue);
    let mut headers = Headers::new();
    let name = long(&short("header"));
    headers.insert(name.as_str(), 1).expect("it fits");
    let sent = Message {
        content_type: Some(long(&short("text/"))),
        correlation_id: Some(long(&short("correlation"))),
        headers,
        kind: Some(long(&short("kind"))),
        message_id: Some(long(&short("message"))),
        reply_to: Some(long(&short("reply"))),
        ..Message::new("long names")
    };
    connection.send(&queue, sent.clone());
    let delivery = connection.receive(&queue, 1).next();
    assert_eq!(delivery.message, sent);
    let missing = long(&fresh_name());
    let verdict = connection.try_send(&missing, Message::new("lost"));
    fails_with("publish", verdict, ErrorKind::NoRoute);
}

pub(super) fn what_has_expired_is_not_delivered(backend: &dyn Backend) {
    const LIFETIME: Duration = Duration::from_millis(50);
    let (connection, queue) = backend.with_queue();
    connection.send(
        &queue,
        Message {
            expiration: Some(Expiration::after(LIFETIME)),
            ..Message::new("stale")
        },
    );
    let begun = Instant::now();
    connection.send(&queue, Message::new("fresh"));
    // The lifetime is the broker's to measure, and nothing that could be observed ends it: the
    // clock is the condition.
    while begun.elapsed() < LIFETIME + Duration::from_millis(20) {
        thread::sleep(Duration::from_millis(5));
    }
    connection.receive(&queue, 10).expect("fresh");
}

pub(super) fn a_blocked_publish_waits_for_its_deadline_and_acks_go_on(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    assert!(!connection.is_blocked(), "nothing is wrong yet");
    connection.send(&queue, Message::new("before"));
    let mut receiver = connection.receive(&queue, 4);
    let before = receiver.expect("before");
    if !backend.block_publishers(true) {
        return;
    }
    let publish = |body: &'static str, patience| {
        let deadline = Instant::now() + patience;
        let to = Address::queue(queue.clone());
        let published = connection.publish(&to, Message::new(body), deadline);
        published.and_then(|confirm| connection.verdict(confirm, patience + SOON))
    };
    // Some brokers block a connection, and tell it so, at its first publish.
    eventually("a publisher is blocked", || {
        let _ = publish("early", Duration::from_millis(50));
        connection.is_blocked()
    });
    let patience = Duration::from_millis(100);
    let begun = Instant::now();
    let error = publish("hasty", patience).expect_err("nobody takes it");
    let took = begun.elapsed();
    assert!(took >= patience, "it could have waited: {took:?}");
    assert!(took < patience + AT_ONCE, "{took:?}");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert_eq!(error.certainty(), Certainty::NotExecuted, "{error:?}");
    connection.settle(before);

    thread::scope(|scope| {
        let patient = scope.spawn(|| publish("patient", SOON));
        backend.block_publishers(false);
        let published = patient.join().expect("publishing does not panic");
        published.expect("publishers may go on");
    });
    eventually("publishers may go on", || !connection.is_blocked());
    loop {
        let delivery = receiver.next();
        let body = text(&delivery);
        connection.settle(delivery);
        match &*body {
            "patient" => return,
            "early" => {}
            other => panic!("{other} was not to be sent"),
        }
    }
}
