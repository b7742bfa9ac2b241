//! The broker value under a clock of the test's own.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rpc_core::{
    AckToken, Address, ConsumerId, Expiration, Fate, Message, Misdeclared, QueueKind, QueueSpec,
    ShortString,
};

use super::{Broker, ConnectionId, DIRECT_PREFIX, Parcel, Received, Settle};
use crate::effects::Effects;
use crate::queue::Ownership;
use crate::refusal::Refusal;

pub(super) const WORK: ShortString = ShortString::from_static("work");

/// A broker with one connection, the queue `work`, and a clock.
pub(super) struct Bench {
    pub(super) broker: Broker<u32>,
    pub(super) on: ConnectionId,
    pub(super) now: Instant,
    woken: Vec<u32>,
}

impl Bench {
    pub(super) fn new(kind: QueueKind, max_ready: usize) -> Self {
        let mut this = Self::empty(max_ready);
        this.declare(&QueueSpec::new(WORK, kind)).unwrap();
        this
    }

    /// Without the queue.
    pub(super) fn empty(max_ready: usize) -> Self {
        let mut broker = Broker::new(NonZeroUsize::new(max_ready).unwrap());
        let on = broker.connect();
        Self {
            broker,
            on,
            now: Instant::now(),
            woken: Vec::new(),
        }
    }

    pub(super) fn with<R>(
        &mut self,
        verb: impl FnOnce(&mut Broker<u32>, ConnectionId, Instant, &mut Effects<u32>) -> R,
    ) -> R {
        let mut effects = Effects::default();
        let result = verb(&mut self.broker, self.on, self.now, &mut effects);
        self.broker.bury(self.now, &mut effects);
        self.woken.extend(effects.wakes.into_iter());
        result
    }

    pub(super) fn publish(&mut self, to: &str, body: &str) -> Result<(), Refusal> {
        self.publish_message(to, Message::new(body.to_owned()))
    }

    pub(super) fn publish_message(&mut self, to: &str, message: Message) -> Result<(), Refusal> {
        let to = Address::try_from(to).unwrap();
        self.with(|broker, on, now, effects| {
            broker.publish(on, &to, Arc::new(message), now, effects)
        })
    }

    pub(super) fn publish_for(&mut self, body: &str, millis: u64) {
        let mut message = Message::new(body.to_owned());
        message.expiration = Some(Expiration::after(Duration::from_millis(millis)));
        self.publish_message("work", message).unwrap();
    }

    pub(super) fn declare(&mut self, spec: &QueueSpec) -> Result<(), Refusal> {
        self.broker.declare(self.on, spec)
    }

    pub(super) fn consume(&mut self, prefetch: usize) -> ConsumerId {
        self.consume_from(&WORK, prefetch)
    }

    pub(super) fn consume_from(&mut self, name: &ShortString, prefetch: usize) -> ConsumerId {
        let id = ConsumerId::unique();
        self.with(|broker, on, now, effects| broker.consume(on, id, name, prefetch, now, effects))
            .unwrap();
        id
    }

    pub(super) fn acknowledge(&mut self, token: &AckToken) -> Result<(), Refusal> {
        self.with(|broker, on, now, effects| broker.settle(on, token, Settle::Done, now, effects))
    }

    pub(super) fn sever(&mut self) {
        self.with(|broker, on, now, effects| broker.end(on, &Refusal::Severed, now, effects));
    }

    pub(super) fn parcel(&mut self, id: ConsumerId) -> Option<Parcel> {
        match self.broker.receive(id)? {
            Received::Parcel(parcel) => Some(parcel),
            Received::End(_) => None,
        }
    }

    fn body(&mut self, id: ConsumerId) -> Option<String> {
        let parcel = self.parcel(id)?;
        Some(String::from_utf8(parcel.message.body.to_vec()).unwrap())
    }

    pub(super) fn token(&mut self, id: ConsumerId) -> AckToken {
        self.parcel(id).unwrap().token.unwrap()
    }

