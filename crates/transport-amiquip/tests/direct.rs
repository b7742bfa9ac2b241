//! Direct reply-to: one inbox at a time, and no reply that costs a connection.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::{Barrier, mpsc};
use std::thread;

use rpc_core::blocking::Transport;
use rpc_core::{Address, Certainty, ConsumeOptions, ErrorKind, Inbox, Message, ShortString};
use support::*;
use transport_amiquip::{AmiquipConfig, AmiquipTransport, DirectReplyTo};

/// Uses direct reply-to whatever the broker's version is.
fn forced() -> AmiquipTransport {
    let config = AmiquipConfig::new(url()).with_direct_reply_to(DirectReplyTo::Forced);
    AmiquipTransport::connect(config).unwrap()
}

fn reply_to(name: &str) -> Option<ShortString> {
    Some(ShortString::new(name).unwrap())
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_direct_inbox_is_answered_and_there_is_one() {
    let (transport, server) = (forced(), forced());
    let queue = queue(&server, "direct");
    let mut requests = server.consume(work(&queue, 1)).unwrap();

    let mut request = Message::new("30");
    request.reply_to = reply_to("amq.rabbitmq.reply-to");
    let to = Address::queue(queue.clone());
    let early = transport.publish(&to, request.clone(), soon()).unwrap_err();
    assert_eq!(early.kind(), ErrorKind::Misuse);

    let direct = || transport.consume(ConsumeOptions::inbox(Inbox::Direct));
    let mut inbox = direct().unwrap();
    assert_eq!(direct().unwrap_err().kind(), ErrorKind::Unsupported);
    request.reply_to = Some(inbox.queue().clone());
    for _ in 0..3 {
        send(&transport, &queue, request.clone()).unwrap();
        let received = next(&mut *requests);
        let address = received.message.reply_to.unwrap();
        send(&server, &address, Message::new("832040")).unwrap();
        assert_eq!(next(&mut *inbox).message.body, "832040");
        server.ack(received.token.unwrap()).unwrap();
    }
    let nowhere = unique("nowhere");
    let error = send(&transport, &nowhere, request).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoRoute);
    transport.cancel(inbox.id()).unwrap();
    assert!(inbox.recv().unwrap().is_none());
    direct().unwrap();
    transport.close().unwrap();
    server.close().unwrap();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_dead_direct_reply_address_does_not_cost_an_affected_broker_its_transport() {
    let transport = connect();
    let inbox = transport.consume(ConsumeOptions::inbox(Inbox::Direct));
    let affected = inbox.is_err_and(|error| error.kind() == ErrorKind::Unsupported);
    let queue = queue(&transport, "dead");
    let mut requests = transport.consume(work(&queue, 1)).unwrap();
    let mut request = Message::new("30");
    request.reply_to = reply_to("amq.rabbitmq.reply-to.x.y");
    send(&transport, &queue, request).unwrap();
    let received = next(&mut *requests);
    let address = received.message.reply_to.unwrap();
    let replied = send(&transport, &address, Message::new("832040"));
    if affected {
        let error = replied.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert_eq!(error.certainty(), Certainty::NotExecuted, "{error}");
    }
    transport.ack(received.token.unwrap()).unwrap();
    send(&transport, &queue, Message::new("still here")).unwrap();
    assert_eq!(next(&mut *requests).message.body, "still here");
    transport.close().unwrap();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn of_two_direct_inboxes_opened_at_once_one_is_refused() {
    let transport = forced();
    for round in 0..20 {
        let together = Barrier::new(2);
        let open = || {
            together.wait();
            transport.consume(ConsumeOptions::inbox(Inbox::Direct))
        };
        let inboxes = thread::scope(|scope| {
            let other = scope.spawn(open);
            [open(), other.join().unwrap()]
        });
        let opened = inboxes.iter().filter(|inbox| inbox.is_ok()).count();
        assert_eq!(opened, 1, "round {round}");
        for inbox in inboxes {
            match inbox {
                Ok(inbox) => transport.cancel(inbox.id()).unwrap(),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported),
            }
        }
    }
    transport.close().unwrap();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn requests_that_meet_the_end_of_their_direct_inbox_do_not_cost_the_transport() {
    let transport = forced();
    let queue = queue(&transport, "ending");
    let to = Address::queue(queue.clone());
    let mut request = Message::new("30");
    request.reply_to = reply_to("amq.rabbitmq.reply-to");
    for round in 0..20 {
        let inbox = transport
            .consume(ConsumeOptions::inbox(Inbox::Direct))
            .unwrap();
        let (sent, under_way) = mpsc::channel();
        thread::scope(|scope| {
            let (transport, to, request) = (&transport, &to, &request);
            let asking = scope.spawn(move || {
                let mut confirms = Vec::new();
                loop {
                    match transport.publish(to, request.clone(), soon()) {
                        Ok(confirm) => confirms.push(confirm),
                        Err(refused) => break (confirms, refused),
                    }
                    let _ = sent.send(());
                }
            });
            under_way.recv_timeout(PATIENCE).unwrap();
            match round % 2 {
                0 => transport.cancel(inbox.id()).unwrap(),
                _ => drop(inbox),
            }
            let (confirms, refused) = asking.join().unwrap();
            assert_eq!(refused.certainty(), Certainty::NotExecuted, "{refused}");
            for confirm in confirms {
                if let Err(error) = confirm.wait(soon()) {
                    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
                    assert!(error.to_string().contains("direct inbox"), "{error}");
                }
            }
        });
        send(&transport, &queue, Message::new("x")).unwrap();
    }
    transport.close().unwrap();
}
