//! The clock of a request whose handler runs: when its caller is told, when it is cancelled, and
//! when it is given up.
//!
//! ```text
//!  begin ─▶ a while later: notice ─▶ deadline: cancelled ─▶ a moment later: given up
//! ```
//!
//! A driver waits for the handler until [`Running::poll_timeout`], and then asks
//! [`Running::poll`]. A handler that awaits is dropped when it is cancelled, by whomever; one that
//! cannot be stopped has a moment to look at its cancellation and come back.

use std::time::{Duration, Instant};

use super::cancels::Registered;
use super::running::Running;
use crate::{Address, Expiration, Message, deadline_after, wire};

/// What is due for a handler that still runs.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a driver must handle all of them")]
pub enum Due {
    /// Publish this, which tells the caller that its request runs here, and can be cancelled. It
    /// needs no confirm.
    Notice(Address, Box<Message>),
    /// The handler does not come back: finish the job in its place, with
    /// [`Ending::TimedOut`](super::Ending::TimedOut).
    GiveUp,
}

impl Running {
    /// How long after its deadline a handler is given up that cannot be stopped.
    pub const GRACE: Duration = Duration::from_millis(50);

    /// What is due now; nothing until [`poll_timeout`](Self::poll_timeout). To be asked again after
    /// a notice. At the deadline it cancels the handler.
    pub fn poll(&mut self, now: Instant) -> Option<Due> {
        if now >= self.deadline {
            self.notice_at = None;
            if !self.overdue {
                self.overdue = true;
                self.cancellation.cancel();
            }
            return (now >= self.poll_timeout()).then_some(Due::GiveUp);
        }
        if self.notice_at.is_some_and(|at| at <= now) {
            self.notice_at = None;
            return self
                .notice(now)
                .map(|(to, message)| Due::Notice(to, Box::new(message)));
        }
        None
    }

    /// When [`poll`](Self::poll) next has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        if self.overdue {
            return deadline_after(self.deadline, Self::GRACE);
        }
        self.notice_at
            .map_or(self.deadline, |at| at.min(self.deadline))
    }

    fn notice(&mut self, now: Instant) -> Option<(Address, Message)> {
        let envelope = self.envelope.as_ref()?;
        let shared = &envelope.shared;
        let control = shared.control().clone()?;
        let (id, to) = (envelope.correlation_id.clone()?, envelope.reply_to.clone()?);
        let key = self.claim.as_ref().map(|claim| claim.key().clone());
        // First, or it could be cancelled before it is known.
        let registered = Registered::new(shared, id.clone(), &self.cancellation, key);
        self.registered = Some(registered);
        shared.counters.noticed.add();
        let left = self.deadline.saturating_duration_since(now);
        let message = Message {
            correlation_id: Some(id),
            expiration: Some(Expiration::after(left)),
            kind: Some(wire::STARTED_TYPE),
            reply_to: Some(control),
            ..Message::default()
        };
        Some((Address::queue(to), message))
    }
}
