//! What becomes of a request on its way, as the broker and an onlooker at the worker report it, and
//! what can be seen to be wrong at once.

use rpc_proto::{HeaderValue, Message, Reason, ShortString, wire as form};

use super::{Attempt, Ledger, Refusal};
use crate::rule::Rule;

impl Ledger {
    fn attempt_of(&mut self, message: &Message) -> Option<&mut Attempt> {
        self.open(message.correlation_id.as_ref())
    }

    fn open(&mut self, correlation_id: Option<&ShortString>) -> Option<&mut Attempt> {
        let (call, attempt) = self.find(correlation_id)?;
        self.calls[call].attempts.get_mut(attempt)
    }

    /// The broker says that it answers for what is in a queue that outlives it.
    pub(crate) fn confirmed(&mut self, message: &Message) {
        if let Some(attempt) = self.attempt_of(message) {
            attempt.confirmed = true;
        }
    }

    /// A worker gets a request; with how often it was delivered from quarantine in vain, if it comes
    /// from there.
    pub(crate) fn delivered(
        &mut self,
        message: &Message,
        (redelivered, forgotten): (bool, bool),
        strikes: Option<u32>,
    ) {
        let again = redelivered || forgotten;
        self.counts.redeliveries += u64::from(again);
        let now = self.now;
        if let Some(attempt) = self.attempt_of(message) {
            attempt.redeliveries += usize::from(again);
            if forgotten && !redelivered {
                attempt.forgotten += 1;
                attempt.forgotten_at.get_or_insert(now);
            }
            attempt.strikes = attempt.strikes.max(strikes.unwrap_or(0));
        }
    }

    /// A reply was put into an inbox, or nobody was there to take it.
    pub(crate) fn answered(&mut self, message: &Message) {
        if message.kind.as_ref() == Some(&form::REPLY_TYPE) {
            let id = message.correlation_id.clone();
            self.answers(id.as_ref(), is_poison(message));
        }
    }

    /// A reply will never reach its caller, and the worker knows it.
    pub(crate) fn unanswerable(&mut self, correlation_id: Option<&ShortString>, poison: bool) {
        self.answers(correlation_id, poison);
    }

    fn answers(&mut self, correlation_id: Option<&ShortString>, poison: bool) {
        let limit = self.limit;
        let Some(attempt) = self.open(correlation_id) else {
            return;
        };
        attempt.answered = true;
        if !poison {
            attempt.plain += 1;
            return;
        }
        attempt.condemned += 1;
        let strikes = attempt.strikes;
        if limit.is_none_or(|limit| strikes < limit) {
            let call = self.find(correlation_id).map(|(call, _)| call);
            let detail = format!("called poison after {strikes} deliveries in vain of {limit:?}");
            self.breach(Rule::Poison, call, detail);
        }
    }

    /// A worker gives a request a slot.
    pub(crate) fn begins(&mut self, correlation_id: Option<&ShortString>) {
        if let Some(attempt) = self.open(correlation_id) {
            attempt.begun = true;
        }
    }

    /// A worker answers in place of the handler.
    pub(crate) fn refused(&mut self, (call, attempt): (usize, usize), worker: usize, reason: &str) {
        let at = self.now;
        self.calls[call].attempts[attempt].refusals.push(Refusal {
            at,
            worker,
            reason: reason.to_owned(),
        });
    }

    /// A worker hands a request on to quarantine.
    pub(crate) fn passes_on(&mut self, correlation_id: Option<&ShortString>, worker: usize) {
        if let Some(attempt) = self.open(correlation_id) {
            attempt.forwarders.push(worker);
        }
    }

    /// A request is in the quarantine queue, whether or not the broker will say so.
    pub(crate) fn quarantined(&mut self, message: &Message, confirmed: bool) {
        if let Some(attempt) = self.attempt_of(message) {
            attempt.forwarded += 1;
            attempt.disowned += usize::from(!confirmed);
        }
    }

    /// The quarantine queue is full: the request runs where it is.
    pub(crate) fn turned_away(&mut self, message: &Message) {
        if let Some(attempt) = self.attempt_of(message) {
            attempt.turned_away += 1;
        }
    }

    /// A handler was stopped, because somebody said that nobody awaits its answer.
    pub(crate) fn cancelled(&mut self, correlation_id: Option<&ShortString>) {
        let Some((call, place)) = self.find(correlation_id) else {
            return;
        };
        let record = &mut self.calls[call];
        let attempt = &mut record.attempts[place];
        attempt.answered = true;
        if record.ended.is_none() && !record.orphaned && attempt.ended.is_none() {
            self.breach(Rule::Cancelled, Some(call), "stopped, and its caller waits");
        }
    }

    /// A worker has acknowledged a request, from the queue of the service or from quarantine.
    pub(crate) fn acknowledged(&mut self, message: &Message, in_quarantine: bool) {
        let nobody = message.reply_to.is_none() || self.at_most_once;
        let Some((call, attempt)) = self.find(message.correlation_id.as_ref()) else {
            return;
        };
        let attempt = &self.calls[call].attempts[attempt];
        let passed_on = attempt.forwarded > 0 && !in_quarantine;
        if !nobody && !attempt.answered && !passed_on {
            let detail = "acknowledged and not answered";
            self.breach(Rule::AnswerBeforeAck, Some(call), detail);
        }
    }

    /// A worker has rejected a request for good.
    pub(crate) fn discarded(&mut self, message: &Message) {
        // A stray one has nobody to be told.
        let Some((call, attempt)) = self.find(message.correlation_id.as_ref()) else {
            return;
        };
        let attempt = &self.calls[call].attempts[attempt];
        let before = attempt.gone.iter().filter(|(_, why)| *why == REJECTED);
        if before.count() >= attempt.condemned {
            let detail = "rejected for good, and nobody was told that it is poison";
            self.breach(Rule::DeadLetters, Some(call), detail);
        }
    }

    /// The broker takes a request out of its queue, without anybody having asked for that.
    pub(crate) fn gone(&mut self, message: &Message, why: &'static str) {
        let now = self.now;
        if let Some(attempt) = self.attempt_of(message) {
            attempt.gone.push((now, why));
        }
    }

    /// And keeps it among the dead letters.
    pub(crate) fn dead_lettered(&mut self, message: &Message, why: &'static str) {
        if let Some(attempt) = self.attempt_of(message) {
            attempt.dead.push(why);
            self.counts.dead_letters += 1;
        }
    }

    pub(crate) fn unknown_tag(&mut self, consumer: u64, tag: u64) {
        let detail = format!("delivery {tag} of consumer {consumer} is not open");
        self.breach(Rule::TokenOnce, None, detail);
    }
}

/// Whether a reply says that its request is poison.
pub(crate) fn is_poison(reply: &Message) -> bool {
    let reason = reply.headers.get(form::REASON);
    reason.and_then(HeaderValue::as_text) == Some(Reason::Poison.as_str())
}

/// Why a dead letter is one: a worker wanted it to be, its time was over, or it was delivered in vain
/// too often.
pub(crate) const REJECTED: &str = "rejected";
pub(crate) const EXPIRED: &str = "expired";
pub(crate) const DELIVERY_LIMIT: &str = "delivery_limit";
