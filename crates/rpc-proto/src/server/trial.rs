//! Whether a server that was not allowed to publish is allowed to now.
//!
//! A broker lets a user consume who may not publish. Such a server would take requests, run them, lose
//! its connection over the first reply, and take them again on the next one, for ever. So once it has
//! been denied a publish, it takes none before it has seen that it may: it stays without a connection,
//! for the reason that the broker gives, and its requests stay in their queue. A server that has not
//! been denied anything is not asked for more than it needs: one that only runs casts never publishes.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Acceptor;
use super::shared::Shared;
use crate::wire::CHECK_TYPE;
use crate::{Address, ErrorKind, Message, ShortString, TransportError, deadline_after};

/// How long the broker may take to say no. Silence says nothing, and then the first reply tells.
const LIMIT: Duration = Duration::from_secs(2);

/// A queue that nobody has: names like this are the broker's own, and it gives none of them this one.
const NOBODY: ShortString = ShortString::from_static("amq.rpc-trial");

/// A message to publish on a new transport before anything is taken from it, and to tell
/// [`Acceptor::handle_trial`] how that went.
#[derive(Debug)]
pub struct Trial {
    /// A queue that nobody has, under the exchange that all replies go to.
    pub to: Address,
    /// The message.
    pub message: Message,
    /// Until when to wait for the verdict.
    pub deadline: Instant,
}

impl Acceptor {
    /// What to try on a new transport; nothing as a rule.
    #[must_use]
    pub fn trial(&self, now: Instant) -> Option<Trial> {
        let denied = self.shared().denied.load(Ordering::Acquire);
        denied.then(|| Trial {
            to: Address::queue(NOBODY),
            message: Message {
                kind: Some(CHECK_TYPE),
                ..Message::default()
            },
            deadline: deadline_after(now, LIMIT),
        })
    }

    /// How the trial went.
    ///
    /// # Errors
    ///
    /// That it still may not publish: no request is to be taken.
    pub fn handle_trial(&self, result: Result<(), TransportError>) -> Result<(), TransportError> {
        self.shared().note_publish(result.as_ref().map(|&()| ()));
        match result {
            Err(denied) if denied.kind() == ErrorKind::Denied => Err(denied),
            _ => Ok(()),
        }
    }
}

impl Shared {
    /// Notes what the fate of a message tells of the permission to publish.
    pub(super) fn note_publish(&self, result: Result<(), &TransportError>) {
        match result.map_err(TransportError::kind) {
            Err(ErrorKind::Denied) => self.denied.store(true, Ordering::Release),
            // No lock, and as a rule nothing to write, for every reply comes by here.
            Ok(()) | Err(ErrorKind::NoRoute) if self.denied.load(Ordering::Relaxed) => {
                self.denied.store(false, Ordering::Release);
            }
            _ => {}
        }
    }
}
