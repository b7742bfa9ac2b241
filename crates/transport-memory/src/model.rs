//! Random histories of the broker, checked against what must hold after each step.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rpc_core::{
    AckToken, Address, ConsumerId, Expiration, Fate, Message, QueueKind, QueueSpec, ShortString,
};

use crate::broker::{Broker, ConnectionId, Parcel, Received};
use crate::effects::Effects;
use crate::refusal::Refusal;

const WORK: ShortString = ShortString::from_static("work");

#[derive(Clone, Debug)]
enum Step {
    Publish { ttl: Option<u8> },
    Consume { on: usize, prefetch: usize },
    Receive { consumer: usize },
    Settle { held: usize, fate: Fate },
    Cancel { consumer: usize },
    Release { consumer: usize },
    End { on: usize, cause: Refusal },
    Pass { millis: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let any = any::<usize>;
    prop_oneof![
        6 => Just(Step::Publish { ttl: None }),
        3 => (1..40u8).prop_map(|ttl| Step::Publish { ttl: Some(ttl) }),
        2 => (any(), 1..4usize).prop_map(|(on, prefetch)| Step::Consume { on, prefetch }),
        10 => any().prop_map(|consumer| Step::Receive { consumer }),
        5 => any().prop_map(|held| Step::Settle { held, fate: Fate::Discard }),
        3 => any().prop_map(|held| Step::Settle { held, fate: Fate::Requeue }),
        1 => any().prop_map(|consumer| Step::Cancel { consumer }),
        1 => any().prop_map(|consumer| Step::Release { consumer }),
        1 => (any(), prop_oneof![Just(Refusal::Closed), Just(Refusal::Severed)])
            .prop_map(|(on, cause)| Step::End { on, cause }),
        2 => (1..30u8).prop_map(|millis| Step::Pass { millis }),
    ]
}

/// A delivery that was received and not settled.
struct Held {
    on: ConnectionId,
    token: AckToken,
    message: u64,
}

struct Subscribed {
    id: ConsumerId,
    on: ConnectionId,
    prefetch: usize,
    running: bool,
}

/// The broker next to what the outside knows of it.
struct World {
    broker: Broker<ConsumerId>,
    publisher: ConnectionId,
    connections: Vec<ConnectionId>,
    consumers: Vec<Subscribed>,
    held: Vec<Held>,
    now: Instant,
    published: u64,
    /// What must still be delivered one day, and until when.
    live: BTreeMap<u64, Option<Instant>>,
    /// What was ever received.
    seen: BTreeSet<u64>,
    /// Who waits to be woken.
    waiting: BTreeSet<ConsumerId>,
}

impl World {
    fn new() -> Self {
        let mut broker = Broker::new(NonZeroUsize::new(1_000).unwrap());
        let publisher = broker.connect();
        let spec = QueueSpec::new(WORK, QueueKind::Durable);
        broker.declare(publisher, &spec).unwrap();
        let connections = (0..3).map(|_| broker.connect()).collect();
        Self {
            broker,
            publisher,
            connections,
            consumers: Vec::new(),
            held: Vec::new(),
            now: Instant::now(),
            published: 0,
            live: BTreeMap::new(),
            seen: BTreeSet::new(),
            waiting: BTreeSet::new(),
        }
    }

    fn with<R>(
        &mut self,
        verb: impl FnOnce(&mut Broker<ConsumerId>, Instant, &mut Effects<ConsumerId>) -> R,
    ) -> R {
        let mut effects = Effects::default();
        let result = verb(&mut self.broker, self.now, &mut effects);
        self.broker.bury(self.now, &mut effects);
        for woken in effects.wakes.into_iter() {
            assert!(self.waiting.remove(&woken), "woken without waiting");
        }
        result
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Publish { ttl } => self.publish(ttl),
            Step::Consume { on, prefetch } => {
                let on = self.connections[on % self.connections.len()];
                self.consume(on, prefetch);
            }
            Step::Receive { consumer } if !self.consumers.is_empty() => {
                self.receive(consumer % self.consumers.len());
            }
            Step::Settle { held, fate } if !self.held.is_empty() => {
                self.settle(held % self.held.len(), fate);
            }
            Step::Cancel { consumer } if !self.consumers.is_empty() => {
                let place = consumer % self.consumers.len();
                let (on, id) = (self.consumers[place].on, self.consumers[place].id);
                let cancelled = self.with(|broker, now, fx| broker.cancel(on, id, now, fx));
                cancelled.unwrap();
                self.consumers[place].running = false;
            }
            Step::Release { consumer } if !self.consumers.is_empty() => {
                let gone = self.consumers.remove(consumer % self.consumers.len());
                self.with(|broker, now, fx| broker.release(gone.id, now, fx));
                self.waiting.remove(&gone.id);
            }
            Step::End { on, cause } => self.end(on % self.connections.len(), &cause),
            Step::Pass { millis } => self.now += Duration::from_millis(millis.into()),
            // There is nobody yet to do it to.
            Step::Receive { .. }
            | Step::Settle { .. }
            | Step::Cancel { .. }
            | Step::Release { .. } => {}
        }
    }

