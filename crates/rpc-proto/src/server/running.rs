//! A request from the call of its handler to its end: what it answers, and to whom.

use std::time::Instant;

use super::cancels::Registered;
use super::dedup::{Claim, Digest, Kept};
use super::envelope::{Envelope, encode};
use super::job::EXPIRED;
use super::{Answer, Finished, Settlement, Verdict};
use crate::{Cancellation, Certainty, Message, Reason, Status};

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
