//! What the simulated broker promises, and what it does not.

use std::rc::Rc;

use rpc_proto::{DeliveryMode, Expiration, HeaderValue};

use super::*;
use crate::conn::{Owner, ProcessId};
use crate::event::Event;
use crate::mix::{Fault, Faults, Mix};
use crate::setting::Setting;
use crate::time::SECOND;

const QUEUE: ShortString = ShortString::from_static("q");
const DEAD: ShortString = ShortString::from_static("q.dead");

struct Bench {
    wire: Wire,
    ledger: Ledger,
    broker: Broker,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let mix = Mix::draw(
            seed,
            Fault::ALL
                .iter()
                .fold(Faults::NONE, |all, &one| all.with(one)),
        );
        let setting = Setting::draw(seed, &mix, None);
        Self {
            wire: Wire::new(seed, mix, true),
            ledger: Ledger::new(&setting),
            broker: Broker::new(),
        }
    }

    /// A connection that consumes the queue with this prefetch, or only publishes.
    fn open(&mut self, prefetch: Option<usize>) -> ConnId {
        self.open_on(prefetch, Declare::durable(QUEUE))
    }

    fn open_on(&mut self, prefetch: Option<usize>, queue: Declare) -> ConnId {
        let id = self.wire.connect(Owner {
            process: ProcessId(0),
            life: 1,
        });
        let open = Open {
            declare: vec![queue, Declare::durable(DEAD)],
            consume: prefetch.map(|most| (QUEUE, most)).into_iter().collect(),
        };
        self.up(id, Lane::Consume, Up::Open(open));
        id
    }

    fn up(&mut self, id: ConnId, lane: Lane, frame: Up) {
        self.broker
            .handle(&mut self.wire, &mut self.ledger, (id, lane), frame);
    }

    fn publish(&mut self, id: ConnId, tag: u64, to: &str, message: Message) {
        let frame = Up::Publish {
            tag,
            to: ShortString::new(to).unwrap(),
            message: Rc::new(message),
        };
        self.up(id, Lane::Publish, frame);
    }

    /// Lets time pass, and returns what has come down a lane by then.
    fn down(&mut self, id: ConnId, lane: Lane) -> Vec<Down> {
        self.wire.now += SECOND;
        while let Some((_, event)) = self.wire.agenda.next() {
            if let Event::Confirm {
                conn,
                tag,
                serial,
                ok,
                broker_life,
            } = event
            {
                let confirmed = Confirmed {
                    conn,
                    tag,
                    serial,
                    ok,
                    broker_life,
                };
                self.broker
                    .confirm(&mut self.wire, &mut self.ledger, confirmed);
            }
        }
        self.wire.now += SECOND;
        let now = self.wire.now;
        std::iter::from_fn(|| self.wire.conns[id.0].down[lane as usize].take(now)).collect()
    }

    fn deliveries(&mut self, id: ConnId) -> Vec<Deliver> {
        let down = self.down(id, Lane::Consume);
        down.into_iter()
            .filter_map(|frame| match frame {
                Down::Deliver(deliver) => Some(deliver),
                _ => None,
            })
            .collect()
    }
}

fn persistent(body: &'static str) -> Message {
    Message {
        delivery_mode: DeliveryMode::Persistent,
        ..Message::new(body)
    }
}

#[test]
fn a_message_without_a_queue_is_returned_before_its_confirm() {
    let mut bench = Bench::new(1);
    let id = bench.open(None);
    bench.publish(id, 1, "nowhere", Message::new("m"));
    let down = bench.down(id, Lane::Publish);
    assert!(
        matches!(
            down[..],
            [Down::Return { tag: 1 }, Down::Confirm { tag: 1, ok: true }]
        ),
        "{down:?}"
    );
}

#[test]
fn what_is_confirmed_outlives_a_crash_and_what_is_not_may_not() {
    let mut unconfirmed = [false; 2];
    for seed in 0..40 {
        let mut bench = Bench::new(seed);
        let id = bench.open(None);
        bench.publish(id, 1, "q", persistent("confirmed"));
        bench.publish(id, 2, "q", Message::new("transient"));
        assert_eq!(bench.down(id, Lane::Publish).len(), 2);
        bench.publish(id, 3, "q", persistent("unconfirmed"));
        bench.broker.crash(&mut bench.wire, &mut bench.ledger);
        bench.broker.restart(&mut bench.wire);
        let id = bench.open(Some(9));
        let found = bench.deliveries(id);
        assert_eq!(&found[0].message.body[..], b"confirmed");
        assert!(
            found
                .iter()
                .all(|one| one.message.body[..] != b"transient"[..])
        );
        unconfirmed[found.len() - 1] = true;
    }
    assert_eq!(unconfirmed, [true; 2], "both happen");
}