    fn publish(&mut self, ttl: Option<u8>) {
        let number = self.published;
        self.published += 1;
        let ttl = ttl.map(|millis| Duration::from_millis(millis.into()));
        let mut message = Message::new(number.to_be_bytes().to_vec());
        message.expiration = ttl.map(Expiration::after);
        self.live.insert(number, ttl.map(|ttl| self.now + ttl));
        let (on, to) = (self.publisher, Address::queue(WORK));
        self.with(|broker, now, fx| broker.publish(on, &to, Arc::new(message), now, fx))
            .unwrap();
    }

    fn consume(&mut self, on: ConnectionId, prefetch: usize) {
        let id = ConsumerId::unique();
        self.with(|broker, now, fx| broker.consume(on, id, &WORK, prefetch, now, fx))
            .unwrap();
        self.consumers.push(Subscribed {
            id,
            on,
            prefetch,
            running: true,
        });
    }

    fn receive(&mut self, place: usize) {
        let Subscribed {
            id, on, running, ..
        } = self.consumers[place];
        match self.broker.receive(id) {
            Some(Received::Parcel(parcel)) => {
                assert!(running, "an ended consumer received");
                self.hold(on, parcel);
            }
            Some(Received::End(_)) => assert!(!running, "a running consumer ended"),
            None => {
                assert!(running, "an ended consumer was told to wait");
                let _ = self.broker.wait(id, id);
                self.waiting.insert(id);
            }
        }
    }

    fn hold(&mut self, on: ConnectionId, parcel: Parcel) {
        let message = u64::from_be_bytes(parcel.message.body[..].try_into().unwrap());
        assert!(
            self.held.iter().all(|held| held.message != message),
            "delivered to two at once"
        );
        let first = self.seen.insert(message);
        assert!(first || parcel.returns > 0, "delivered before, and denied");
        let expiry = self.live[&message];
        assert!(
            expiry.is_none_or(|end| parcel.received_at <= end),
            "sent after it had expired"
        );
        let token = parcel.token.unwrap();
        self.held.push(Held { on, token, message });
    }

    fn settle(&mut self, place: usize, fate: Fate) {
        let held = self.held.swap_remove(place);
        self.with(|broker, now, fx| broker.settle(held.on, &held.token, fate.into(), now, fx))
            .unwrap();
        if fate == Fate::Discard {
            self.live.remove(&held.message);
        }
    }

    fn end(&mut self, place: usize, cause: &Refusal) {
        let on = self.connections[place];
        self.with(|broker, now, fx| broker.end(on, cause, now, fx));
        self.held.retain(|held| held.on != on);
        for consumer in self.consumers.iter_mut().filter(|one| one.on == on) {
            consumer.running = false;
        }
        self.connections[place] = self.broker.connect();
    }

    fn check(&mut self) {
        let ready = self.with(|broker, now, fx| broker.ready_len(&WORK, now, fx));
        let total = ready.unwrap() + self.broker.unsettled_len(&WORK).unwrap();
        let now = self.now;
        let unexpired = |end: &&Option<Instant>| end.is_none_or(|end| end >= now);
        let at_least = self.live.values().filter(unexpired).count();
        assert!(total >= at_least, "lost: {total} of {at_least}");
        assert!(total <= self.live.len(), "out of nothing");
        for consumer in self.consumers.iter().filter(|one| one.running) {
            let of_it = |held: &&Held| held.token.consumer() == consumer.id;
            let held = self.held.iter().filter(of_it).count();
            assert!(held <= consumer.prefetch, "over its prefetch");
            let sent = self.broker.mailbox_len(consumer.id);
            assert!(held + sent <= consumer.prefetch, "over its prefetch");
            let asleep = self.waiting.contains(&consumer.id);
            assert!(!(asleep && sent > 0), "a wake was lost");
            let idle = held + sent < consumer.prefetch;
            assert!(!(idle && ready > Some(0)), "left idle with work to do");
        }
    }

    /// Everything that still lives is delivered to a last consumer, in the order of publishing.
    fn drain(&mut self) {
        for place in 0..self.connections.len() {
            self.end(place, &Refusal::Severed);
        }
        assert!(
            self.waiting
                .iter()
                .all(|id| self.consumers.iter().all(|one| one.id != *id)),
            "the end woke not everybody"
        );
        let on = self.connections[0];
        self.consume(on, usize::MAX);
        let last = self.consumers.len() - 1;
        while self.broker.mailbox_len(self.consumers[last].id) > 0 {
            self.receive(last);
        }
        let got: Vec<_> = self.held.iter().map(|held| held.message).collect();
        assert!(got.is_sorted(), "out of order: {got:?}");
        let now = self.now;
        for (message, expiry) in &self.live {
            let expired = expiry.is_some_and(|end| now > end);
            assert!(expired || got.contains(message), "{message} is lost");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_history_loses_doubles_or_oversends_a_message(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
            world.check();
        }
        world.drain();
    }
}
