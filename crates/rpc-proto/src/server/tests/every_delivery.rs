//! Whatever comes, in whatever order: each delivery is settled once, and no promise is broken.

use std::collections::HashSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::wire::encode_status;

/// What a peer sends.
#[derive(Clone, Debug)]
struct Sent {
    message: Message,
    redelivered: bool,
    quarantined: bool,
}

/// What happens next.
#[derive(Clone, Debug)]
enum Event {
    Deliver(Box<Sent>),
    Begin(usize),
    Finish(usize, u8),
    Acknowledged(usize, bool),
    Notice(usize),
    Cancel(ShortString),
    Wait(u64),
    Drain,
}

fn short() -> impl Strategy<Value = Option<ShortString>> {
    prop::option::of("\\PC{0,60}".prop_map(|text| ShortString::new(text).unwrap()))
}

fn few(prefix: &'static str) -> impl Strategy<Value = Option<ShortString>> {
    prop::option::of((0..4u8).prop_map(move |n| ShortString::new(format!("{prefix}{n}")).unwrap()))
}

fn kinds() -> impl Strategy<Value = Option<ShortString>> {
    prop_oneof![
        8 => few("method"),
        1 => short(),
        1 => prop::sample::select(vec![wire::REPLY_TYPE, wire::CANCEL_TYPE, wire::CHECK_TYPE])
            .prop_map(Some),
    ]
}

fn reply_addresses() -> impl Strategy<Value = Option<ShortString>> {
    let own = ["fib", "fib.quarantine", "control"].map(ShortString::from_static);
    prop_oneof![
        6 => Just(Some(ShortString::from_static("inbox"))),
        1 => short(),
        1 => prop::sample::select(own.to_vec()).prop_map(Some),
    ]
}

fn headers() -> impl Strategy<Value = Headers> {
    let names = [
        wire::HOPS,
        wire::ATTEMPT,
        wire::TIMEOUT_MS,
        wire::DEADLINE_MS,
        wire::DELIVERY_COUNT,
        wire::NOTICES,
    ];
    let values = prop_oneof![
        4 => 0..12i64,
        1 => any::<i64>(),
        1 => (0..3000i64).prop_map(|left| i64::try_from(UNIX_MS).unwrap() + left),
    ];
    prop::collection::vec((prop::sample::select(names.to_vec()), values), 0..4).prop_map(|all| {
        let mut headers = Headers::new();
        for (name, value) in all {
            headers.insert(name, value).unwrap();
        }
        headers
    })
}

prop_compose! {
    fn sent()(
        body in prop::collection::vec(any::<u8>(), 0..120),
        correlation_id in few("call"),
        message_id in few("m"),
        reply_to in reply_addresses(),
        kind in kinds(),
        expiration in prop::option::of(0..5000u64),
        headers in headers(),
        redelivered: bool,
        quarantined in prop::bool::weighted(0.2),
    ) -> Sent {
        let expiration = expiration.map(|ms| Expiration::after(Duration::from_millis(ms)));
        let message = Message {
            body: body.into(), correlation_id, message_id, reply_to, kind, expiration, headers,
            ..Message::default()
        };
        Sent { message, redelivered, quarantined }
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => sent().prop_map(|sent| Event::Deliver(Box::new(sent))),
        8 => any::<usize>().prop_map(Event::Begin),
        8 => (any::<usize>(), any::<u8>()).prop_map(|(which, how)| Event::Finish(which, how)),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(which, ok)| Event::Acknowledged(which, ok)),
        2 => any::<usize>().prop_map(Event::Notice),
        2 => few("call").prop_map(|id| Event::Cancel(id.unwrap_or_default())),
        4 => (0..400u64).prop_map(Event::Wait),
        1 => Just(Event::Drain),
    ];
    prop::collection::vec(event, 1..80)
}

/// A server, and what it has done so far.
struct World {
    server: Acceptor,
    guarantee: Guarantee,
    work: Intake,
    quarantine: Intake,
    now: Instant,
    unix_ms: u64,
    consumer: ConsumerId,
    tag: u64,
    waiting: Vec<(u64, Job)>,
    to_ack: Vec<(u64, AfterAck)>,
    running: Vec<Running>,
    /// The tags that were settled, and that were left to be delivered again.
    settled: HashSet<u64>,
    acked_first: HashSet<u64>,
    unsettled: HashSet<u64>,
    drained: bool,
}

