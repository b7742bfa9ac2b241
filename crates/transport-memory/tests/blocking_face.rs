//! What the blocking face adds to the broker: threads that wait, and are woken.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::num::NonZeroU16;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rpc_core::blocking::{Consumer, Transport};
use rpc_core::{
    Address, Certainty, ConsumeOptions, Delivery, ErrorKind, Inbox, Message, QueueKind, QueueSpec,
    ShortString, TransportError,
};
use transport_memory::{MemoryBroker, MemoryTransport};

const WORK: ShortString = ShortString::from_static("work");
const PATIENCE: Duration = Duration::from_secs(5);

type Received = Result<Option<Delivery>, TransportError>;

fn with_queue(broker: &MemoryBroker) -> MemoryTransport {
    let transport = broker.connect();
    let spec = QueueSpec::new(WORK, QueueKind::Durable);
    transport.declare(&spec).unwrap();
    transport
}

fn consume(transport: &MemoryTransport) -> Box<dyn Consumer> {
    let options = ConsumeOptions::queue(WORK, NonZeroU16::new(2).unwrap());
    transport.consume(options).unwrap()
}

fn verdict(transport: &MemoryTransport, to: &Address) -> Result<(), TransportError> {
    let deadline = Instant::now() + PATIENCE;
    transport
        .publish(to, Message::new("x"), deadline)?
        .wait(deadline)
}

/// Receives twice in a thread, which tells when it is about to begin.
fn receive_in_a_thread(mut consumer: Box<dyn Consumer>) -> mpsc::Receiver<Received> {
    let (sender, received) = mpsc::sync_channel(0);
    let (begun, begins) = mpsc::sync_channel(0);
    thread::spawn(move || {
        begun.send(()).unwrap();
        for _ in 0..2 {
            let _ = sender.send(consumer.recv());
        }
    });
    begins.recv_timeout(PATIENCE).unwrap();
    received
}

#[test]
fn a_message_wakes_a_thread_that_waits() {
    let broker = MemoryBroker::new();
    let transport = with_queue(&broker);
    let received = receive_in_a_thread(consume(&transport));
    for _ in 0..2 {
        verdict(&transport, &Address::queue(WORK)).unwrap();
        let delivery = received.recv_timeout(PATIENCE).unwrap().unwrap().unwrap();
        transport.ack(delivery.token.unwrap()).unwrap();
    }
}

#[test]
fn cancel_wakes_a_thread_that_waits() {
    let broker = MemoryBroker::new();
    let transport = with_queue(&broker);
    let consumer = consume(&transport);
    let id = consumer.id();
    let received = receive_in_a_thread(consumer);
    transport.cancel(id).unwrap();
    for _ in 0..2 {
        assert!(received.recv_timeout(PATIENCE).unwrap().unwrap().is_none());
    }
    transport.cancel(id).unwrap();
}

#[test]
fn close_wakes_a_thread_that_waits() {
    let broker = MemoryBroker::new();
    let transport = with_queue(&broker);
    let received = receive_in_a_thread(consume(&transport));
    transport.close().unwrap();
    assert!(received.recv_timeout(PATIENCE).unwrap().unwrap().is_none());
    let error = verdict(&transport, &Address::queue(WORK)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    transport.close().unwrap();
}

#[test]
fn sever_wakes_a_thread_with_the_cause() {
    let broker = MemoryBroker::new();
    let transport = with_queue(&broker);
    let received = receive_in_a_thread(consume(&transport));
    transport.sever();
    let error = received.recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(received.recv_timeout(PATIENCE).unwrap().unwrap().is_none());
}

#[test]
fn dropping_the_transport_closes_it() {
    let broker = MemoryBroker::new();
    let transport = with_queue(&broker);
    let mut consumer = consume(&transport);
    verdict(&transport, &Address::queue(WORK)).unwrap();
    drop(transport);
    assert!(consumer.recv().unwrap().is_none());
    assert_eq!(broker.queue_len("work"), Some(1));
}

#[test]
fn verdicts_come_through_the_confirm() {
    let broker = MemoryBroker::with_max_ready(1.try_into().unwrap());
    let transport = with_queue(&broker);
    let to = Address::queue(WORK);
    verdict(&transport, &to).unwrap();
    let publish = |to: &Address| {
        let deadline = Instant::now() + PATIENCE;
        let confirm = transport.publish(to, Message::new("x"), deadline).unwrap();
        confirm.wait(deadline).unwrap_err()
    };
    assert_eq!(publish(&to).kind(), ErrorKind::Refused);
    let nowhere = Address::try_from("nowhere").unwrap();
    assert_eq!(publish(&nowhere).kind(), ErrorKind::NoRoute);
    let exchange = ShortString::from_static("services");
    let error = publish(&Address::exchange(exchange, WORK));
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.certainty(), Certainty::NotExecuted);
}

#[test]
fn a_deleted_queue_is_the_cause_its_consumers_are_told() {
    let broker = MemoryBroker::new();
    let transport = with_queue(&broker);
    let mut consumer = consume(&transport);
    assert!(broker.delete_queue("work"));
    assert!(!broker.delete_queue("work"));
    assert_eq!(consumer.recv().unwrap_err().kind(), ErrorKind::NotFound);
    assert!(consumer.recv().unwrap().is_none());
}

#[test]
fn both_kinds_of_inbox_take_a_reply() {
    let broker = MemoryBroker::new();
    let (here, there) = (broker.connect(), broker.connect());
    for inbox in [Inbox::Exclusive, Inbox::Direct] {
        let mut consumer = here.consume(ConsumeOptions::inbox(inbox)).unwrap();
        let to = Address::queue(consumer.queue().clone());
        verdict(&there, &to).unwrap();
        assert!(consumer.recv().unwrap().unwrap().token.is_none());
        drop(consumer);
        let gone = verdict(&there, &to).map_err(|error| error.kind());
        match inbox {
            Inbox::Direct => assert_eq!(gone, Ok(())),
            _ => assert_eq!(gone, Err(ErrorKind::NoRoute)),
        }
    }
}
