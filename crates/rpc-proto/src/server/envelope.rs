//! What is needed to answer a request and to settle it, and how that is done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dedup::Kept;
use super::settlement::{AfterReply, Settlement, Verdict};
use super::shared::Shared;
use super::strikes::Struck;
use super::{Answer, Response};
use crate::mutants::{Mutant, is};
use crate::{AckToken, Address, Expiration, Message, Pushback, Reason, ShortString, Status, wire};

#[derive(Debug)]
pub(super) struct Envelope {
    pub(super) shared: Arc<Shared>,
    pub(super) deadline: Instant,
    /// The deadline by the clock of this process alone.
    pub(super) gone_at: Option<Instant>,
    /// Whether the caller's clock was believed.
    pub(super) hinted: bool,
    pub(super) redelivered: bool,
    /// What it is remembered by when its reply ends with the connection, if it was delivered before.
    pub(super) struck: Option<Struck>,
    pub(super) reply_to: Option<ShortString>,
    pub(super) correlation_id: Option<ShortString>,
    pub(super) token: Option<AckToken>,
    /// Dead-letter it in the end.
    pub(super) discard: bool,
}

impl Envelope {
    /// Answers a request that does not run.
    pub(super) fn refuse(
        mut self,
        now: Instant,
        reason: Reason,
        said: impl Into<String>,
    ) -> Settlement {
        let counters = &self.shared.counters;
        counters.refused.add();
        match reason {
            Reason::Expired => counters.expired.add(),
            Reason::Poison => counters.poisoned.add(),
            _ => {}
        }
        let status = Status::framework(reason, said);
        if is(Mutant::RefusedIsNotSettled) {
            self.token = None;
        }
        self.answer(now, Err(status), false)
    }

    /// Refuses a request because there are too many.
    pub(super) fn shed(self, now: Instant, pushback: Pushback) -> Settlement {
        self.shared.counters.refused.add();
        self.shared.counters.shed.add();
        let said = "overloaded: requests wait for too long";
        let status = Status::framework(Reason::Shed, said).with_pushback(pushback);
        self.answer(now, Err(status), false)
    }

    /// Answers with what was answered before.
    pub(super) fn replay(self, now: Instant, kept: Kept) -> Settlement {
        let Kept {
            body,
            content_type,
            headers,
            ..
        } = kept;
        let message = Message {
            body,
            content_type,
            headers,
            ..Message::default()
        };
        self.send(now, message, false)
    }

    /// Answers; `ran` where it is the answer to a request that ran, and was not counted before.
    pub(super) fn answer(self, now: Instant, answer: Answer, ran: bool) -> Settlement {
        let open = self.redelivered || self.may_run_elsewhere(now, &answer);
        let message = encode(answer, open);
        self.send(now, message, ran)
    }

    /// Whether another worker may run what this one refuses: the acknowledgement may be lost with its
    /// connection, after the answer has gone out. "Not executed" can be said only where that one
    /// would refuse it too.
    fn may_run_elsewhere(&self, now: Instant, answer: &Answer) -> bool {
        match answer.as_ref().err().and_then(Status::reason) {
            // By the caller's clock, which another worker's may contradict.
            Some(Reason::Expired) if is(Mutant::ExpiredByHintIsNotExecuted) => false,
            Some(Reason::Expired) => self.gone_at.is_none_or(|gone_at| now < gone_at),
            // How long it has waited is what another worker goes by: see `Job::begin`.
            Some(Reason::Shed) => !self.hinted,
            _ => false,
        }
    }

    fn send(self, now: Instant, mut message: Message, ran: bool) -> Settlement {
        let Self {
            shared,
            deadline,
            redelivered,
            struck,
            reply_to,
            correlation_id,
            token,
            discard,
            ..
        } = self;
        let Some(reply_to) = reply_to else {
            if ran {
                shared.counters.casts.add();
            }
            let settle = if discard {
                Verdict::discard
            } else {
                Verdict::ack
            };
            return Settlement::Settle(settle(token));
        };
        // Nobody may be left to read it, and whoever is should have a moment to do so.
        let left = deadline
            .saturating_duration_since(now)
            .max(SHORTEST_REPLY_LIFETIME);
        message.expiration = Some(Expiration::after(left));
        message.kind = Some(wire::REPLY_TYPE);
        message.correlation_id = correlation_id;
        Settlement::Reply {
            to: Address::queue(reply_to),
            message,
            then: AfterReply {
                shared,
                token,
                redelivered,
                struck,
                discard,
            },
        }
    }
}

/// The answer as it travels, and as it is kept.
pub(super) fn encode(answer: Answer, redelivered: bool) -> Message {
    match answer {
        Ok(Response { body, content_type }) => Message {
            body,
            content_type,
            ..Message::default()
        },
        Err(status) => {
            let open = redelivered && !is(Mutant::SecondRefusalIsNotExecuted);
            wire::encode_status(&status.of_redelivered(open))
        }
    }
}

/// How long a reply stays in its queue at least.
const SHORTEST_REPLY_LIFETIME: Duration = Duration::from_secs(10);
