//! What the transport makes of a broker that refuses, falls silent, or goes away.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::error::Error;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use rpc_core::blocking::Transport;
use rpc_core::{
    Address, Certainty, ConsumeOptions, ErrorKind, Inbox, Message, QueueKind, QueueSpec,
    ShortString, TransportError,
};
use support::proxy::Proxy;
use support::*;
use transport_amiquip::{AmiquipConfig, AmiquipTransport, AmqpUrl, Timeouts};

const CANARY: &str = "C4N4RY";

fn refusal(url: &str) -> TransportError {
    let url: AmqpUrl = url.parse().unwrap();
    let error = AmiquipTransport::connect(AmiquipConfig::new(url)).unwrap_err();
    let mut shown = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(cause) = source {
        shown += &format!("{cause} {cause:?}");
        source = cause.source();
    }
    assert!(!shown.contains(CANARY), "{shown}");
    error
}

fn through(proxy: &Proxy) -> AmiquipTransport {
    let timeouts = Timeouts::default().with_verb(Duration::from_secs(1));
    let config = AmiquipConfig::new(proxy.url("")).with_timeouts(timeouts);
    AmiquipTransport::connect(config).unwrap()
}

/// A method of the connection itself.
fn frame(arguments: &[u8]) -> Vec<u8> {
    let mut frame = vec![1, 0, 0, 0, 0, 0, arguments.len() as u8];
    frame.extend(arguments);
    frame.push(0xce);
    frame
}