impl World {
    fn new(guarantee: Guarantee, dedup: bool, quarantine: bool) -> Self {
        let mut policy = policy();
        policy.guarantee = guarantee;
        policy.dedup = dedup.then(|| Arc::new(MemoryDedup::default()) as Arc<dyn Dedup>);
        let queue = ShortString::from_static("fib.quarantine");
        policy.quarantine = quarantine.then(|| Quarantine::new(queue, 3));
        let server = Acceptor::new(policy);
        server.set_control(Some(ShortString::from_static("control")));
        Self {
            work: server.intake(Lane::Work),
            quarantine: server.intake(Lane::Quarantine),
            server,
            guarantee,
            now: epoch(),
            unix_ms: UNIX_MS,
            consumer: ConsumerId::unique(),
            tag: 0,
            waiting: Vec::new(),
            to_ack: Vec::new(),
            running: Vec::new(),
            settled: HashSet::new(),
            acked_first: HashSet::new(),
            unsettled: HashSet::new(),
            drained: false,
        }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Deliver(sent) => self.deliver(*sent),
            Event::Begin(which) if !self.waiting.is_empty() => {
                let (tag, job) = self.waiting.swap_remove(which % self.waiting.len());
                self.begin(tag, job);
            }
            Event::Finish(which, how) if !self.running.is_empty() => {
                let which = which % self.running.len();
                let running = self.running.swap_remove(which);
                self.finish(running, how);
            }
            Event::Acknowledged(which, ok) if !self.to_ack.is_empty() => {
                let (tag, then) = self.to_ack.swap_remove(which % self.to_ack.len());
                self.acknowledged(tag, then, ok);
            }
            Event::Notice(which) if !self.running.is_empty() => {
                let which = which % self.running.len();
                if let Some(Due::Notice(to, message)) = self.running[which].poll(self.now) {
                    self.check_address(&to);
                    assert_eq!(message.kind, Some(wire::STARTED_TYPE));
                }
            }
            Event::Cancel(id) => {
                let cancel = Message {
                    correlation_id: Some(id),
                    kind: Some(wire::CANCEL_TYPE),
                    ..Message::default()
                };
                let was = self.cancelled();
                let cancelled = self.server.handle_cancel(&cancel);
                assert_eq!(self.cancelled(), was + usize::from(cancelled));
            }
            Event::Wait(millis) => {
                self.now += Duration::from_millis(millis);
                self.unix_ms += millis;
            }
            Event::Drain => {
                self.server.drain();
                self.drained = true;
            }
            _ => {}
        }
    }

    fn deliver(&mut self, sent: Sent) {
        self.tag += 1;
        let delivery = Delivery {
            message: sent.message,
            received_at: self.now,
            redelivered: sent.redelivered,
            token: Some(AckToken::new(self.consumer, self.tag)),
        };
        let lane = if sent.quarantined {
            &self.quarantine
        } else {
            &self.work
        };
        match lane.accept(delivery, self.now, self.unix_ms) {
            Accepted::Job(job) => self.waiting.push((self.tag, job)),
            Accepted::Joined => {}
            Accepted::Settlement(settlement) => self.settle(settlement),
            Accepted::Forward(forward) => {
                let Forward { to, then, .. } = *forward;
                // The one queue of its own that it ever sends to.
                assert_eq!(to.routing_key(), &"fib.quarantine");
                assert!(sent.redelivered && !sent.quarantined);
                let full = TransportError::new(ErrorKind::NoRoute, "fake", "publish");
                let failed = self.tag.is_multiple_of(2);
                let result = if failed { Err(&full) } else { Ok(()) };
                match then.handle_publish(result) {
                    Forwarded::Run(job) => self.waiting.push((self.tag, *job)),
                    Forwarded::Settle(verdict) => self.verdict(verdict),
                }
            }
        }
    }

    fn begin(&mut self, tag: u64, job: Job) {
        let deadline = job.deadline();
        match job.begin(self.now) {
            Begun::AckFirst(token, then) => {
                self.may_begin(deadline);
                assert_eq!(self.guarantee, Guarantee::AtMostOnce);
                assert_eq!(token.tag(), tag);
                assert!(self.acked_first.insert(tag));
                self.to_ack.push((tag, then));
            }
            Begun::Joined => {}
            Begun::Run(_, running) => {
                self.may_begin(deadline);
                assert_eq!(self.guarantee, Guarantee::AtLeastOnce);
                self.running.push(running);
            }
            Begun::Settle(settlement) => self.settle(settlement),
        }
    }

    fn may_begin(&self, deadline: Instant) {
        assert!(!self.drained, "nothing begins after a drain");
        assert!(deadline > self.now, "nothing begins too late");
    }

    fn cancelled(&self) -> usize {
        let cancelled = |running: &&Running| running.cancellation().is_cancelled();
        self.running.iter().filter(cancelled).count()
    }

    fn acknowledged(&mut self, tag: u64, then: AfterAck, ok: bool) {
        let lost = TransportError::new(ErrorKind::Closed, "fake", "ack");
        let result = if ok { Ok(()) } else { Err(&lost) };
        match then.handle_ack(self.now, result) {
            Ok((_, running)) => {
                assert!(ok);
                assert!(self.settled.insert(tag));
                self.running.push(running);
            }
            Err(left) => {
                assert!(!ok);
                assert!(self.unsettled.insert(tag));
                left.into_iter()
                    .for_each(|settlement| self.settle(settlement));
            }
        }
    }

    fn finish(&mut self, running: Running, how: u8) {
        let ending = match how % 6 {
            0 => ok("832040"),
            1 => Ending::Answered(Err(Status::out_of_range("x"))),
            2 => Ending::Panicked,
            3 => Ending::TimedOut,
            4 => Ending::Cancelled,
            _ => Ending::Expired,
        };
        let Finished { settlement, joined } = running.finish(self.now, ending);
        self.settle(settlement);
        joined
            .into_iter()
            .for_each(|settlement| self.settle(settlement));
    }

    fn settle(&mut self, settlement: Settlement) {
        match settlement {
            Settlement::Reply { to, message, then } => {
                self.check_address(&to);
                assert_eq!(message.kind, Some(wire::REPLY_TYPE));
                assert_eq!(message.reply_to, None);
                assert!(message.expiration.is_some());
                let verdict = then.handle_publish(Ok(()));
                self.verdict(verdict);
            }
            Settlement::Settle(verdict) => self.verdict(verdict),
        }
    }

    fn verdict(&mut self, verdict: Verdict) {
        let tag = match verdict {
            Verdict::Ack(token) | Verdict::Discard(token) | Verdict::GiveUp(token) => token.tag(),
            Verdict::Requeue(token) => {
                assert!(!self.acked_first.contains(&token.tag()));
                token.tag()
            }
            Verdict::Settled => return,
        };
        assert!(self.settled.insert(tag), "settled twice");
    }

    fn check_address(&self, to: &Address) {
        let own = ["fib", "control"];
        assert!(!own.contains(&to.routing_key().as_str()), "{to}");
    }

    /// Lets everything come to its end.
    fn end(mut self) {
        while let Some((tag, job)) = self.waiting.pop() {
            self.begin(tag, job);
        }
        while let Some((tag, then)) = self.to_ack.pop() {
            self.acknowledged(tag, then, true);
        }
        while let Some(running) = self.running.pop() {
            self.finish(running, 0);
        }
        let all: HashSet<_> = (1..=self.tag).collect();
        let known: HashSet<_> = self.settled.union(&self.unsettled).copied().collect();
        assert_eq!(
            known, all,
            "every delivery is settled, or left to come again"
        );
        assert_eq!(self.settled.intersection(&self.unsettled).count(), 0);
        assert_eq!(self.server.stats().received, self.tag);
    }
}

