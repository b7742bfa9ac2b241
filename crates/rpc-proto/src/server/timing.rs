//! How long a request has, and how long it has waited, with nobody's clock trusted too far.
//!
//! The clock of this process counts from the moment the request came off the wire. How long it waited
//! in its queue before that, only the caller's clock can tell: its deadline is a hint, taken when the
//! two clocks do not contradict each other too much.

use std::time::{Duration, Instant};

use super::shared::Shared;
use crate::mutants::{Mutant, is};
use crate::{Expiration, HeaderValue, Message, deadline_after, wire};

/// When a request is due, and since when it has waited.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    pub(super) deadline: Instant,
    /// When its queue drops it by itself, so that nobody else can run it either; where it has no
    /// expiration, never.
    pub(super) gone_at: Option<Instant>,
    /// When the caller began to wait, as far as it is known.
    pub(super) since: Instant,
    /// The whole time that the caller gave it.
    pub(super) timeout: Option<Duration>,
    /// The caller's clock was believed, and says since when it has waited: another worker will know
    /// that, too.
    pub(super) hinted: bool,
    /// The caller's clock says what cannot be.
    pub(super) skewed: bool,
}

impl Timing {
    pub(super) fn of(
        message: &Message,
        received_at: Instant,
        now: Instant,
        unix_ms: u64,
        redelivered: bool,
        shared: &Shared,
    ) -> Self {
        let policy = &shared.policy;
        let number = |name| message.headers.get(name).and_then(HeaderValue::as_int);
        let header = number(wire::TIMEOUT_MS)
            .and_then(|millis| u64::try_from(millis).ok())
            .map(Duration::from_millis);
        let expiration = message.expiration.map(Expiration::as_duration);
        let allowed = expiration.or(header).unwrap_or(policy.max_execution);
        let timeout = header.or(expiration);
        let deadline = deadline_after(received_at, allowed.min(policy.max_execution));
        let mut this = Self {
            deadline,
            gone_at: expiration.map(|left| deadline_after(received_at, left)),
            since: received_at,
            timeout,
            hinted: false,
            skewed: false,
        };
        if let Some(hint) = number(wire::DEADLINE_MS).filter(|_| !policy.max_skew.is_zero()) {
            this.take_hint(hint, (now, unix_ms), redelivered, shared);
        }
        this
    }

    /// Whether its queue should have dropped it. One without an expiration may have waited there.
    const fn is_overdue(&self, past: Duration) -> bool {
        !past.is_zero() && self.gone_at.is_some()
    }

    /// Brings the deadline forward to what the caller's clock says, unless that is beyond belief.
    fn take_hint(
        &mut self,
        hint: i64,
        (now, unix_ms): (Instant, u64),
        redelivered: bool,
        shared: &Shared,
    ) {
        let unix_ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
        let left = hint.saturating_sub(unix_ms);
        let past = Duration::from_millis(left.min(0).unsigned_abs());
        let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
        // More time left than there ever was, or a request that its queue should have dropped: by so
        // much at least the two clocks differ, or the request was held up where no clock ran.
        let skew = past.max(
            self.timeout
                .map_or(Duration::ZERO, |whole| left.saturating_sub(whole)),
        );
        // What comes again may have been shed by this clock, and is to be shed by it again.
        let overdue = self.is_overdue(past) && !redelivered;
        self.skewed = skew > shared.policy.max_skew || overdue && shared.doubt.overdue(now);
        if self.skewed && !is(Mutant::HintIsAlwaysBelieved) {
            return;
        }
        if past.is_zero() {
            shared.doubt.in_time();
        }
        let hinted = deadline_after(now, left);
        self.deadline = if is(Mutant::HintExtends) {
            hinted
        } else {
            self.deadline.min(hinted)
        };
        let Some(whole) = self.timeout else {
            return;
        };
        let waited = (whole + past).saturating_sub(left);
        // Where the clock does not reach back that far, it is not known.
        if let Some(since) = now.checked_sub(waited) {
            // Where the caller's clock gives it more time than there was, or says that it has waited
            // for less than it has been here, that clock is ahead, and tells nobody for how long.
            self.hinted = left <= whole + CLOCK_READING && since <= self.since + CLOCK_READING;
            self.since = self.since.min(since);
        }
    }
}

/// How far off the times of day are in which clocks are compared: they count milliseconds.
const CLOCK_READING: Duration = Duration::from_millis(2);