/// Everything that a transport which has ended must answer.
fn assert_ended(transport: &AmiquipTransport, queue: &ShortString) {
    let to = Address::queue(queue.clone());
    let errors = [
        transport
            .publish(&to, Message::new("x"), soon())
            .unwrap_err(),
        transport
            .declare(&QueueSpec::new(queue.clone(), QueueKind::Durable))
            .unwrap_err(),
        transport.consume(work(queue, 1)).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        assert_eq!(error.certainty(), Certainty::NotExecuted, "{error}");
    }
    let started = Instant::now();
    transport.close().unwrap();
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn who_may_not_enter_learns_why_in_time_and_no_password_is_shown() {
    let url = url();
    let (host, port) = (url.host(), url.port());
    let started = Instant::now();
    let error = refusal(&format!("amqp://guest:{CANARY}@{host}:{port}"));
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    assert!(started.elapsed() < Duration::from_secs(5));

    let started = Instant::now();
    let (user, password) = (url.username(), url.expose_password());
    let error = refusal(&format!("amqp://{user}:{password}@{host}:{port}/not-there"));
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_closed_port_and_tls_are_refused_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = refusal(&format!("amqp://u:{CANARY}@127.0.0.1:{port}"));
    assert_eq!(error.kind(), ErrorKind::Connect);
    let error = refusal(&format!("amqps://u:{CANARY}@127.0.0.1:{port}"));
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn a_peer_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let started = Instant::now();
    let error = refusal(&format!(
        "amqp://u:{CANARY}@127.0.0.1:{port}?connection_timeout=500"
    ));
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(started.elapsed() >= Duration::from_millis(500));
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn either_connection_takes_the_other_with_it_and_every_wait_ends() {
    for number in [0, 1] {
        let proxy = Proxy::start();
        let transport = through(&proxy);
        let queue = queue(&transport, "cut");
        let to = Address::queue(queue.clone());
        let mut consumers = [
            transport.consume(work(&queue, 8)).unwrap(),
            transport
                .consume(ConsumeOptions::inbox(Inbox::Exclusive))
                .unwrap(),
        ];
        send(&transport, &queue, Message::new("x")).unwrap();
        let token = next(&mut *consumers[0]).token.unwrap();
        // The broker is told and cannot answer. What has not left yet would not have arrived.
        proxy.silence_the_broker();
        let heard = proxy.heard();
        let open = transport.publish(&to, Message::new("x"), soon()).unwrap();
        proxy.wait_for_more_than(heard);
        proxy.cut(number);
        for consumer in &mut consumers {
            let error = consumer.recv().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
            let source = error.source().expect("the library's own words");
            assert!(source.to_string().contains("socket"), "{source}");
            assert!(consumer.recv().unwrap().is_none());
            assert!(consumer.recv().unwrap().is_none());
        }
        let error = open.wait(soon()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert_eq!(error.certainty(), Certainty::MaybeExecuted);
        assert_eq!(transport.ack(token).unwrap_err().kind(), ErrorKind::Closed);
        proxy.wait_for_the_end_of_all();
        assert_ended(&transport, &queue);
    }
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn the_words_of_a_broker_that_closes_a_connection_are_the_cause() {
    // connection.close, 320, "CONNECTION_FORCED"
    let text = b"CONNECTION_FORCED";
    let mut arguments = vec![0, 10, 0, 50, 1, 64, text.len() as u8];
    arguments.extend(text);
    arguments.extend([0; 4]);
    let frame = frame(&arguments);
    for number in [0, 1] {
        let proxy = Proxy::start();
        let transport = through(&proxy);
        let queue = queue(&transport, "forced");
        let mut consumer = transport.consume(work(&queue, 8)).unwrap();
        proxy.say(number, &frame);
        let error = consumer.recv().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        assert!(error.to_string().contains("CONNECTION_FORCED"), "{error}");
        assert_ended(&transport, &queue);
    }
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_frozen_broker_costs_a_verb_its_bound_and_the_transport_its_life() {
    let proxy = Proxy::start();
    let transport = through(&proxy);
    let queue = queue(&transport, "frozen");
    let mut consumer = transport.consume(work(&queue, 8)).unwrap();
    proxy.go_silent();
    let started = Instant::now();
    let error = transport
        .declare(&QueueSpec::new(queue.clone(), QueueKind::Durable))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(started.elapsed() < Duration::from_secs(3));
    assert_eq!(consumer.recv().unwrap_err().kind(), ErrorKind::Closed);
    assert!(consumer.recv().unwrap().is_none());
    assert_ended(&transport, &queue);
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_silent_peer_is_noticed_after_two_heartbeats() {
    let proxy = Proxy::start();
    let config = AmiquipConfig::new(proxy.url("?heartbeat=1"));
    let transport = AmiquipTransport::connect(config).unwrap();
    let mut consumer = transport
        .consume(ConsumeOptions::inbox(Inbox::Exclusive))
        .unwrap();
    proxy.go_silent();
    let started = Instant::now();
    let error = consumer.recv().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    assert!(started.elapsed() < Duration::from_secs(4));
    assert_ended(&transport, &unique("silent"));
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn close_of_a_frozen_connection_is_bounded_and_settles_everything() {
    let proxy = Proxy::start();
    let transport = through(&proxy);
    let queue = queue(&transport, "close");
    let to = Address::queue(queue.clone());
    let mut consumer = transport.consume(work(&queue, 8)).unwrap();
    proxy.go_silent();
    let open = transport.publish(&to, Message::new("x"), soon()).unwrap();
    let started = Instant::now();
    transport.close().unwrap();
    assert!(started.elapsed() < Duration::from_secs(3));
    assert!(consumer.recv().unwrap().is_none());
    let error = open.wait(soon()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(error.certainty(), Certainty::MaybeExecuted);
    assert_ended(&transport, &queue);
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn what_a_blocked_connection_keeps_waiting_fails_at_its_deadline_and_is_not_sent() {
    let proxy = Proxy::start();
    let transport = through(&proxy);
    let queue = queue(&transport, "blocked");
    let to = Address::queue(queue.clone());
    let publish = |body: &'static str, patience| {
        let deadline = Instant::now() + patience;
        transport
            .publish(&to, Message::new(body), deadline)
            .unwrap()
    };
    let moment = Duration::from_millis(50);
    // connection.blocked, "memory", on the connection that publishes
    let block = || {
        proxy.say(1, &frame(b"\0\x0a\0\x3c\x06memory"));
        eventually("publishers are blocked", || {
            publish("early", moment).wait(soon()).is_err()
        });
    };
    assert!(!transport.is_blocked());
    block();
    assert!(transport.is_blocked());
    let patient = publish("patient", PATIENCE);
    let hasty = publish("hasty", moment);
    let error = hasty.wait(soon()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert_eq!(error.certainty(), Certainty::NotExecuted, "{error}");
    // connection.unblocked
    proxy.say(1, &frame(&[0, 10, 0, 61]));
    patient.wait(soon()).unwrap();
    assert!(!transport.is_blocked());
    let mut consumer = transport.consume(work(&queue, 100)).unwrap();
    let mut received = || loop {
        let delivery = next(&mut *consumer);
        if delivery.message.body != "early" {
            return delivery.message.body;
        }
    };
    assert_eq!(received(), "patient");

    block();
    let held = publish("held", PATIENCE);
    transport.close().unwrap();
    let error = held.wait(soon()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    assert_eq!(error.certainty(), Certainty::NotExecuted, "{error}");
    assert!(!transport.is_blocked(), "it has ended");
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn after_the_end_replies_that_came_before_are_still_received_and_requests_are_not() {
    for closed in [false, true] {
        let proxy = Proxy::start();
        let transport = through(&proxy);
        let queue = queue(&transport, "buffered");
        let mut requests = transport.consume(work(&queue, 8)).unwrap();
        let mut replies = transport
            .consume(ConsumeOptions::inbox(Inbox::Exclusive))
            .unwrap();
        for to in [&queue, replies.queue()] {
            for _ in 0..3 {
                send(&transport, to, Message::new("x")).unwrap();
            }
        }
        // The answer comes after what was delivered.
        next(&mut *requests);
        next(&mut *replies);
        transport
            .declare(&QueueSpec::new(queue.clone(), QueueKind::Passive))
            .unwrap();
        proxy.cut(1);
        let to = Address::queue(queue.clone());
        eventually("the end is noticed", || {
            transport.publish(&to, Message::new("x"), soon()).is_err()
        });
        if closed {
            transport.close().unwrap();
        }
        for _ in 0..2 {
            assert_eq!(next(&mut *replies).message.body, "x");
        }
        for consumer in [&mut requests, &mut replies] {
            match consumer.recv() {
                Ok(delivery) => assert!(closed && delivery.is_none()),
                Err(error) => assert!(!closed && error.kind() == ErrorKind::Closed, "{error}"),
            }
            assert!(consumer.recv().unwrap().is_none());
        }
        transport.close().unwrap();
    }
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn close_waits_for_the_verdicts_and_wakes_the_receivers() {
    let transport = connect();
    let queue = queue(&transport, "goodbye");
    let to = Address::queue(queue.clone());
    let mut consumer = transport
        .consume(ConsumeOptions::inbox(Inbox::Exclusive))
        .unwrap();
    let confirms: Vec<_> = (0..500)
        .map(|_| transport.publish(&to, Message::new("x"), soon()).unwrap())
        .collect();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || consumer.recv().unwrap().is_none());
        transport.close().unwrap();
        assert!(waiting.join().unwrap());
    });
    for confirm in confirms {
        confirm.wait(soon()).unwrap();
    }
    assert_ended(&transport, &queue);
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_missing_exchange_ends_the_transport_and_leaves_open_what_ran() {
    let transport = connect();
    let queue = queue(&transport, "exchange");
    let mut consumer = transport.consume(work(&queue, 8)).unwrap();
    let to = Address::exchange(unique("exchange"), queue.clone());
    let error = transport
        .publish(&to, Message::new("x"), soon())
        .unwrap()
        .wait(soon())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(error.certainty(), Certainty::MaybeExecuted);
    let error = consumer.recv().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    assert!(consumer.recv().unwrap().is_none());
    assert_ended(&transport, &queue);
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_deleted_queue_ends_its_consumer_alone() {
    let transport = connect();
    let gone = queue(&transport, "gone");
    let kept = queue(&transport, "kept");
    let mut consumer = transport.consume(work(&gone, 8)).unwrap();
    send(&transport, &gone, Message::new("x")).unwrap();
    let token = next(&mut *consumer).token.unwrap();

    let url = url();
    let address = format!(
        "amqp://{}:{}@{}:{}/{}",
        url.username(),
        url.expose_password(),
        url.host(),
        url.port(),
        url.vhost().replace('/', "%2f"),
    );
    let mut operator = amiquip::Connection::insecure_open(&address).unwrap();
    let channel = operator.open_channel(None).unwrap();
    let options = amiquip::QueueDeleteOptions::default();
    channel.queue_delete(gone.as_str(), options).unwrap();

    let error = consumer.recv().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(consumer.recv().unwrap().is_none());
    transport.ack(token).unwrap();
    transport.cancel(consumer.id()).unwrap();
    let mut other = transport.consume(work(&kept, 8)).unwrap();
    send(&transport, &kept, Message::new("still here")).unwrap();
    assert_eq!(next(&mut *other).message.body, "still here");
    transport.close().unwrap();
}
