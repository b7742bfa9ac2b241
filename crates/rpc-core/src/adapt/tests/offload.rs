//! `Offload`: nothing blocks, nothing is lost, nothing is left behind.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::{declare, four, kind, offload, poll_once, soon, to, until, wait};
use crate::adapt::lock;
use crate::{
    AckToken, Certainty, ConsumeOptions, ConsumerId, ErrorKind, Inbox, Message, Transport,
};

#[test]
fn publishes_of_one_task_keep_their_order() {
    let offload = offload();
    for number in 0..200 {
        let message = Message::new(number.to_string());
        let confirm = wait(offload.publish(&to("q"), message, soon())).unwrap();
        wait(confirm).unwrap();
    }
    let wanted: Vec<_> = (0..200).map(|n: i32| n.to_string().into_bytes()).collect();
    assert_eq!(*lock(&offload.inner().published), wanted);
}

#[test]
fn a_slow_verb_holds_up_neither_publishes_nor_acks_nor_another_verb() {
    let offload = offload();
    offload.inner().declares.shut();
    let spec = declare("slow");
    let mut slow = pin!(offload.declare(&spec));
    assert!(poll_once(slow.as_mut()).is_pending());
    let _confirm = wait(offload.publish(&to("q"), Message::new("1"), soon())).unwrap();
    let consumer = wait(offload.consume(four())).unwrap();
    wait(offload.ack(AckToken::new(consumer.id(), 7))).unwrap();
    wait(offload.cancel(consumer.id())).unwrap();
    offload.inner().declares.open();
    wait(slow).unwrap();
}

#[test]
fn a_publish_that_waits_for_room_holds_up_no_ack_and_the_next_one_is_unsent_at_its_deadline() {
    let offload = offload();
    let publishes = &offload.inner().publishes;
    publishes.shut();
    let address = to("q");
    let mut first = pin!(offload.publish(&address, Message::new("1"), soon()));
    assert!(poll_once(first.as_mut()).is_pending());
    until("the first is in the transport", || {
        publishes.waiting.load(Ordering::SeqCst) == 1
    });

    wait(offload.ack(AckToken::new(ConsumerId::unique(), 1))).unwrap();
    let deadline = Instant::now() + Duration::from_millis(30);
    let second = wait(offload.publish(&address, Message::new("2"), deadline));
    assert!(Instant::now() >= deadline);
    let error = second.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.certainty(), Certainty::NotExecuted);

    publishes.open();
    let _confirm = wait(first).unwrap();
    assert_eq!(*lock(&offload.inner().published), [b"1"]);
}

#[test]
fn a_publish_that_was_dropped_before_its_turn_is_not_done_and_an_ack_is() {
    let offload = offload();
    let publishes = &offload.inner().publishes;
    publishes.shut();
    let address = to("q");
    let mut first = pin!(offload.publish(&address, Message::new("1"), soon()));
    assert!(poll_once(first.as_mut()).is_pending());
    until("the first is in the transport", || {
        publishes.waiting.load(Ordering::SeqCst) == 1
    });
    let dropped = offload.publish(&address, Message::new("2"), soon());
    assert!(poll_once(dropped).is_pending());
    let ack = offload.ack(AckToken::new(ConsumerId::unique(), 5));
    let _ = poll_once(ack);

    publishes.open();
    let _confirm = wait(first).unwrap();
    let _confirm = wait(offload.publish(&address, Message::new("3"), soon())).unwrap();
    assert_eq!(*lock(&offload.inner().published), [b"1", b"3"]);
    until("the ack is done", || {
        *lock(&offload.inner().settled) == [(5, "ack")]
    });
}

#[test]
fn a_recv_that_is_dropped_a_hundred_times_loses_nothing() {
    let offload = offload();
    let mut consumer = wait(offload.consume(four())).unwrap();
    for tag in 0..100 {
        assert!(poll_once(consumer.recv()).is_pending());
        offload.inner().deliver(consumer.id(), tag..tag + 1);
        drop(consumer.recv());
        let delivery = wait(consumer.recv()).unwrap().unwrap();
        assert_eq!(delivery.message.body, tag.to_string());
        assert!(poll_once(consumer.recv()).is_pending());
    }
}

#[test]
fn cancel_wakes_recv_and_puts_back_what_it_has_not_returned() {
    let offload = offload();
    let mut consumer = wait(offload.consume(four())).unwrap();
    let id = consumer.id();
    offload.inner().deliver(id, 0..4);
    let first = wait(consumer.recv()).unwrap().unwrap();
    wait(offload.cancel(id)).unwrap();
    wait(offload.cancel(id)).unwrap();
    let mut settled = lock(&offload.inner().settled).clone();
    settled.sort_unstable();
    assert_eq!(settled, [(1, "requeue"), (2, "requeue"), (3, "requeue")]);
    assert!(wait(consumer.recv()).unwrap().is_none());
    assert!(wait(consumer.recv()).unwrap().is_none());
    wait(offload.ack(first.token.unwrap())).unwrap();
    assert_eq!(
        offload.inner().received_by.load(Ordering::SeqCst),
        0,
        "the thread has let go of the inner consumer"
    );

    let mut consumer = wait(offload.consume(four())).unwrap();
    let id = consumer.id();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(consumer.recv()).unwrap().is_none());
        wait(offload.cancel(id)).unwrap();
        assert!(waiting.join().unwrap());
    });
}