proptest! {
    /// Each delivery is settled once, with its own token; nothing begins too late or after a drain;
    /// at most once is acknowledged before it runs and never put back; no answer goes to a queue of
    /// the server's own.
    #[test]
    fn every_delivery_is_settled_once_whatever_happens(
        events in events(),
        at_most_once: bool,
        dedup: bool,
        quarantine: bool,
    ) {
        let guarantee = if at_most_once { Guarantee::AtMostOnce } else { Guarantee::AtLeastOnce };
        let mut world = World::new(guarantee, dedup, quarantine);
        for event in events {
            world.step(event);
        }
        world.end();
    }

    /// One key runs once while its answer is kept, and everybody gets the same bytes.
    #[test]
    fn one_key_runs_once_and_is_answered_with_the_same_bytes(
        order in prop::collection::vec(any::<bool>(), 1..40),
    ) {
        let mut policy = policy();
        policy.dedup = Some(Arc::new(MemoryDedup::default()));
        let server = Bench::new(policy);
        let now = epoch();
        let mut running = None;
        let (mut runs, mut sent, mut answers) = (0, 0, Vec::new());
        let mut take = |settlement| answers.push(reply(settlement).1.body);
        for deliver in order {
            if !deliver {
                if let Some(running) = Option::<Running>::take(&mut running) {
                    let finished = running.finish(now, ok("832040"));
                    take(finished.settlement);
                    finished.joined.into_iter().for_each(&mut take);
                }
                continue;
            }
            sent += 1;
            let mut message = request();
            message.message_id = Some(ShortString::from_static("m"));
            match server.accept(delivery(now, message)) {
                Accepted::Job(job) => {
                    runs += 1;
                    running = Some(run(job, now).1);
                }
                Accepted::Settlement(settlement) => take(settlement),
                Accepted::Joined => {}
                Accepted::Forward(_) => unreachable!("there is no quarantine"),
            }
        }
        if let Some(running) = running {
            let finished = running.finish(now, ok("832040"));
            take(finished.settlement);
            finished.joined.into_iter().for_each(&mut take);
        }
        prop_assert!(runs <= 1);
        prop_assert_eq!(answers.len(), sent);
        prop_assert!(answers.iter().all(|body| body == "832040"));
    }

    #[test]
    fn no_status_is_lost_between_the_two_machines(number in 1i64..=16, text in "\\PC{0,200}") {
        let status = Status::new(Code::from_number(number), text);
        prop_assert_eq!(decode_reply(encode_status(&status)).unwrap_err(), status);
    }
}
