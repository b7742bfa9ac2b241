//! The transport against a RabbitMQ at its best: what the conformance suite cannot know of lapin.
//!
//! The broker is `RPC_AMQP_URL`, whose user may do everything.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod support;

use std::num::NonZeroU16;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use rpc_core::park::block_on;
use rpc_core::{
    Address, Certainty, ConsumeOptions, ErrorKind, Fate, Inbox, Message, QueueKind, QueueSpec,
    ShortString, Transport,
};
use transport_lapin::{Confirms, DirectReplyTo, LapinConfig};

use support::{
    alone, assert_no_threads, by_hand, connect, connected, consume, delete_queue, name, numbered,
    publish, queue, recv, soon, url, wait, whole_text,
};

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn what_is_published_is_received_and_acked_and_requeued_once() {
    let _alone = alone();
    let transport = connected();
    let queue = queue(&transport);
    let mut consumer = consume(&transport, &queue, 10);
    let mut message = Message::new("30");
    message.correlation_id = Some(ShortString::from_static("c"));
    message.headers.insert("n", 14).unwrap();
    let confirm = wait(transport.publish(&Address::queue(queue), message.clone(), soon()));
    wait(confirm.unwrap()).unwrap();
    let first = recv(&mut *consumer);
    assert_eq!(first.message, message);
    assert!(!first.redelivered);
    wait(transport.reject(first.token.unwrap(), Fate::Requeue)).unwrap();
    let again = recv(&mut *consumer);
    assert!(again.redelivered);
    wait(transport.ack(again.token.unwrap())).unwrap();
    let id = consumer.id();
    wait(transport.cancel(id)).unwrap();
    wait(transport.cancel(id)).unwrap();
    assert_eq!(wait(consumer.recv()).unwrap().map(|_| ()), None);
    wait(transport.close()).unwrap();
    assert_no_threads();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn exactly_the_unroutable_half_of_many_pipelined_publishes_has_no_route() {
    let _alone = alone();
    let transport = connected();
    let queue = queue(&transport);
    let mut consumer = consume(&transport, &queue, u16::MAX);
    let nobody = Address::queue(name("nobody"));
    let somebody = Address::queue(queue);
    for _ in 0..5 {
        let confirms: Vec<_> = (0..2_000)
            .map(|number| {
                let to = if number % 2 == 0 { &somebody } else { &nobody };
                wait(transport.publish(to, numbered(number), soon())).unwrap()
            })
            .collect();
        for (number, confirm) in confirms.into_iter().enumerate() {
            let verdict = wait(confirm).map_err(|error| error.kind());
            let expected = if number % 2 == 0 {
                Ok(())
            } else {
                Err(ErrorKind::NoRoute)
            };
            assert_eq!(verdict, expected, "{number}");
        }
        for _ in 0..1_000 {
            let token = recv(&mut *consumer).token.unwrap();
            wait(transport.ack(token)).unwrap();
        }
    }
    wait(transport.close()).unwrap();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn of_what_many_threads_publish_at_once_each_message_has_its_own_verdict() {
    let _alone = alone();
    let transport = connected();
    let somebody = Address::queue(queue(&transport));
    let nobody = Address::queue(name("nobody"));
    thread::scope(|scope| {
        for thread in 0..4 {
            let (transport, somebody, nobody) = (&transport, &somebody, &nobody);
            scope.spawn(move || {
                let confirms: Vec<_> = (0..2_000)
                    .map(|number| {
                        let to = if number % 3 == 0 { nobody } else { somebody };
                        let message = numbered(thread * 10_000 + number);
                        wait(transport.publish(to, message, soon())).unwrap()
                    })
                    .collect();
                for (number, confirm) in confirms.into_iter().enumerate() {
                    let verdict = wait(confirm).map_err(|error| error.kind());
                    let returned = Err(ErrorKind::NoRoute);
                    let expected = if number % 3 == 0 { returned } else { Ok(()) };
                    assert_eq!(verdict, expected, "{thread}: {number}");
                }
            });
        }
    });
    wait(transport.close()).unwrap();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn publishes_that_cannot_be_told_apart_are_all_settled() {
    let _alone = alone();
    let transport = connected();
    let nobody = Address::queue(name("nobody"));
    let queue = Address::queue(queue(&transport));
    let publish = |to| wait(transport.publish(to, Message::new("x"), soon())).unwrap();
    let confirms: Vec<_> = (0..500)
        .map(|number| publish(if number % 3 == 0 { &nobody } else { &queue }))
        .collect();
    let verdicts: Vec<_> = confirms
        .into_iter()
        .map(|confirm| wait(confirm).map_err(|error| error.kind()))
        .collect();
    for (number, verdict) in verdicts.into_iter().enumerate() {
        let expected = if number % 3 == 0 {
            Err(ErrorKind::NoRoute)
        } else {
            Ok(())
        };
        assert_eq!(verdict, expected, "{number}");
    }
    wait(transport.close()).unwrap();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn what_a_cancelled_consumer_has_not_taken_goes_to_another_at_once() {
    let _alone = alone();
    let transport = connected();
    let queue = queue(&transport);
    let mut slow = consume(&transport, &queue, 10);
    let mut keeper = consume(&transport, &queue, 1);
    for number in 0..6 {
        wait(publish(&transport, &queue, &number.to_string())).unwrap();
    }
    let taken = recv(&mut *slow);
    let kept = recv(&mut *keeper);
    wait(transport.cancel(slow.id())).unwrap();
    assert!(wait(slow.recv()).unwrap().is_none());
    wait(transport.ack(taken.token.unwrap())).unwrap();
    wait(transport.ack(kept.token.unwrap())).unwrap();
    for _ in 0..4 {
        let token = recv(&mut *keeper).token.unwrap();
        wait(transport.ack(token)).unwrap();
    }
    wait(transport.close()).unwrap();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_waiting_recv_ends_with_its_consumer_and_a_dropped_consumer_gives_back() {
    let _alone = alone();
    let transport = connected();
    let queue = queue(&transport);
    let mut waiting = consume(&transport, &queue, 1);
    let id = waiting.id();
    let mut other = consume(&transport, &queue, 5);
    thread::scope(|scope| {
        let waiter = scope.spawn(move || wait(waiting.recv()).unwrap().is_none());
        wait(transport.cancel(id)).unwrap();
        assert!(waiter.join().unwrap());
    });
    wait(publish(&transport, &queue, "x")).unwrap();
    let _unsettled = recv(&mut *other).token;
    wait(publish(&transport, &queue, "y")).unwrap();
    let mut heir = consume(&transport, &queue, 5);
    drop(other);
    assert_eq!(&recv(&mut *heir).message.body[..], b"y");
    wait(transport.close()).unwrap();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_refused_verb_leaves_the_transport_usable() {
    let _alone = alone();
    let transport = connected();
    let missing = name("missing");
    let passive = QueueSpec::new(missing.clone(), QueueKind::Passive);
    let error = wait(transport.declare(&passive)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let options = ConsumeOptions::queue(missing, NonZeroU16::MIN);
    let error = wait(transport.consume(options)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let queue = queue(&transport);
    let conflicting = QueueSpec::new(queue.clone(), QueueKind::Durable);
    let error = wait(transport.declare(&conflicting)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("auto_delete"), "{error}");
    assert_eq!(error.conflicting_argument(), Some("auto_delete"));
    let reserved = QueueSpec::new(ShortString::from_static("amq.mine"), QueueKind::Durable);
    let error = wait(transport.declare(&reserved)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    wait(publish(&transport, &queue, "x")).unwrap();
    let mut consumer = consume(&transport, &queue, 1);
    wait(transport.ack(recv(&mut *consumer).token.unwrap())).unwrap();
    wait(transport.close()).unwrap();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_foreign_token_never_reaches_the_wire() {
    let _alone = alone();
    let (transport, other) = (connected(), connected());
    let queue = queue(&transport);
    let mut consumer = consume(&transport, &queue, 1);
    wait(publish(&transport, &queue, "x")).unwrap();
    let token = recv(&mut *consumer).token.unwrap();
    let error = wait(other.ack(token)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    assert_eq!(
        wait(other.cancel(consumer.id())).unwrap_err().kind(),
        ErrorKind::Misuse
    );
    wait(transport.close()).unwrap();
    wait(other.close()).unwrap();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn an_inbox_is_private_and_gone_with_its_consumer() {
    let _alone = alone();
    let transport = connected();
    let mut inbox = wait(transport.consume(ConsumeOptions::inbox(Inbox::Exclusive))).unwrap();
    let address = inbox.queue().clone();
    wait(publish(&transport, &address, "reply")).unwrap();
    let delivery = recv(&mut *inbox);
    assert!(delivery.token.is_none());
    assert_eq!(&delivery.message.body[..], b"reply");
    wait(transport.cancel(inbox.id())).unwrap();
    let verdict = wait(publish(&transport, &address, "late"));
    assert_eq!(verdict.unwrap_err().kind(), ErrorKind::NoRoute);
    wait(transport.close()).unwrap();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn direct_replies_come_back_on_the_channel_that_asked() {
    let _alone = alone();
    let transport = connect(LapinConfig::new(url()).with_direct_reply_to(DirectReplyTo::Forced));
    let queue = queue(&transport);
    let mut server = consume(&transport, &queue, 10);
    let mut inbox = wait(transport.consume(ConsumeOptions::inbox(Inbox::Direct))).unwrap();
    let mut request = numbered(1);
    request.reply_to = Some(inbox.queue().clone());
    let to = Address::queue(queue.clone());
    wait(wait(transport.publish(&to, request.clone(), soon())).unwrap()).unwrap();
    let asked = recv(&mut *server);
    let reply_to = asked.message.reply_to.unwrap();
    wait(transport.ack(asked.token.unwrap())).unwrap();
    wait(publish(&transport, &reply_to, "reply")).unwrap();
    assert_eq!(&recv(&mut *inbox).message.body[..], b"reply");
    wait(transport.cancel(inbox.id())).unwrap();
    let error = wait(transport.publish(&to, request, soon())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    wait(publish(&transport, &queue, "still usable")).unwrap();
    wait(transport.close()).unwrap();
    assert_no_threads();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_direct_inbox_is_refused_exactly_where_the_broker_has_the_defect() {
    let _alone = alone();
    let transport = connected();
    match wait(transport.consume(ConsumeOptions::inbox(Inbox::Direct))) {
        Ok(inbox) => assert_eq!(inbox.queue(), &"amq.rabbitmq.reply-to"),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(whole_text(&error).contains("direct reply-to"), "{error:?}");
        }
    }
    let queue = queue(&transport);
    wait(publish(&transport, &queue, "still usable")).unwrap();
    wait(transport.close()).unwrap();
    assert_no_threads();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_made_up_direct_reply_address_does_not_cost_the_connection() {
    let _alone = alone();
    let transport = connected();
    let made_up = Address::queue(ShortString::from_static("amq.rabbitmq.reply-to.x.y"));
    for _ in 0..3 {
        match wait(transport.publish(&made_up, Message::new("x"), soon())) {
            Ok(confirm) => wait(confirm).unwrap(),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported);
                assert_eq!(error.certainty(), Certainty::NotExecuted);
                assert!(whole_text(&error).contains("direct reply-to"), "{error:?}");
            }
        }
    }
    let queue = queue(&transport);
    wait(publish(&transport, &queue, "still usable")).unwrap();
    wait(transport.close()).unwrap();
    assert_no_threads();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_second_direct_inbox_is_refused_until_the_first_is_gone() {
    let _alone = alone();
    let transport = connect(LapinConfig::new(url()).with_direct_reply_to(DirectReplyTo::Forced));
    let direct = || wait(transport.consume(ConsumeOptions::inbox(Inbox::Direct)));
    let first = direct().unwrap();
    assert_eq!(direct().unwrap_err().kind(), ErrorKind::Unsupported);
    wait(transport.cancel(first.id())).unwrap();
    let second = direct().unwrap();
    assert_eq!(direct().unwrap_err().kind(), ErrorKind::Unsupported);
    drop(second);
    let third = direct().unwrap();
    let begun = Instant::now();
    wait(transport.close()).unwrap();
    assert!(
        begun.elapsed() < Duration::from_millis(250),
        "{:?}",
        begun.elapsed()
    );
    drop(third);
    assert_no_threads();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_direct_inbox_that_is_closed_under_its_requests_costs_nothing_else() {
    let _alone = alone();
    let transport = connect(LapinConfig::new(url()).with_direct_reply_to(DirectReplyTo::Forced));
    let queue = queue(&transport);
    let to = Address::queue(queue.clone());
    for _ in 0..10 {
        let inbox = wait(transport.consume(ConsumeOptions::inbox(Inbox::Direct))).unwrap();
        let mut request = Message::new(vec![0; 16 * 1024]);
        request.reply_to = Some(inbox.queue().clone());
        let confirms: Vec<_> = (0..500)
            .map(|_| wait(transport.publish(&to, request.clone(), soon())).unwrap())
            .collect();
        wait(transport.cancel(inbox.id())).unwrap();
        for confirm in confirms {
            if let Err(error) = wait(confirm) {
                assert_eq!(error.kind(), ErrorKind::Closed);
                assert_eq!(error.certainty(), Certainty::NotExecuted, "{error:?}");
            }
        }
        wait(publish(&transport, &queue, "still usable")).unwrap();
    }
    wait(transport.close()).unwrap();
    assert_no_threads();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_queue_without_a_name_is_misuse() {
    let _alone = alone();
    let transport = connected();
    let nameless = QueueSpec::new(ShortString::default(), QueueKind::Durable);
    let error = wait(transport.declare(&nameless)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    let nameless = ConsumeOptions::queue(ShortString::default(), NonZeroU16::MIN);
    let error = wait(transport.consume(nameless)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    wait(transport.close()).unwrap();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn without_confirms_every_publish_counts_as_arrived() {
    let _alone = alone();
    let transport = connect(LapinConfig::new(url()).with_confirms(Confirms::Off));
    let queue = queue(&transport);
    let mut consumer = consume(&transport, &queue, 100);
    for _ in 0..1_000 {
        wait(publish(&transport, &name("nobody"), "x")).unwrap();
        wait(publish(&transport, &queue, "x")).unwrap();
        wait(transport.ack(recv(&mut *consumer).token.unwrap())).unwrap();
    }
    wait(transport.close()).unwrap();
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_full_queue_refuses() {
    let _alone = alone();
    let full = name("lapin-full");
    let queue = full.clone();
    by_hand(async move |channel| {
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), 1.into());
        arguments.insert(
            "x-overflow".into(),
            AMQPValue::LongString("reject-publish".into()),
        );
        let options = QueueDeclareOptions::default();
        channel
            .queue_declare(queue.as_str().into(), options, arguments)
            .await
            .unwrap();
    });
    let transport = connected();
    let confirms: Vec<_> = (0..20).map(|_| publish(&transport, &full, "x")).collect();
    let verdicts: Vec<_> = confirms
        .into_iter()
        .map(|confirm| wait(confirm).map_err(|error| error.kind()))
        .collect();
    assert_eq!(verdicts[0], Ok(()));
    assert_eq!(verdicts[19], Err(ErrorKind::Refused));
    wait(transport.close()).unwrap();
    delete_queue(&full);
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn many_threads_share_one_transport() {
    let _alone = alone();
    let transport = Arc::new(connected());
    let queue = queue(&transport);
    let server = {
        let (transport, mut consumer) = (Arc::clone(&transport), consume(&transport, &queue, 64));
        thread::spawn(move || {
            while let Some(delivery) = block_on(consumer.recv()).unwrap() {
                let reply_to = delivery.message.reply_to.unwrap();
                let mut reply = Message::new(delivery.message.body);
                reply.correlation_id = delivery.message.correlation_id;
                let to = Address::queue(reply_to);
                wait(wait(transport.publish(&to, reply, soon())).unwrap()).unwrap();
                // The last caller may be content, and the transport closed, before this.
                if let Err(error) = wait(transport.ack(delivery.token.unwrap())) {
                    assert_eq!(error.kind(), ErrorKind::Closed);
                }
            }
        })
    };
    thread::scope(|scope| {
        for client in 0..8 {
            let (transport, queue) = (&transport, &queue);
            scope.spawn(move || {
                let inbox = transport.consume(ConsumeOptions::inbox(Inbox::Exclusive));
                let mut inbox = wait(inbox).unwrap();
                for call in 0..200 {
                    let mut request = numbered(client * 1_000 + call);
                    request.reply_to = Some(inbox.queue().clone());
                    let id = request.correlation_id.clone();
                    let to = Address::queue(queue.clone());
                    wait(wait(transport.publish(&to, request, soon())).unwrap()).unwrap();
                    assert_eq!(recv(&mut *inbox).message.correlation_id, id);
                }
            });
        }
    });
    wait(transport.close()).unwrap();
    server.join().unwrap();
    assert_no_threads();
}
