//! Where deliveries come in, and what is settled before it waits for its turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::cancels::Registered;
use super::dedup::{Claim, DedupKey, Digest, Entry, Identity};
use super::envelope::Envelope;
use super::job::{EXPIRED, REUSED};
use super::shared::Shared;
use super::timing::Timing;
use super::{
    AfterForward, Forward, Guarantee, Job, Part, Policy, Request, Settlement, Stats, Turn, Verdict,
};
use crate::mutants::{Mutant, is};
use crate::{
    Address, Cancellation, Delivery, Expiration, HeaderValue, Message, Reason, ShortString, wire,
};

/// Takes deliveries in, for one server over all its connections.
#[derive(Debug)]
pub struct Acceptor {
    shared: Arc<Shared>,
}

/// Which of a server's queues a consumer receives from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a driver consumes both")]
pub enum Lane {
    /// Requests that may have ended a worker's process, to be taken one at a time.
    Quarantine,
    /// All others.
    Work,
}

/// Where the deliveries of one consumer come in. Jobs that came by it and have not begun are handed
/// back once it is [closed](Self::close), or dropped: nobody could be answered any more.
#[derive(Debug)]
pub struct Intake {
    shared: Arc<Shared>,
    lane: Lane,
    orphaned: Arc<AtomicBool>,
}

/// A delivery, sorted.
#[derive(Debug)]
#[must_use = "until it is carried out, nobody is answered and nothing is acknowledged"]
#[expect(clippy::exhaustive_enums, reason = "a driver must handle all of them")]
pub enum Accepted {
    /// A request to pass on to the quarantine queue.
    Forward(Box<Forward>),
    /// A request to run.
    Job(Job),
    /// A request that runs already, and is answered together with it.
    Joined,
    /// Something to settle without running anything.
    Settlement(Settlement),
}

impl Acceptor {
    /// An acceptor under this policy.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            shared: Shared::new(policy),
        }
    }

    /// Tells how many handlers run at once: a suspect that has waited for its turn long enough is one
    /// of them.
    #[must_use]
    pub fn with_concurrency(self, handlers: usize) -> Self {
        self.shared.isolation.limit(handlers);
        self
    }

    pub(super) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Opens an intake for a consumer.
    #[must_use]
    pub fn intake(&self, lane: Lane) -> Intake {
        Intake {
            shared: Arc::clone(&self.shared),
            lane,
            orphaned: Arc::default(),
        }
    }

    /// The queue where callers may cancel requests now, if there is one: an inbox of this server.
    pub fn set_control(&self, inbox: Option<ShortString>) {
        *self.shared.control() = inbox;
    }

    /// A message has come to the inbox of [`set_control`](Self::set_control). Tells whether it has
    /// cancelled a request; any other is none of ours, or too late.
    pub fn handle_cancel(&self, message: &Message) -> bool {
        message.kind.as_ref() == Some(&wire::CANCEL_TYPE)
            && message
                .correlation_id
                .as_ref()
                .is_some_and(|id| Registered::cancel(&self.shared, id))
    }

    /// Lets no further request begin: those that have not are handed back when their turn comes.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
        self.shared.isolation.drain();
    }

    /// The turn of what was just accepted, where it must wait for one: not that of ordinary work,
    /// which [begins](Self::work) later. To be kept until the delivery is settled.
    #[must_use]
    pub fn arrive(&self, accepted: &Accepted) -> Option<Turn> {
        match accepted {
            Accepted::Forward(_) => self.turn(Part::Forward),
            Accepted::Job(job) if job.lane == Lane::Quarantine => self.turn(Part::Suspect),
            Accepted::Job(_) | Accepted::Joined | Accepted::Settlement(_) => None,
        }
    }

    /// The turn of ordinary work that is about to begin, to be kept until its handler has ended. None
    /// is needed where there is no quarantine.
    #[must_use]
    pub fn work(&self) -> Option<Turn> {
        self.turn(Part::Work)
    }

    fn turn(&self, part: Part) -> Option<Turn> {
        let isolates = self.isolates();
        isolates.then(|| self.shared.isolation.arrive(part))
    }

    /// Whether there is a quarantine, and something to wait for.
    #[must_use]
    pub fn isolates(&self) -> bool {
        self.shared.policy.quarantine.is_some()
    }

    /// Whether no further request begins.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire)
    }

    /// A handler has not come back by its deadline and cannot be stopped: gives it up, so that
    /// another one may run in its place. `None` when too many are given up already; then its place
    /// is taken until it comes back.
    #[must_use]
    pub fn give_up(&self) -> Option<GivenUp> {
        self.shared.counters.stuck.add();
        let limit = self.shared.policy.max_stuck;
        self.shared
            .stuck
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |stuck| {
                (stuck < limit).then_some(stuck + 1)
            })
            .ok()
            .map(|_| GivenUp(Arc::clone(&self.shared)))
    }

    /// Handlers that were given up, and have not come back yet.
    #[must_use]
    pub fn stuck(&self) -> usize {
        self.shared.stuck.load(Ordering::Acquire)
    }

    /// What became of all deliveries so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.counters.read()
    }
}

