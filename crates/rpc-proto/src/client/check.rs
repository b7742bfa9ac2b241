//! The message that a client sends to itself on a new connection, to see that the whole path works.
//!
//! A broker can take a connection, an inbox and a consumer, and still deliver nothing. A client that
//! counted as connected then would lose every reply. What the check has shown is judged here;
//! drivers publish, receive, and look at the clock.

use std::time::{Duration, Instant};

use crate::wire::CHECK_TYPE;
use crate::{
    Address, CallId, ErrorKind, Expiration, Message, ShortString, TransportError, deadline_after,
};

/// A message to oneself that is on its way.
///
/// Publish it; receive from the inbox until [`is_heard`](Self::is_heard); then wait for the confirm,
/// if it [counts](Self::confirm_counts). The first of these that fails, or
/// [`overdue`](Self::overdue) when the [deadline](Self::deadline) comes first, is what
/// [`judge`](Self::judge) wants to know.
#[derive(Clone, Debug)]
pub struct Check {
    id: ShortString,
    deadline: Instant,
    confirm_counts: bool,
}

/// What a check has shown of a connection that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third")]
pub enum Checked {
    /// The whole path works.
    Heard,
    /// Nothing: the broker takes no messages from publishers now, this one among them. What is
    /// received goes on all the same, and calls wait, or fail, as they are told to.
    Postponed,
}

impl Check {
    /// How long it may take.
    pub const LIMIT: Duration = Duration::from_secs(5);

    /// A check of an inbox that is a queue, or, if it is `direct`, that has none behind it: some
    /// brokers say then of what has arrived that it has not. Returns the message to publish, too;
    /// nothing while the broker blocks publishers, which would only hold the connection up.
    #[must_use]
    pub fn begin(
        now: Instant,
        id: CallId,
        inbox: &ShortString,
        direct: bool,
        blocked: bool,
    ) -> Option<(Self, Address, Message)> {
        if blocked {
            return None;
        }
        let id = id.to_correlation_id();
        let message = Message {
            correlation_id: Some(id.clone()),
            expiration: Some(Expiration::after(Self::LIMIT)),
            kind: Some(CHECK_TYPE),
            ..Message::default()
        };
        let check = Self {
            id,
            deadline: deadline_after(now, Self::LIMIT),
            confirm_counts: !direct,
        };
        Some((check, Address::queue(inbox.clone()), message))
    }

    /// When it must have come back.
    #[must_use]
    pub const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether it is this message that has come.
    #[must_use]
    pub fn is_heard(&self, message: &Message) -> bool {
        message.kind == Some(CHECK_TYPE) && message.correlation_id.as_ref() == Some(&self.id)
    }

    /// Whether the broker's confirm belongs to it.
    #[must_use]
    pub const fn confirm_counts(&self) -> bool {
        self.confirm_counts
    }

    /// The failure of a check that has not come back by its deadline.
    #[must_use]
    pub fn overdue() -> TransportError {
        TransportError::new(ErrorKind::Timeout, "rpc", "check")
    }

    /// What it has shown; `blocked` is whether the broker blocks publishers now: it tells that only
    /// to those who publish, so it may have been unknown when this began.
    ///
    /// # Errors
    ///
    /// Why the connection is not to be used. An alarm excuses silence, and nothing else.
    pub fn judge(
        self,
        outcome: Result<(), TransportError>,
        blocked: bool,
    ) -> Result<Checked, TransportError> {
        match outcome {
            Ok(()) => Ok(Checked::Heard),
            Err(cause) => match cause.kind() {
                ErrorKind::Blocked => Ok(Checked::Postponed),
                ErrorKind::Timeout if blocked => Ok(Checked::Postponed),
                ErrorKind::Timeout => Err(TransportError::new(ErrorKind::Connect, "rpc", "check")
                    .with_detail("a message to ourselves did not come back in time")
                    .with_source(cause)),
                _ => Err(cause),
            },
        }
    }
}
