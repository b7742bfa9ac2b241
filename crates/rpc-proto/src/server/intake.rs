//! Where deliveries come in, and what is settled before it waits for its turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::dedup::{Claim, DedupKey, Digest, Entry, Identity};
use super::envelope::Envelope;
use super::job::{EXPIRED, REUSED};
use super::shared::Shared;
use super::timing::Timing;
use super::{
    Accepted, AfterForward, Forward, Guarantee, Job, Lane, Policy, Request, Settlement, Verdict,
};
use crate::mutants::{Mutant, is};
use crate::{
    Address, Cancellation, Delivery, Expiration, HeaderValue, Message, Reason, ShortString, wire,
};

/// Where the deliveries of one consumer come in. Jobs that came by it and have not begun are handed
/// back once it is [closed](Self::close), or dropped: nobody could be answered any more.
#[derive(Debug)]
pub struct Intake {
    shared: Arc<Shared>,
    lane: Lane,
    orphaned: Arc<AtomicBool>,
}

impl Intake {
    pub(super) fn new(shared: &Arc<Shared>, lane: Lane) -> Self {
        Self {
            shared: Arc::clone(shared),
            lane,
            orphaned: Arc::default(),
        }
    }

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
        let before = redelivered || quarantined && !is(Mutant::QuarantineIsFirstDelivery);
        let timing = Timing::of(&message, received_at, now, unix_ms, before, shared);
        if timing.skewed {
            shared.counters.skewed.add();
        }
        let suspected = quarantine.as_ref().filter(|_| quarantined);
        let guilty = suspected.is_some_and(|lane| is_guilty(&message, redelivered, lane.limit));
        let struck = before.then(|| shared.strikes.name(&message)).flatten();
        // Before it is answered in any way: what ends the connection is the answer.
        if struck.is_some_and(|name| shared.strikes.is_out(name)) {
            shared.counters.undeliverable.add();
            // That it is poison cannot be told, and is not forgotten.
            let verdict = if guilty {
                Verdict::discard(token)
            } else {
                Verdict::give_up(token)
            };
            return Accepted::Settlement(Settlement::Settle(verdict));
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
        if guilty {
            envelope.discard = true;
            let said = "each worker that took the request has ended with it";
            return refuse(envelope, Reason::Poison, said.into());
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
        let part = if is(Mutant::ForwardHalvesLife) { 2 } else { 1 };
        message.expiration = Some(Expiration::after(left / part));
    }
    // What another queue counted is not to be taken for the count of that one.
    if !is(Mutant::CountIsCarriedAlong) {
        message.headers.remove(wire::DELIVERY_COUNT);
    }
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

/// Whether a request in quarantine has been delivered in vain as often as it may be.
fn is_guilty(message: &Message, redelivered: bool, limit: u32) -> bool {
    let count = deliveries(message, redelivered);
    let soon = u32::from(is(Mutant::PoisonTooSoon));
    count.is_none_or(|count| count + soon >= limit) && !is(Mutant::PoisonNeverGivenUp)
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
