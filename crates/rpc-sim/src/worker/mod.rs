//! A simulated worker process: the driver of the server steps, without tasks.
//!
//! What it does and in which order is that of rpc-core's server driver: accept, wait for a slot,
//! begin, run, reply, wait for the confirm, settle. It takes no decision of its own.

use std::collections::{BTreeMap, VecDeque};

use rpc_proto::link::Generation;
use rpc_proto::server::{
    Accepted, Acceptor, AfterReply, Ending, Job, Policy, Request, Response, Running, Settlement,
    Verdict,
};
use rpc_proto::{AckToken, Delivery, ErrorKind, ShortString, Status, TransportError};

use crate::conn::{ConnId, Declare, Deliver, Down, Open, Owner};
use crate::event::Wake;
use crate::home::{Arrival, Home};
use crate::ledger::{Ledger, Started};
use crate::peer::{News, closed, error};
use crate::rule::Rule;
use crate::setting::{Setting, Work};
use crate::time::{MS, Micros, span};
use crate::wire::Wire;

/// Whether the process still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Lives,
    /// A request has killed it.
    Dies,
    /// It has drained, and ends by itself.
    Ends,
}

/// A worker process.
#[derive(Debug)]
pub(crate) struct Worker {
    number: usize,
    home: Home<u64>,
    acceptor: Acceptor,
    concurrency: usize,
    settle_timeout: Micros,
    open: Open,
    waiting: VecDeque<(Job, Origin)>,
    running: BTreeMap<u64, AtWork>,
    /// Replies whose confirm is not there yet.
    replies: BTreeMap<u64, Sent>,
    next: u64,
    drain: Drain,
    armed: Micros,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    No,
    /// The consumer is being cancelled.
    Asked,
    /// Nothing begins any more.
    Stopped,
}

/// Where a request came from: what the ledger knows it by, and the transport that settles it.
#[derive(Clone, Debug)]
struct Origin {
    correlation_id: Option<ShortString>,
    generation: Generation,
    redelivered: bool,
}

/// A handler that runs.
#[derive(Debug)]
struct AtWork {
    running: Running,
    origin: Origin,
    record: Option<(usize, usize)>,
    plan: Planned,
}

/// A reply on its way.
#[derive(Debug)]
struct Sent {
    then: AfterReply,
    origin: Origin,
    tag: u64,
    until: Micros,
}

/// How a handler will end.
#[derive(Clone, Copy, Debug)]
enum Planned {
    Answer(usize),
    Fail,
    Kill,
    Panic,
    TimeOut,
}

/// The service's queue.
pub(crate) const QUEUE: ShortString = ShortString::from_static("work");
/// Where its dead letters go.
pub(crate) const DEAD: ShortString = ShortString::from_static("work.dead");

impl Worker {
    pub(crate) fn new(
        wire: &Wire,
        owner: Owner,
        number: usize,
        setting: &Setting,
        seed: u64,
    ) -> Self {
        let policy = Policy::new(QUEUE);
        let work = Declare {
            durable: setting.durable,
            auto_delete: !setting.durable,
            counts: setting.quorum,
            max_length: setting.max_length,
            dead_letter: setting.durable.then_some(DEAD),
            ..Declare::durable(QUEUE)
        };
        let open = Open {
            declare: vec![work, Declare::durable(DEAD)],
            consume: vec![(QUEUE, setting.prefetch)],
        };
        Self {
            number,
            home: Home::new(wire, owner, seed),
            acceptor: Acceptor::new(policy),
            concurrency: setting.concurrency,
            settle_timeout: setting.settle_timeout,
            open,
            waiting: VecDeque::new(),
            running: BTreeMap::new(),
            replies: BTreeMap::new(),
            next: 0,
            drain: Drain::No,
            armed: 0,
        }
    }

    /// Something came from the broker.
    pub(crate) fn handle(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        (conn, frame): (ConnId, Down),
    ) -> Fate {
        match self.home.handle(wire, conn, frame) {
            Arrival::Up | Arrival::Nothing => {}
            Arrival::News(news) => self.news(wire, ledger, setting, news),
        }
        self.go_on(wire)
    }

    pub(crate) fn wake(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        wake: Wake,
    ) -> Fate {
        match wake {
            Wake::Timer => {
                self.armed = 0;
                self.time_out_replies(wire, ledger);
            }
            Wake::DialTimeout(conn) => self.home.dial_timeout(wire, conn),
            Wake::Handler(number) => {
                if self.handler_ends(wire, ledger, number) == Fate::Dies {
                    return Fate::Dies;
                }
                self.begin_next(wire, ledger, setting);
            }
            Wake::DrainTimeout => {
                self.home.close(wire);
                return Fate::Ends;
            }
            Wake::GiveUp(_) | Wake::Retry(_) => {}
        }
        self.go_on(wire)
    }

