//! A request that has its turn: whether it begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::dedup::{Claim, Entry, Identity};
use super::envelope::Envelope;
use super::running::Running;
use super::{Guarantee, Lane, Request, Settlement, Verdict};
use crate::mutants::{Mutant, is};
use crate::{AckToken, Pushback, Reason, TransportError, deadline_after};

/// A request that waits for its turn.
#[derive(Debug)]
#[must_use = "a job that is dropped is answered to nobody, and delivered again at the end"]
pub struct Job {
    pub(super) request: Request,
    pub(super) envelope: Envelope,
    /// Where it came from.
    pub(super) lane: Lane,
    /// What makes it the same as another delivery, where answers are kept.
    pub(super) identity: Option<Identity>,
    /// Set when the connection that it came by is lost.
    pub(super) orphaned: Arc<AtomicBool>,
    /// Since when its caller waits, and how long it has at all.
    pub(super) since: Instant,
    pub(super) timeout: Option<Duration>,
    /// Its caller understands notices.
    pub(super) notices: bool,
}

/// What is to be done with a request whose turn has come.
#[derive(Debug)]
#[must_use = "a job that is dropped is answered to nobody, and delivered again at the end"]
#[expect(clippy::exhaustive_enums, reason = "a driver must handle all of them")]
pub enum Begun {
    /// Acknowledge it first, tell how that went, and only then run it.
    AckFirst(AckToken, AfterAck),
    /// It runs already, for an earlier delivery, and is answered together with it.
    Joined,
    /// Run it, and finish the job with the answer.
    Run(Request, Running),
    /// It does not run.
    Settle(Settlement),
}

impl Job {
    /// When its answer is of no use any more.
    #[must_use]
    pub const fn deadline(&self) -> Instant {
        self.request.deadline
    }

    /// Its turn has come.
    ///
    /// It does not run when its deadline has passed while it waited, when it has been answered
    /// before, when there are too many, or when nothing may begin any more: then it is handed back.
    pub fn begin(mut self, now: Instant) -> Begun {
        let shared = Arc::clone(&self.envelope.shared);
        let draining = shared.draining.load(Ordering::Acquire) && !is(Mutant::DrainBegins);
        if draining || self.orphaned.load(Ordering::Acquire) {
            return Begun::Settle(self.hand_back(now));
        }
        let expired = self.is_expired(now);
        let pushback = if expired { None } else { self.is_shed(now) };
        let mut claim = None;
        if let Some(identity) = &self.identity {
            // Before anything is refused: "not executed" must not be said of what was.
            let begins = !expired && pushback.is_none();
            let (entry, claimed) = Claim::enter(&shared, identity, self.envelope, now, begins);
            match entry {
                Entry::New(envelope) => self.envelope = envelope,
                Entry::Joined => return Begun::Joined,
                Entry::Done(envelope, kept) => return Begun::Settle(envelope.replay(now, kept)),
                Entry::Reused(envelope) => {
                    return Begun::Settle(envelope.refuse(now, Reason::KeyReused, REUSED));
                }
            }
            claim = claimed;
        }
        if expired {
            let reason = if is(Mutant::ExpiredSaysTimedOut) {
                Reason::HandlerTimedOut
            } else {
                Reason::Expired
            };
            return Begun::Settle(self.envelope.refuse(now, reason, EXPIRED));
        }
        if let Some(pushback) = pushback {
            return Begun::Settle(self.envelope.shed(now, pushback));
        }
        let token = match shared.policy.guarantee {
            Guarantee::AtLeastOnce if is(Mutant::AckBeforeReply) => self.envelope.token.take(),
            Guarantee::AtMostOnce if is(Mutant::AtMostOnceAcksLate) => None,
            Guarantee::AtLeastOnce => None,
            Guarantee::AtMostOnce if is(Mutant::AcksTwice) => {
                let token = self.envelope.token.as_ref();
                token.map(|token| AckToken::new(token.consumer(), token.tag()))
            }
            Guarantee::AtMostOnce => self.envelope.token.take(),
        };
        let Self {
            request,
            envelope,
            notices,
            ..
        } = self;
        let told = notices && envelope.reply_to.is_some();
        let running = Running {
            deadline: request.deadline,
            cancellation: request.cancellation.clone(),
            notice_at: told.then(|| deadline_after(now, shared.policy.notice_after)),
            overdue: false,
            registered: None,
            claim,
            envelope: Some(envelope),
        };
        match token {
            Some(token) => Begun::AckFirst(token, AfterAck { request, running }),
            None => Begun::Run(request, running),
        }
    }

    /// Whether it is too late to begin.
    fn is_expired(&self, now: Instant) -> bool {
        let soon = if is(Mutant::TooLateTooSoon) {
            Duration::from_millis(20)
        } else {
            Duration::ZERO
        };
        self.request.deadline <= now + soon && !is(Mutant::ExpiredRuns)
    }

    /// Whether there are too many, and when it may come again.
    fn is_shed(&self, now: Instant) -> Option<Pushback> {
        let shared = &self.envelope.shared;
        let waited = now.saturating_duration_since(self.since);
        if self.envelope.redelivered {
            shared.shed_again(waited, self.timeout)
        } else {
            shared.shed(now, waited, self.timeout)
        }
    }

    /// Hands the request back without having begun it, for another worker to take.
    ///
    /// Under [`AtMostOnce`](Guarantee::AtMostOnce) no other worker would: it is answered instead that
    /// this one has not begun, and may be sent again.
    pub fn hand_back(self, now: Instant) -> Settlement {
        let Self { envelope, .. } = self;
        let shared = &envelope.shared;
        let draining = shared.draining.load(Ordering::Acquire);
        if draining && shared.policy.guarantee == Guarantee::AtMostOnce {
            let said = "the worker stops, and has not begun with the request";
            return envelope.refuse(now, Reason::Draining, said);
        }
        shared.counters.requeued.add();
        Settlement::Settle(Verdict::requeue(envelope.token))
    }
}

/// A request that runs once its acknowledgement is on its way.
#[derive(Debug)]
#[must_use = "until the outcome of the acknowledgement is known, the request does not run"]
pub struct AfterAck {
    request: Request,
    running: Running,
}

impl AfterAck {
    /// The acknowledgement was handed over, or could not be.
    ///
    /// # Errors
    ///
    /// Then the request does not run here, and nobody is answered: it may be delivered again. What
    /// is left to do is for further deliveries that joined this one.
    pub fn handle_ack(
        self,
        now: Instant,
        result: Result<(), &TransportError>,
    ) -> Result<(Request, Running), Vec<Settlement>> {
        let Self {
            request,
            mut running,
        } = self;
        if result.is_ok() && !is(Mutant::AckedAndDropped) {
            return Ok((request, running));
        }
        if let Some(envelope) = running.envelope.take() {
            envelope.shared.counters.unacknowledged.add();
        }
        let joined = running.claim.take().map(|claim| claim.end(None, now));
        let hand_back = |envelope: Envelope| {
            envelope.shared.counters.requeued.add();
            Settlement::Settle(Verdict::requeue(envelope.token))
        };
        Err(joined.into_iter().flatten().map(hand_back).collect())
    }
}

pub(super) const REUSED: &str = "another request has the same method and message_id";

pub(super) const EXPIRED: &str = "the deadline passed before the handler could begin";