    pub(super) fn settle(&mut self, token: &AckToken, fate: Fate) -> Result<(), Refusal> {
        self.with(|broker, on, now, effects| broker.settle(on, token, fate.into(), now, effects))
    }

    fn cancel(&mut self, id: ConsumerId) -> Result<(), Refusal> {
        self.with(|broker, on, now, effects| broker.cancel(on, id, now, effects))
    }

    pub(super) fn ready(&mut self) -> Option<usize> {
        self.with(|broker, _, now, effects| broker.ready_len(&WORK, now, effects))
    }
}

#[test]
fn consumers_with_credit_take_turns() {
    let mut bench = Bench::new(QueueKind::Durable, 10);
    let (a, b) = (bench.consume(2), bench.consume(8));
    for body in ["0", "1", "2", "3", "4"] {
        bench.publish("work", body).unwrap();
    }
    assert_eq!(bench.body(a).as_deref(), Some("0"));
    assert_eq!(bench.body(a).as_deref(), Some("2"));
    assert_eq!(bench.body(a), None, "its prefetch is used up");
    let of_b: Vec<_> = std::iter::from_fn(|| bench.body(b)).collect();
    assert_eq!(of_b, ["1", "3", "4"]);
}

#[test]
fn what_comes_back_takes_its_old_place_and_is_marked() {
    let mut bench = Bench::new(QueueKind::Durable, 10);
    for body in ["0", "1", "2", "3"] {
        bench.publish("work", body).unwrap();
    }
    let first = bench.consume(3);
    let tokens: Vec<_> = (0..3).map(|_| bench.token(first)).collect();
    bench.cancel(first).unwrap();
    for token in tokens.iter().rev() {
        bench.settle(token, Fate::Requeue).unwrap();
    }
    let second = bench.consume(9);
    let seen: Vec<_> = std::iter::from_fn(|| bench.parcel(second))
        .map(|parcel| (parcel.message.body[0], parcel.returns))
        .collect();
    assert_eq!(seen, [(b'0', 1), (b'1', 1), (b'2', 1), (b'3', 0)]);
}

#[test]
fn an_expired_message_is_dropped_at_the_head_only() {
    let mut bench = Bench::new(QueueKind::Durable, 10);
    bench.publish_for("long", 1_000);
    bench.publish_for("short", 10);
    bench.now += Duration::from_millis(10);
    assert_eq!(bench.ready(), Some(2), "its last millisecond counts");
    bench.now += Duration::from_millis(1);
    assert_eq!(bench.ready(), Some(2), "it is not at the head");
    let consumer = bench.consume(1);
    let token = bench.token(consumer);
    bench.publish("work", "last").unwrap();
    bench.settle(&token, Fate::Discard).unwrap();
    assert_eq!(bench.body(consumer).as_deref(), Some("last"));
}

#[test]
fn a_requeued_message_keeps_its_time_of_expiry() {
    let mut bench = Bench::new(QueueKind::Durable, 10);
    bench.publish_for("once", 10);
    let consumer = bench.consume(1);
    let token = bench.token(consumer);
    bench.now += Duration::from_millis(11);
    bench.settle(&token, Fate::Requeue).unwrap();
    assert_eq!(bench.body(consumer), None);
    assert_eq!(bench.ready(), Some(0));
}

#[test]
fn a_full_queue_refuses_and_what_is_out_does_not_count() {
    let mut bench = Bench::new(QueueKind::Durable, 2);
    let consumer = bench.consume(1);
    for body in ["out", "1", "2"] {
        bench.publish("work", body).unwrap();
    }
    let full = Refusal::Full { name: WORK, max: 2 };
    assert_eq!(bench.publish("work", "3"), Err(full.clone()));
    let token = bench.token(consumer);
    bench.settle(&token, Fate::Discard).unwrap();
    bench.publish("work", "3").unwrap();
    assert_eq!(bench.publish("work", "4"), Err(full));
}