    /// Begins to drain.
    pub(crate) fn drain(&mut self, wire: &mut Wire) -> Fate {
        if self.drain != Drain::No {
            return Fate::Lives;
        }
        wire.trace("worker.drain", [self.number as u64, 0, 0]);
        self.drain = Drain::Asked;
        let limit = wire.now + DRAIN_LIMIT;
        wire.wake(self.home.owner, limit, Wake::DrainTimeout);
        match &self.home.peer {
            Some(peer) if peer.open => peer.cancel(wire, 1),
            _ => {
                self.home.close(wire);
                self.stop(wire);
            }
        }
        self.go_on(wire)
    }

    /// After a start, after a pause, and after everything that happens.
    pub(crate) fn go_on(&mut self, wire: &mut Wire) -> Fate {
        if self.drain == Drain::Stopped && self.running.is_empty() && self.replies.is_empty() {
            self.home.close(wire);
            return Fate::Ends;
        }
        // Whoever drains needs no other connection.
        let dial = (self.drain == Drain::No)
            .then(|| self.home.poll(wire, || self.open.clone()))
            .flatten();
        let settle = self.replies.values().map(|sent| sent.until).min();
        let next = dial.into_iter().chain(settle).min();
        if let Some(at) = next
            && (self.armed == 0 || at < self.armed)
        {
            self.armed = at;
            wire.wake(self.home.owner, at, Wake::Timer);
        }
        Fate::Lives
    }

    pub(crate) fn is_up(&self) -> bool {
        self.home.is_up()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty() && self.replies.is_empty()
    }

    fn news(&mut self, wire: &mut Wire, ledger: &mut Ledger, setting: &Setting, news: News<u64>) {
        match news {
            News::Confirmed(reply, result) => self.reply_ends(wire, ledger, reply, result),
            News::Delivery(place, deliver) => {
                self.deliver(wire, ledger, setting, place, &deliver);
            }
            News::CancelOk => self.stop(wire),
            News::Cancelled(_) => {
                let news = self.home.leave(wire);
                self.news(wire, ledger, setting, news);
            }
            News::Ended(cause, replies) => {
                for reply in replies {
                    self.reply_ends(wire, ledger, reply, Err(cause.clone()));
                }
                self.abandon_waiting(wire);
                if self.drain == Drain::Asked {
                    self.stop(wire);
                }
            }
            News::Unblocked | News::Nothing => {}
        }
    }

    fn deliver(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        place: usize,
        deliver: &Deliver,
    ) {
        let Some(peer) = &self.home.peer else { return };
        if place == 0 {
            return;
        }
        let mut message = (*deliver.message).clone();
        if let Some(failures) = deliver.failures.filter(|&failures| failures > 0) {
            let _ = message
                .headers
                .insert("x-delivery-count", i64::from(failures));
        }
        let delivery = Delivery {
            message,
            received_at: wire.instant(),
            redelivered: deliver.redelivered,
            token: Some(AckToken::new(peer.consumers[place].1, deliver.tag)),
        };
        wire.trace(
            "worker.take",
            [
                self.number as u64,
                deliver.tag,
                u64::from(deliver.redelivered),
            ],
        );
        let origin = Origin {
            correlation_id: deliver.message.correlation_id.clone(),
            generation: self.home.generation,
            redelivered: deliver.redelivered,
        };
        match self.acceptor.accept(delivery) {
            Accepted::Job(job) => self.waiting.push_back((job, origin)),
            Accepted::Settlement(settlement) => self.settle(wire, ledger, settlement, origin),
        }
        self.begin_next(wire, ledger, setting);
    }

    /// Gives free slots to those that wait.
    fn begin_next(&mut self, wire: &mut Wire, ledger: &mut Ledger, setting: &Setting) {
        while self.running.len() < self.concurrency {
            let Some((job, origin)) = self.waiting.pop_front() else {
                return;
            };
            match job.begin(wire.instant()) {
                Err(settlement) => self.settle(wire, ledger, settlement, origin),
                Ok((request, running)) => {
                    self.run(wire, ledger, setting, (&request, running), origin);
                }
            }
        }
    }

    fn run(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        (request, running): (&Request, Running),
        origin: Origin,
    ) {
        let call = std::str::from_utf8(&request.body)
            .ok()
            .and_then(|text| text.parse::<usize>().ok())
            .unwrap_or(usize::MAX);
        wire.trace("worker.run", [self.number as u64, call as u64, 0]);
        if self.drain == Drain::Stopped {
            let detail = format!("worker {} began after its drain", self.number);
            ledger.breach(Rule::DrainBeginsNothing, Some(call), detail);
        }
        let record = ledger.executed(&Started {
            correlation_id: origin.correlation_id.as_ref(),
            message_id: request.message_id.as_ref(),
            worker: self.number,
            redelivered: request.redelivered,
        });
        let (plan, takes) = match setting.work(call) {
            None => (Planned::Answer(call), MS),
            Some(Work::Answer(takes)) => (Planned::Answer(call), takes),
            Some(Work::Fail(takes)) => (Planned::Fail, takes),
            Some(Work::Panic) => (Planned::Panic, MS / 2),
            Some(Work::Poison) => (Planned::Kill, MS / 2),
            Some(Work::Stuck) => (Planned::TimeOut, Micros::MAX),
        };
        let left = span(running.deadline().saturating_duration_since(wire.instant()));
        let (plan, takes) = if takes < left {
            (plan, takes)
        } else {
            (Planned::TimeOut, left)
        };
        let number = self.next;
        self.next += 1;
        let end = wire.now + takes;
        wire.wake(self.home.owner, end, Wake::Handler(number));
        self.running.insert(
            number,
            AtWork {
                running,
                origin,
                record,
                plan,
            },
        );
    }