#[test]
fn a_consumer_that_is_dropped_is_cancelled_and_its_deliveries_go_back() {
    let offload = offload();
    let consumer = wait(offload.consume(four())).unwrap();
    offload.inner().deliver(consumer.id(), 0..2);
    drop(consumer);
    until("they are back", || {
        lock(&offload.inner().settled).len() == 2
    });
    until("the consumer is gone", || {
        offload.inner().received_by.load(Ordering::SeqCst) == 0
    });

    // The same when nobody was there any more to receive the consumer.
    offload.inner().consumes.shut();
    assert!(poll_once(offload.consume(four())).is_pending());
    offload.inner().consumes.open();
    until("it was there, and is gone", || {
        offload.inner().consumed.load(Ordering::SeqCst) == 2
            && lock(&offload.inner().feeds).is_empty()
            && offload.inner().received_by.load(Ordering::SeqCst) == 0
    });
}

#[test]
fn an_inbox_that_nobody_reads_can_be_cancelled() {
    let offload = offload();
    let consumer = wait(offload.consume(ConsumeOptions::inbox(Inbox::Exclusive))).unwrap();
    assert_eq!(*consumer.queue(), "inbox");
    offload.inner().deliver(consumer.id(), 0..3000);
    wait(offload.cancel(consumer.id())).unwrap();
}

#[test]
fn close_ends_everything_and_every_thread() {
    let offload = offload();
    let mut consumer = wait(offload.consume(four())).unwrap();
    offload.inner().deliver(consumer.id(), 0..2);
    offload.inner().publishes.shut();
    let address = to("q");
    let mut stuck = pin!(offload.publish(&address, Message::new("1"), soon()));
    assert!(poll_once(stuck.as_mut()).is_pending());
    // What the threads have of the inner transport, and let go of when they end.
    assert!(offload.shares() > 1);
    let both = thread::scope(|scope| {
        let one = scope.spawn(|| wait(offload.close()));
        let other = scope.spawn(|| wait(offload.close()));
        [one.join().unwrap(), other.join().unwrap()]
    });
    assert!(both.iter().all(Result::is_ok));
    assert_eq!(offload.shares(), 1);
    assert_eq!(offload.inner().closes.load(Ordering::SeqCst), 1);
    assert!(poll_once(stuck).is_ready());

    assert!(wait(consumer.recv()).unwrap().is_none());
    wait(offload.close()).unwrap();
    wait(offload.cancel(consumer.id())).unwrap();
    let late = wait(offload.publish(&address, Message::new("2"), soon()));
    let error = late.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(error.certainty(), Certainty::NotExecuted);
    let declared = wait(offload.declare(&declare("q")));
    assert_eq!(kind(declared), Some(ErrorKind::Closed));
    let acked = wait(offload.ack(AckToken::new(consumer.id(), 0)));
    assert_eq!(kind(acked), Some(ErrorKind::Closed));
}

#[test]
fn dropped_without_close_it_closes_and_drops_the_transport_on_a_thread_of_its_own() {
    let offload = offload();
    let dropped = Arc::clone(&offload.inner().dropped);
    let mut consumer = wait(offload.consume(four())).unwrap();
    drop(offload);
    assert!(wait(consumer.recv()).unwrap().is_none());
    until("it is dropped", || lock(&dropped).is_some());
    let place = lock(&dropped).clone().unwrap();
    assert!(place.starts_with("offload-"), "{place}");
}

#[test]
fn a_panic_in_the_transport_is_an_error_and_the_adapter_lives_on() {
    let offload = offload();
    let declared = wait(offload.declare(&declare("panic")));
    assert_eq!(kind(declared), Some(ErrorKind::Other));
    let published = wait(offload.publish(&to("panic"), Message::new("1"), soon()));
    assert_eq!(
        published.unwrap_err().certainty(),
        Certainty::MaybeExecuted,
        "it may have been sent before the panic"
    );
    let mut consumer = wait(offload.consume(four())).unwrap();
    offload.inner().deliver(consumer.id(), 9999..10_000);
    assert_eq!(kind(wait(consumer.recv())), Some(ErrorKind::Other));
    assert!(wait(consumer.recv()).unwrap().is_none());

    let _confirm = wait(offload.publish(&to("q"), Message::new("2"), soon())).unwrap();
    wait(offload.close()).unwrap();
}