#[test]
fn a_transient_queue_goes_with_its_last_consumer() {
    let mut bench = Bench::new(QueueKind::Transient, 10);
    assert_eq!(bench.ready(), Some(0), "it waits for its first consumer");
    let (a, b) = (bench.consume(1), bench.consume(1));
    bench.publish("work", "x").unwrap();
    let token = bench.token(a);
    bench.cancel(a).unwrap();
    assert_eq!(bench.ready(), Some(0));
    bench.cancel(b).unwrap();
    assert_eq!(bench.publish("work", "x"), Err(Refusal::NoRoute(WORK)));
    bench
        .broker
        .declare(bench.on, &QueueSpec::new(WORK, QueueKind::Transient))
        .unwrap();
    bench.settle(&token, Fate::Requeue).unwrap();
    assert_eq!(bench.ready(), Some(0), "nothing comes into its namesake");
}

#[test]
fn a_declaration_checks_the_kind_and_the_name() {
    let mut bench = Bench::new(QueueKind::Durable, 10);
    let mut declare = |name, kind| {
        let spec = QueueSpec::new(ShortString::from_static(name), kind);
        bench.broker.declare(bench.on, &spec)
    };
    assert_eq!(declare("work", QueueKind::Durable), Ok(()));
    assert_eq!(declare("work", QueueKind::Passive), Ok(()));
    let differs = Refusal::Differs {
        name: WORK,
        argument: "x-queue-type",
    };
    assert_eq!(declare("work", QueueKind::Quorum), Err(differs));
    let none = ShortString::from_static("none");
    assert_eq!(
        declare("none", QueueKind::Passive),
        Err(Refusal::NoQueue(none))
    );
    let reserved = ShortString::from_static("amq.mine");
    assert_eq!(
        declare("amq.mine", QueueKind::Durable),
        Err(Refusal::Reserved(reserved))
    );
    assert_eq!(
        declare("", QueueKind::Durable),
        Err(Refusal::Misdeclared(Misdeclared::NoName))
    );
}

#[test]
fn a_message_without_a_queue_is_told_from_one_without_an_exchange() {
    let mut bench = Bench::new(QueueKind::Durable, 10);
    let none = ShortString::from_static("none");
    assert_eq!(
        bench.publish("none", "x"),
        Err(Refusal::NoRoute(none.clone()))
    );
    let to = Address::exchange(none.clone(), WORK);
    let verdict = bench.with(|broker, on, now, effects| {
        broker.publish(on, &to, Arc::new(Message::default()), now, effects)
    });
    assert_eq!(verdict, Err(Refusal::NoExchange(none)));
}

#[test]
fn an_inbox_is_private_and_needs_no_settling() {
    let mut bench = Bench::new(QueueKind::Durable, 2);
    let (id, name) = (ConsumerId::unique(), ShortString::from_static("amq.gen-1"));
    bench
        .broker
        .open_inbox(bench.on, id, name.clone(), Ownership::Private)
        .unwrap();
    for body in ["0", "1"] {
        bench.publish("amq.gen-1", body).unwrap();
    }
    let full = bench.publish("amq.gen-1", "2");
    assert!(matches!(full, Err(Refusal::Full { max: 2, .. })));
    assert!(bench.parcel(id).unwrap().token.is_none());
    bench.publish("amq.gen-1", "2").unwrap();

    let other = bench.broker.connect();
    let check = QueueSpec::new(name.clone(), QueueKind::Passive);
    let locked = Err(Refusal::Locked(name.clone()));
    assert_eq!(bench.broker.declare(other, &check), locked);
    assert_eq!(bench.broker.declare(bench.on, &check), Ok(()));
    let second = bench.with(|broker, on, now, effects| {
        broker.consume(on, ConsumerId::unique(), &name, 1, now, effects)
    });
    assert_eq!(second, locked);

    bench.cancel(id).unwrap();
    assert_eq!(bench.publish("amq.gen-1", "3"), Err(Refusal::NoRoute(name)));
}