    fn handler_ends(&mut self, wire: &mut Wire, ledger: &mut Ledger, number: u64) -> Fate {
        let Some(work) = self.running.remove(&number) else {
            return Fate::Lives;
        };
        let ending = match work.plan {
            Planned::Kill => return Fate::Dies,
            Planned::Answer(call) => Ending::Answered(Ok(Response {
                body: answer(call).into(),
                content_type: None,
            })),
            Planned::Fail => Ending::Answered(Err(Status::out_of_range("as planned"))),
            Planned::Panic => Ending::Panicked,
            Planned::TimeOut => Ending::TimedOut,
        };
        if let Some(record) = work.record {
            ledger.finished(record);
        }
        let settlement = work.running.finish(wire.instant(), ending);
        self.settle(wire, ledger, settlement, work.origin);
        Fate::Lives
    }

    /// Reply, confirm, settle, in this order, on the transport that the request came on.
    fn settle(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        settlement: Settlement,
        origin: Origin,
    ) {
        let (to, message, then) = match settlement {
            Settlement::Settle(verdict) => return self.carry_out(wire, verdict, origin.generation),
            Settlement::Reply { to, message, then } => (to, message, then),
        };
        let number = self.next;
        self.next += 1;
        let sent = match &mut self.home.peer {
            Some(peer) if self.home.generation == origin.generation => {
                peer.publish(wire, &to, message, number)
            }
            _ => Err(closed("publish").unsent()),
        };
        match sent {
            Ok(tag) => {
                let until = wire.now + self.settle_timeout;
                let sent = Sent {
                    then,
                    origin,
                    tag,
                    until,
                };
                self.replies.insert(number, sent);
            }
            Err(cause) => self.answered(wire, ledger, then, &origin, Err(cause)),
        }
    }

    fn reply_ends(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        number: u64,
        result: Result<(), TransportError>,
    ) {
        if let Some(sent) = self.replies.remove(&number) {
            self.answered(wire, ledger, sent.then, &sent.origin, result);
        }
    }

    fn answered(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        then: AfterReply,
        origin: &Origin,
        result: Result<(), TransportError>,
    ) {
        let verdict = then.handle_publish(result.as_ref().map(|&()| ()));
        let kind = result.err().map(|error| error.kind());
        let unanswerable = match kind {
            Some(ErrorKind::NoRoute | ErrorKind::Refused) => true,
            Some(ErrorKind::Timeout) => origin.redelivered,
            _ => false,
        };
        if unanswerable {
            ledger.unanswerable(origin.correlation_id.as_ref());
            if matches!(verdict, Verdict::Requeue(_)) {
                let call = ledger.find(origin.correlation_id.as_ref());
                let detail = format!("requeued, and its reply failed with {kind:?}");
                ledger.breach(Rule::RequeueEnds, call.map(|(call, _)| call), detail);
            }
        }
        self.carry_out(wire, verdict, origin.generation);
    }

    fn time_out_replies(&mut self, wire: &mut Wire, ledger: &mut Ledger) {
        let late = |sent: &&Sent| sent.until <= wire.now;
        let tags: Vec<_> = self.replies.values().filter(late).map(|s| s.tag).collect();
        for tag in tags {
            let number = self.home.peer.as_mut().and_then(|peer| peer.forget(tag));
            if let Some(number) = number {
                self.reply_ends(wire, ledger, number, Err(error(ErrorKind::Timeout)));
            }
        }
    }

    fn carry_out(&mut self, wire: &mut Wire, verdict: Verdict, generation: Generation) {
        let Some(peer) = &self.home.peer else { return };
        if self.home.generation != generation {
            return;
        }
        // Unsettled, the request comes again when this transport has ended.
        let _ = match verdict {
            Verdict::Ack(token) => peer.ack(wire, &token),
            Verdict::Requeue(token) => peer.reject(wire, &token, true),
            Verdict::Settled => Ok(()),
        };
    }

    /// Lets nothing begin any more, and hands back what has not begun.
    fn stop(&mut self, wire: &mut Wire) {
        self.drain = Drain::Stopped;
        self.abandon_waiting(wire);
    }

    fn abandon_waiting(&mut self, wire: &mut Wire) {
        for (job, origin) in std::mem::take(&mut self.waiting) {
            let verdict = job.abandon();
            self.carry_out(wire, verdict, origin.generation);
        }
    }
}

/// What the service answers to a call of this number.
pub(crate) fn answer(call: usize) -> String {
    (call as u64)
        .wrapping_mul(7919)
        .wrapping_add(13)
        .to_string()
}

const DRAIN_LIMIT: Micros = 3_000 * MS;
