//! A request from its turn to its end: begin, run, finish.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::cancels::Registered;
use super::dedup::{Claim, Digest, Entry, Identity, Kept};
use super::envelope::{Envelope, encode};
use super::{Answer, Finished, Guarantee, Lane, Request, Settlement, Verdict};
use crate::mutants::{Mutant, is};
use crate::{
    AckToken, Cancellation, Certainty, Message, Pushback, Reason, Status, TransportError,
    deadline_after,
};

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

/// A request whose handler runs.
///
/// Dropped, it cancels its handler.
#[derive(Debug)]
#[must_use = "a running job that is dropped is answered to nobody, and delivered again at the end"]
pub struct Running {
    pub(super) deadline: Instant,
    pub(super) cancellation: Cancellation,
    /// When its caller is to be told that it runs.
    pub(super) notice_at: Option<Instant>,
    /// The clock has cancelled it.
    pub(super) overdue: bool,
    pub(super) registered: Option<Registered>,
    pub(super) claim: Option<Claim>,
    /// Gone when it is finished.
    pub(super) envelope: Option<Envelope>,
}

/// How the work on a request ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Ending {
    /// The handler answered, or the service refused the request for it.
    Answered(Answer),
    /// The handler was stopped because it was cancelled: its caller gave up, or the deadline passed.
    Cancelled,
    /// The deadline passed while the work waited for a thread: it never began.
    Expired,
    /// The handler panicked.
    Panicked,
    /// The handler was given up, because it could not be stopped at the deadline.
    TimedOut,
}

impl Running {
    /// When the answer is of no use any more, and the handler is cancelled.
    #[must_use]
    pub const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What the handler looks at to see whether it works for nobody. A handler that can be stopped
    /// is to be stopped then, and the job to be finished with [`Ending::Cancelled`].
    #[must_use]
    pub const fn cancellation(&self) -> &Cancellation {
        &self.cancellation
    }

    /// The work has ended, in one way or another.
    pub fn finish(mut self, now: Instant, ending: Ending) -> Finished {
        let told = self.registered.take();
        let Some(envelope) = self.envelope.take() else {
            // It is taken out here only, and in an acknowledgement that failed.
            return Finished {
                settlement: Settlement::Settle(Verdict::Settled),
                joined: Vec::new(),
            };
        };
        let mut given_up = told.as_ref().is_some_and(Registered::is_given_up);
        let late = !given_up && (self.overdue || now >= self.deadline);
        let ending = match ending {
            // By the clock, which may have woken the handler before it has come round to here.
            Ending::Cancelled if late => Ending::TimedOut,
            // It ran, and says that it was told to stop, in whatever words: what has happened is that
            // the deadline passed. A result that comes late is still a result.
            Ending::Answered(Err(status))
                if late && status.certainty() != Certainty::NotExecuted =>
            {
                Ending::TimedOut
            }
            other => other,
        };
        // Whoever gave up is not there to be answered, whatever there is to say by now.
        given_up |= matches!(ending, Ending::Cancelled);
        // From here on it cannot be cancelled any more.
        drop(told);
        let (answer, ran) = judge(&envelope, ending);
        let mut joined = Vec::new();
        if let Some(claim) = self.claim.take() {
            // What a handler says that was told to stop is no answer to those who did not give up.
            let stopped = given_up && answer.is_err();
            let kept = (ran && !stopped).then(|| keep(&answer));
            for other in claim.end(kept, now) {
                joined.push(if stopped {
                    Settlement::Settle(Verdict::requeue(other.token))
                } else {
                    other.answer(now, answer.clone(), false)
                });
            }
        }
        let settlement = if given_up {
            envelope.shared.counters.cancelled.add();
            Settlement::Settle(Verdict::ack(envelope.token))
        } else {
            envelope.answer(now, answer, ran)
        };
        self.cancellation.cancel();
        Finished { settlement, joined }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Whatever of the handler is still there works for nobody.
        if self.envelope.is_some() {
            self.cancellation.cancel();
        }
    }
}

/// What an ending answers, and whether the handler ran. Counts it.
fn judge(envelope: &Envelope, ending: Ending) -> (Answer, bool) {
    let counters = &envelope.shared.counters;
    let framework = |reason, said: String| Status::framework(reason, said);
    let status = match ending {
        Ending::Answered(Ok(response)) => {
            let (len, limit) = (response.body.len(), envelope.shared.policy.max_reply);
            if len <= limit {
                counters.ok.add();
                return (Ok(response), true);
            }
            let said = format!("a reply of {len} bytes, and the limit is {limit}");
            framework(Reason::ReplyTooLarge, said)
        }
        // The framework says it in place of a handler that did not run.
        Ending::Answered(Err(status)) if status.certainty() == Certainty::NotExecuted => {
            counters.refused.add();
            return (Err(status), false);
        }
        Ending::Answered(Err(status)) => status,
        Ending::Cancelled => {
            let said = "the handler was stopped, because its caller gave up";
            return (Err(framework(Reason::HandlerCancelled, said.into())), false);
        }
        Ending::Expired => {
            counters.refused.add();
            counters.expired.add();
            return (Err(framework(Reason::Expired, EXPIRED.into())), false);
        }
        Ending::Panicked => {
            counters.panicked.add();
            // What the panic said stays in this process: it may speak of anything.
            framework(Reason::HandlerPanicked, "the handler panicked".into())
        }
        Ending::TimedOut => {
            let said = "the handler had not answered by the deadline";
            framework(Reason::HandlerTimedOut, said.into())
        }
    };
    counters.failed.add();
    (Err(status), true)
}

/// The answer as it is kept.
fn keep(answer: &Answer) -> Kept {
    let Message {
        body,
        content_type,
        headers,
        ..
    } = encode(answer.clone(), false);
    Kept {
        body,
        content_type,
        headers,
        // That of the claim, which keeps it.
        request: Digest::default(),
    }
}

pub(super) const REUSED: &str = "another request has the same method and message_id";

pub(super) const EXPIRED: &str = "the deadline passed before the handler could begin";
