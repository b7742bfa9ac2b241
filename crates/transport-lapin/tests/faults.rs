//! The transport against a RabbitMQ that refuses, falls silent or goes away.
//!
//! The broker is `RPC_AMQP_URL`, whose user may do everything.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod support;

use std::error::Error;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use rpc_core::{
    Address, Certainty, ConsumeOptions, ErrorKind, Inbox, Message, QueueKind, QueueSpec,
    ShortString, Transport,
};
use transport_lapin::{AmqpUrl, LapinConfig, LapinTransport, Timeouts};

use support::{
    Proxy, alone, assert_no_threads, connect, connected, consume, delete_queue, name, other_url,
    publish, queue, recv, soon, threads, url, wait, whole_text,
};

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_missing_exchange_ends_the_transport_and_says_so() {
    let _alone = alone();
    let transport = connected();
    let missing = Address::exchange(ShortString::from_static("no-such-exchange"), name("key"));
    let confirm = wait(transport.publish(&missing, Message::new("x"), soon())).unwrap();
    assert_eq!(wait(confirm).unwrap_err().kind(), ErrorKind::NotFound);
    let late = wait(transport.publish(&missing, Message::new("x"), soon())).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Closed);
    assert_eq!(late.certainty(), Certainty::NotExecuted);
    assert!(whole_text(&late).contains("no-such-exchange"));
    wait(transport.close()).unwrap();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_deleted_queue_is_an_error_once() {
    let _alone = alone();
    let transport = connected();
    let doomed = queue(&transport);
    let mut first = consume(&transport, &doomed, 1);
    delete_queue(&doomed);
    let error = wait(first.recv()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(wait(first.recv()).unwrap().is_none());
    wait(transport.cancel(first.id())).unwrap();
    let next = queue(&transport);
    wait(publish(&transport, &next, "still usable")).unwrap();
    wait(transport.close()).unwrap();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_lost_connection_ends_everything_with_its_cause() {
    let _alone = alone();
    for victim in [0, 1] {
        let proxy = Proxy::start();
        let transport = connect(LapinConfig::new(proxy.url()));
        let queue = queue(&transport);
        let mut consumer = consume(&transport, &queue, 1);
        wait(publish(&transport, &queue, "x")).unwrap();
        let token = recv(&mut *consumer).token.unwrap();
        // Nothing comes back from here on, so the confirm stays open until the cut.
        proxy.hole();
        let confirm = publish(&transport, &queue, "y");
        proxy.cut(victim);
        assert_eq!(wait(confirm).unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(wait(consumer.recv()).unwrap_err().kind(), ErrorKind::Closed);
        assert!(wait(consumer.recv()).unwrap().is_none());
        let error = wait(transport.ack(token)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert!(error.source().is_some());
        let late = wait(transport.publish(&Address::queue(queue), Message::new("z"), soon()));
        let late = late.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Closed);
        assert_eq!(late.certainty(), Certainty::NotExecuted);
        wait(transport.close()).unwrap();
        assert_no_threads();
    }
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn replies_that_have_arrived_outlive_the_connection() {
    let _alone = alone();
    let proxy = Proxy::start();
    let (transport, peer) = (connect(LapinConfig::new(proxy.url())), connected());
    let mut inbox = wait(transport.consume(ConsumeOptions::inbox(Inbox::Exclusive))).unwrap();
    let queue = queue(&transport);
    let mut work = consume(&transport, &queue, 1_000);
    for body in ["1", "2", "3"] {
        wait(publish(&peer, inbox.queue(), body)).unwrap();
    }
    // Behind the replies on the same connection, so they have arrived when these have.
    for _ in 0..100 {
        wait(publish(&peer, &queue, "x")).unwrap();
        recv(&mut *work);
    }
    proxy.cut(0);
    while wait(transport.publish(&Address::queue(queue.clone()), Message::new("x"), soon())).is_ok()
    {
        thread::yield_now();
    }
    for body in ["1", "2", "3"] {
        assert_eq!(&recv(&mut *inbox).message.body[..], body.as_bytes());
    }
    assert_eq!(wait(inbox.recv()).unwrap_err().kind(), ErrorKind::Closed);
    assert!(wait(inbox.recv()).unwrap().is_none());
    assert_eq!(wait(work.recv()).unwrap_err().kind(), ErrorKind::Closed);
    wait(transport.close()).unwrap();
    wait(peer.close()).unwrap();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn what_a_blocked_connection_keeps_waiting_fails_at_its_deadline_and_is_not_sent() {
    let _alone = alone();
    let proxy = Proxy::start();
    let transport = connect(LapinConfig::new(proxy.url()));
    let queue = queue(&transport);
    let to = Address::queue(queue.clone());
    assert!(!transport.is_blocked());
    // connection.blocked, "memory", on the connection that publishes
    proxy.say(0, b"\x01\0\0\0\0\0\x0b\0\x0a\0\x3c\x06memory\xce");
    while !transport.is_blocked() {
        thread::yield_now();
    }
    let patient = publish(&transport, &queue, "patient");
    let moment = Instant::now() + Duration::from_millis(50);
    let hasty = wait(transport.publish(&to, Message::new("hasty"), moment));
    let error = wait(hasty.unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert_eq!(error.certainty(), Certainty::NotExecuted, "{error}");
    // connection.unblocked
    proxy.say(0, b"\x01\0\0\0\0\0\x04\0\x0a\0\x3d\xce");
    wait(patient).unwrap();
    assert!(!transport.is_blocked());
    let mut consumer = consume(&transport, &queue, 2);
    let delivery = recv(&mut *consumer);
    assert_eq!(&delivery.message.body[..], b"patient");

    proxy.say(0, b"\x01\0\0\0\0\0\x0b\0\x0a\0\x3c\x06memory\xce");
    while !transport.is_blocked() {
        thread::yield_now();
    }
    wait(transport.ack(delivery.token.unwrap())).unwrap();
    wait(transport.close()).unwrap();
    assert!(!transport.is_blocked(), "it has ended");
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_broker_that_reads_no_more_is_felt_also_by_messages_without_a_body() {
    let _alone = alone();
    let proxy = Proxy::start();
    let transport = connect(LapinConfig::new(proxy.url()));
    let to = Address::queue(name("nobody"));
    let mut message = Message::new("");
    message.headers.insert("filler", "x".repeat(8_000)).unwrap();
    proxy.set_deaf(true);
    let deadline = Instant::now() + Duration::from_secs(3);
    let refused = (0..20_000).find_map(|_| {
        let published = wait(transport.publish(&to, message.clone(), deadline));
        published.err()
    });
    let error = refused.expect("the socket and lapin took them all");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.certainty(), Certainty::NotExecuted);
    proxy.set_deaf(false);
    wait(wait(transport.publish(&to, message, soon())).unwrap()).unwrap_err();
    wait(transport.close()).unwrap();
    assert_no_threads();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn closing_does_not_wait_for_the_version_of_a_silent_broker() {
    let _alone = alone();
    let proxy = Proxy::start();
    let timeouts = Timeouts::default().with_close(Duration::from_millis(100));
    let transport = connect(LapinConfig::new(proxy.url()).with_timeouts(timeouts));
    let direct = Address::queue(ShortString::from_static("amq.rabbitmq.reply-to.x.y"));
    proxy.hole();
    let hurried = Instant::now() + Duration::from_millis(50);
    let error = wait(transport.publish(&direct, Message::new("x"), hurried)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.certainty(), Certainty::NotExecuted);
    thread::scope(|scope| {
        let publish = || wait(transport.publish(&direct, Message::new("x"), soon())).unwrap_err();
        let waiter = scope.spawn(publish);
        let begun = Instant::now();
        wait(transport.close()).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1));
        assert_no_threads();
        assert_eq!(waiter.join().unwrap().kind(), ErrorKind::Closed);
    });
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_silent_broker_holds_up_neither_a_verb_nor_the_close() {
    let _alone = alone();
    let proxy = Proxy::start();
    let timeouts = Timeouts::default()
        .with_verb(Duration::from_millis(500))
        .with_close(Duration::from_millis(500));
    let transport = connect(LapinConfig::new(proxy.url()).with_timeouts(timeouts));
    let queue = queue(&transport);
    proxy.hole();
    let confirm = publish(&transport, &queue, "x");
    let begun = Instant::now();
    let error = wait(transport.declare(&QueueSpec::new(queue, QueueKind::Passive))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(wait(confirm).unwrap_err().kind(), ErrorKind::Closed);
    wait(transport.close()).unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    assert_no_threads();

    let proxy = Proxy::start();
    let transport = connect(LapinConfig::new(proxy.url()).with_timeouts(timeouts));
    let mut inbox = wait(transport.consume(ConsumeOptions::inbox(Inbox::Exclusive))).unwrap();
    proxy.hole();
    let confirm = publish(&transport, &name("nobody"), "x");
    let begun = Instant::now();
    wait(transport.close()).unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    assert_no_threads();
    assert_eq!(wait(confirm).unwrap_err().kind(), ErrorKind::Closed);
    assert!(wait(inbox.recv()).unwrap().is_none());
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn closing_wakes_whoever_waits_and_leaves_no_thread() {
    let _alone = alone();
    let transport = connected();
    let mut inbox = wait(transport.consume(ConsumeOptions::inbox(Inbox::Exclusive))).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(move || wait(inbox.recv()).unwrap().is_none());
        let begun = Instant::now();
        let closers = [0, 1].map(|_| scope.spawn(|| wait(transport.close()).unwrap()));
        for closer in closers {
            closer.join().unwrap();
        }
        assert!(begun.elapsed() < Duration::from_secs(2));
        assert_no_threads();
        assert!(waiter.join().unwrap());
    });
    wait(transport.close()).unwrap();
    let error = wait(transport.declare(&QueueSpec::new(name("q"), QueueKind::Passive)));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Closed);

    drop(connected());
    assert_no_threads_soon();
}

/// What is dropped closes in the background.
fn assert_no_threads_soon() {
    let deadline = Instant::now() + Duration::from_secs(4);
    while !threads().is_empty() && Instant::now() < deadline {
        thread::yield_now();
    }
    assert_no_threads();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn what_cannot_be_reached_is_told_apart_in_time_and_without_the_password() {
    let _alone = alone();
    let url = url();
    let good = format!("{}:{}", url.host(), url.port());
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = closed.local_addr().unwrap();
    drop(closed);
    let table = [
        (
            format!("guest:CANARY%2f@{good}"),
            "/",
            ErrorKind::Unauthenticated,
        ),
        (
            format!("CANARYUSER:CANARY%2f@{good}"),
            "/",
            ErrorKind::Unauthenticated,
        ),
        (format!("guest:guest@{good}"), "/no-such", ErrorKind::Denied),
        (format!("u:CANARY%2f@{refused}"), "/", ErrorKind::Connect),
        (
            "u:CANARY%2f@no-such-host.invalid".to_owned(),
            "/",
            ErrorKind::Connect,
        ),
    ];
    for (authority, path, kind) in table {
        let begun = Instant::now();
        let config = LapinConfig::new(other_url(&authority, path));
        let error = wait(LapinTransport::connect(config)).unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(5), "{authority}");
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(!whole_text(&error).contains("CANARY%"), "{error:?}");
        assert!(!whole_text(&error).contains("CANARY/"), "{error:?}");
        assert_no_threads();
    }
}

#[test]
fn a_silent_peer_is_given_up_in_time_and_leaves_no_thread() {
    let _alone = alone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let timeouts = Timeouts::default().with_connect(Duration::from_millis(300));
    for _ in 0..3 {
        let begun = Instant::now();
        let url = other_url(&format!("u:CANARY@{address}"), "/");
        let connecting = LapinTransport::connect(LapinConfig::new(url).with_timeouts(timeouts));
        let error = wait(connecting).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect);
        assert!(!whole_text(&error).contains("CANARY"), "{error:?}");
        assert!(begun.elapsed() < Duration::from_secs(2));
        assert_no_threads();
    }
}

#[test]
fn tls_without_its_feature_is_refused_by_name() {
    let _alone = alone();
    let url: AmqpUrl = "amqps://127.0.0.1:1".parse().unwrap();
    let error = wait(LapinTransport::connect(LapinConfig::new(url))).unwrap_err();
    if cfg!(feature = "tls") {
        assert_eq!(error.kind(), ErrorKind::Connect);
    } else {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("`tls`"), "{error}");
    }
}