/// A handler that was given up, to be dropped when it comes back.
#[derive(Debug)]
#[must_use = "it counts as stuck until this is dropped"]
pub struct GivenUp(Arc<Shared>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.stuck.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Intake {
    /// Sorts a delivery: a request that can run, one to pass on, or something to settle at once.
    /// `unix_ms` is the time of day, which is compared with the caller's and trusted no further.
    ///
    /// The framework's own messages are dropped, wherever they come from, and so is a request whose
    /// answer would come back to this server: either would have it talk to itself, for ever. A body
    /// over the limit is answered without being looked at.
    pub fn accept(&self, delivery: Delivery, now: Instant, unix_ms: u64) -> Accepted {
        let shared = &self.shared;
        let Policy {
            quarantine,
            max_request,
            max_hops,
            guarantee,
            ..
        } = &shared.policy;
        let Delivery {
            message,
            received_at,
            redelivered,
            token,
        } = delivery;
        shared.counters.received.add();
        let ours = message.kind.as_ref().is_some_and(wire::is_reserved);
        let to_us = message.reply_to.as_ref();
        if ours || to_us.is_some_and(|queue| shared.consumes(queue)) {
            shared.counters.discarded.add();
            return Accepted::Settlement(Settlement::Settle(Verdict::ack(token)));
        }
        let quarantined = self.lane == Lane::Quarantine;
        // What is in quarantine was delivered before, elsewhere.
        let before = redelivered || quarantined;
        let timing = Timing::of(&message, received_at, now, unix_ms, before, shared);
        if timing.skewed {
            shared.counters.skewed.add();
        }
        let struck = before.then(|| shared.strikes.name(&message)).flatten();
        // Before it is answered in any way: what ends the connection is the answer.
        if struck.is_some_and(|name| shared.strikes.is_out(name)) {
            shared.counters.undeliverable.add();
            return Accepted::Settlement(Settlement::Settle(Verdict::give_up(token)));
        }
        let mut envelope = Envelope {
            shared: Arc::clone(shared),
            deadline: timing.deadline,
            gone_at: timing.gone_at,
            hinted: timing.hinted,
            redelivered: before,
            struck,
            reply_to: message.reply_to.clone(),
            // What the caller gave to find its call by; a peer may use either.
            correlation_id: message
                .correlation_id
                .clone()
                .or_else(|| message.message_id.clone()),
            token,
            discard: false,
        };
        let identity = identity(shared, &message);
        if let Some(identity) = &identity {
            match Claim::enter(shared, identity, envelope, now, false).0 {
                Entry::New(new) => envelope = new,
                Entry::Joined => return Accepted::Joined,
                Entry::Done(envelope, kept) => {
                    return Accepted::Settlement(envelope.replay(now, kept));
                }
                Entry::Reused(envelope) => {
                    return Accepted::Settlement(envelope.refuse(now, Reason::KeyReused, REUSED));
                }
            }
        }
        let refuse = |envelope: Envelope, reason, said: String| {
            Accepted::Settlement(envelope.refuse(now, reason, said))
        };
        let len = message.body.len();
        if len > *max_request {
            let said = format!("a request of {len} bytes, and the limit is {max_request}");
            return refuse(envelope, Reason::MessageTooLarge, said);
        }
        let hops = number(&message, wire::HOPS, 0);
        if hops > *max_hops && !is(Mutant::HopLimitIgnored) {
            let said = format!("it has come through {hops} services, and the limit is {max_hops}");
            return refuse(envelope, Reason::HopLimit, said);
        }
        if let Some(quarantine) = quarantine.as_ref().filter(|_| quarantined) {
            let count = deliveries(&message, redelivered);
            let guilty = count.is_none_or(|count| count >= quarantine.limit);
            if guilty && !is(Mutant::PoisonNeverGivenUp) {
                envelope.discard = true;
                let said = "each worker that took the request has ended with it";
                return refuse(envelope, Reason::Poison, said.into());
            }
        }
        let twice = envelope.redelivered && !is(Mutant::AtMostOnceRunsAgain);
        if twice && *guarantee == Guarantee::AtMostOnce {
            let said = "it was delivered before, and may have run then";
            return refuse(envelope, Reason::Redelivered, said.into());
        }
        let suspect = quarantine
            .as_ref()
            .filter(|_| envelope.redelivered && !quarantined && !is(Mutant::SuspectsRunAmongOthers))
            .map(|quarantine| quarantine.queue.clone());
        let forward = suspect.map(|queue| (queue, message.clone()));
        let request = Request {
            attempt: number(&message, wire::ATTEMPT, 1).max(1),
            body: message.body,
            cancellation: Cancellation::new(),
            content_type: message.content_type,
            deadline: timing.deadline,
            hops,
            message_id: message.message_id,
            method: message.kind,
            redelivered: envelope.redelivered,
            headers: message.headers,
        };
        let job = Job {
            notices: request.headers.get(wire::NOTICES).is_some_and(is_set),
            request,
            envelope,
            identity,
            lane: self.lane,
            orphaned: Arc::clone(&self.orphaned),
            since: timing.since,
            timeout: timing.timeout,
        };
        match forward {
            Some((queue, message)) if !shared.draining.load(Ordering::Acquire) => {
                forward_to(queue, message, job, now)
            }
            _ => Accepted::Job(job),
        }
    }

    /// The consumer has ended with its connection: what came by it and has not begun does not begin.
    pub fn close(&self) {
        self.orphaned.store(true, Ordering::Release);
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.close();
    }
}

/// Passes a request on to quarantine, with all that it came with and the time that is left.
fn forward_to(queue: ShortString, mut message: Message, job: Job, now: Instant) -> Accepted {
    let left = job.request.deadline.saturating_duration_since(now);
    if left.is_zero() {
        return Accepted::Settlement(job.envelope.refuse(now, Reason::Expired, EXPIRED));
    }
    // One that waits for ever may go on doing so.
    if message.expiration.is_some() || message.headers.get(wire::TIMEOUT_MS).is_some() {
        message.expiration = Some(Expiration::after(left));
    }
    // What another queue counted is not to be taken for the count of that one.
    message.headers.remove(wire::DELIVERY_COUNT);
    Accepted::Forward(Box::new(Forward {
        to: Address::queue(queue),
        message,
        then: AfterForward(Box::new(job)),
    }))
}

/// What makes a request the same as another, if answers are kept and it says.
fn identity(shared: &Shared, message: &Message) -> Option<Identity> {
    shared.policy.dedup.as_ref()?;
    if message.body.len() > shared.policy.max_request {
        // It is refused, and not looked at.
        return None;
    }
    let message_id = message.message_id.clone().filter(|id| !id.is_empty())?;
    let method = message.kind.clone();
    if is(Mutant::DedupByMethod) {
        return Some(Identity {
            key: DedupKey {
                method,
                message_id: ShortString::default(),
            },
            request: Digest::default(),
        });
    }
    Some(Identity {
        key: DedupKey { method, message_id },
        request: Digest::of(message),
    })
}

/// How often a request was delivered before from the queue it comes from; `None` when that queue
/// does not count.
fn deliveries(message: &Message, redelivered: bool) -> Option<u32> {
    match message.headers.get(wire::DELIVERY_COUNT) {
        Some(count) => u32::try_from(count.as_int()?).ok(),
        None => (!redelivered).then_some(0),
    }
}

/// A small number in a header; what cannot be read counts as `absent`, what is too large as the
/// largest.
fn number(message: &Message, name: &str, absent: u32) -> u32 {
    let value = message.headers.get(name).and_then(HeaderValue::as_int);
    value.map_or(absent, |number| {
        u32::try_from(number.max(0)).unwrap_or(u32::MAX)
    })
}

fn is_set(value: &HeaderValue) -> bool {
    matches!(value, HeaderValue::Flag(true)) || value.as_int().is_some_and(|number| number != 0)
}