#[test]
fn what_is_sent_to_a_direct_inbox_that_is_gone_vanishes() {
    let mut bench = Bench::new(QueueKind::Durable, 2);
    let id = ConsumerId::unique();
    let to = format!("{DIRECT_PREFIX}1");
    let name = ShortString::new(&to).unwrap();
    bench
        .broker
        .open_inbox(bench.on, id, name, Ownership::Direct)
        .unwrap();
    bench.publish(&to, "0").unwrap();
    assert_eq!(bench.body(id).as_deref(), Some("0"));
    bench.cancel(id).unwrap();
    bench.publish(&to, "1").unwrap();
}

#[test]
fn a_waiting_consumer_is_woken_once_for_many_messages() {
    let mut bench = Bench::new(QueueKind::Durable, 10);
    let consumer = bench.consume(8);
    assert_eq!(bench.broker.wait(consumer, 7), None);
    assert_eq!(bench.broker.wait(consumer, 8), Some(7), "handed back");
    for body in ["0", "1", "2"] {
        bench.publish("work", body).unwrap();
    }
    assert_eq!(bench.woken, [8]);
}

#[test]
fn foreign_tokens_and_consumers_are_misuse_and_ended_ones_are_not() {
    let mut bench = Bench::new(QueueKind::Durable, 10);
    let consumer = bench.consume(1);
    bench.publish("work", "x").unwrap();
    let token = bench.token(consumer);

    let own = bench.on;
    bench.on = bench.broker.connect();
    assert_eq!(
        bench.settle(&token, Fate::Discard),
        Err(Refusal::ForeignToken)
    );
    assert_eq!(bench.cancel(consumer), Err(Refusal::ForeignConsumer));

    bench.on = own;
    bench.settle(&token, Fate::Discard).unwrap();
    assert_eq!(
        bench.settle(&token, Fate::Discard),
        Err(Refusal::ForeignToken)
    );
    bench.with(|broker, _, now, effects| broker.release(consumer, now, effects));
    assert!(bench.broker.subscribers.is_empty(), "nothing is left of it");
    assert_eq!(bench.cancel(consumer), Ok(()));
}

#[test]
fn a_severed_connection_gives_all_back_and_tells_the_cause_once() {
    let mut bench = Bench::new(QueueKind::Durable, 10);
    let (a, b) = (bench.consume(1), bench.consume(2));
    for body in ["0", "1", "2"] {
        bench.publish("work", body).unwrap();
    }
    let token = bench.token(a);
    bench.with(|broker, on, now, effects| broker.end(on, &Refusal::Severed, now, effects));
    assert_eq!(bench.ready(), Some(3));
    assert_eq!(bench.broker.unsettled_len(&WORK), Some(0));
    for id in [a, b] {
        let cause = bench.broker.receive(id);
        assert!(matches!(cause, Some(Received::End(Some(Refusal::Severed)))));
        let after = bench.broker.receive(id);
        assert!(matches!(after, Some(Received::End(None))));
    }
    assert_eq!(bench.settle(&token, Fate::Discard), Err(Refusal::Severed));
    assert_eq!(bench.publish("work", "3"), Err(Refusal::Severed));
    assert_eq!(bench.cancel(a), Ok(()));
}

#[test]
fn the_consumers_of_a_deleted_queue_are_told_and_their_tokens_stay_valid() {
    let mut bench = Bench::new(QueueKind::Durable, 10);
    let consumer = bench.consume(1);
    bench.publish("work", "0").unwrap();
    bench.publish("work", "1").unwrap();
    let token = bench.token(consumer);
    assert!(bench.with(|broker, _, _, effects| broker.delete(&WORK, effects)));
    assert_eq!(bench.ready(), None);
    let cause = bench.broker.receive(consumer);
    assert!(matches!(
        cause,
        Some(Received::End(Some(Refusal::Deleted(_))))
    ));
    bench.settle(&token, Fate::Requeue).unwrap();
}