#[test]
fn what_was_delivered_and_not_settled_comes_back_marked_and_in_its_place() {
    let mut bench = Bench::new(1);
    let worker = bench.open(Some(1));
    for (tag, body) in [(1, "a"), (2, "b")] {
        bench.publish(worker, tag, "q", persistent(body));
    }
    assert_eq!(
        bench.deliveries(worker).len(),
        1,
        "no more than the prefetch"
    );
    bench.up(worker, Lane::Consume, Up::End);
    let next = bench.open(Some(9));
    let found = bench.deliveries(next);
    let seen: Vec<_> = found
        .iter()
        .map(|one| (&one.message.body[..], one.redelivered))
        .collect();
    assert_eq!(seen, [(&b"a"[..], true), (&b"b"[..], false)]);
}

#[test]
fn messages_expire_at_the_head_of_the_queue_only() {
    let mut bench = Bench::new(1);
    let id = bench.open(None);
    let expiring = Message {
        expiration: Some(Expiration::after(std::time::Duration::from_millis(10))),
        ..persistent("short")
    };
    bench.publish(id, 1, "q", persistent("long"));
    bench.publish(id, 2, "q", expiring);
    bench.wire.now += SECOND;
    bench.broker.sweep(&mut bench.wire, &mut bench.ledger);
    assert_eq!(bench.broker.depth(&QUEUE), 2);
    let worker = bench.open(Some(9));
    assert_eq!(bench.deliveries(worker).len(), 1);
    assert_eq!(bench.broker.depth(&QUEUE), 1, "the one that is delivered");
}

#[test]
fn an_alarm_stops_publishers_and_lets_acknowledgements_through() {
    let mut bench = Bench::new(1);
    let id = bench.open(Some(1));
    bench.publish(id, 1, "q", persistent("m"));
    let tag = bench.deliveries(id)[0].tag;
    bench.broker.set_alarm(&mut bench.wire, true);
    let far = 100 * SECOND;
    let publish = Up::Publish {
        tag: 2,
        to: QUEUE,
        message: Rc::new(persistent("n")),
    };
    bench.wire.send_up(id, Lane::Publish, publish);
    bench
        .wire
        .send_up(id, Lane::Consume, Up::Ack { consumer: 1, tag });
    let conn = &mut bench.wire.conns[id.0];
    assert!(conn.up[Lane::Publish as usize].take(far).is_none());
    assert!(conn.up[Lane::Consume as usize].take(far).is_some());
    bench.broker.set_alarm(&mut bench.wire, false);
    let conn = &mut bench.wire.conns[id.0];
    assert!(conn.up[Lane::Publish as usize].take(far).is_some());
}

#[test]
fn a_message_that_is_delivered_in_vain_too_often_is_a_dead_letter_and_says_why() {
    for crash in [false, true] {
        let mut bench = Bench::new(1);
        let queue = Declare {
            counts: true,
            delivery_limit: Some(1),
            dead_letter: Some(DEAD),
            ..Declare::durable(QUEUE)
        };
        let id = bench.open_on(None, queue.clone());
        bench.publish(id, 1, "q", persistent("m"));
        for time in 0..2 {
            let worker = bench.open_on(Some(1), queue.clone());
            let found = bench.deliveries(worker);
            assert_eq!(found[0].failures, Some(time));
            if crash {
                bench.broker.crash(&mut bench.wire, &mut bench.ledger);
                bench.broker.restart(&mut bench.wire);
            } else {
                bench.up(worker, Lane::Consume, Up::End);
            }
        }
        assert_eq!(bench.broker.depth(&QUEUE), 0);
        let dead: Vec<_> = bench.broker.messages(&DEAD).collect();
        let cause = dead[0].headers.get("x-first-death-reason");
        assert_eq!(cause.and_then(HeaderValue::as_text), Some("delivery_limit"));
    }
}

#[test]
fn an_inbox_goes_with_its_connection() {
    let mut bench = Bench::new(1);
    let (one, two) = (bench.open(None), bench.open(None));
    let opened = bench.down(one, Lane::Consume);
    let [Down::Opened(opened)] = &opened[..] else {
        panic!("{opened:?}");
    };
    let inbox = opened.inbox.to_string();
    bench.up(one, Lane::Consume, Up::End);
    bench.publish(two, 1, &inbox, Message::new("late"));
    let down = bench.down(two, Lane::Publish);
    assert!(matches!(down[0], Down::Return { tag: 1 }), "{down:?}");
}

#[test]
fn a_second_settlement_of_a_delivery_is_noticed() {
    let mut bench = Bench::new(1);
    let id = bench.open(Some(1));
    bench.publish(id, 1, "q", persistent("m"));
    let Deliver { consumer, tag, .. } = bench.deliveries(id)[0];
    bench.up(id, Lane::Consume, Up::Ack { consumer, tag });
    assert!(bench.ledger.breaches.is_empty());
    bench.up(id, Lane::Consume, Up::Ack { consumer, tag });
    assert_eq!(bench.ledger.breaches.len(), 1);
}
