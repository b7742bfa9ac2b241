//! What waits here while the broker blocks publishers: it can still be taken back.

use std::collections::VecDeque;
use std::time::Instant;

use amiquip::ConnectionBlockedNotification;
use crossbeam_channel::{Receiver, at, never};

use crate::publisher::ROOM;
use crate::publishing::{Publication, overdue};

/// Whether the broker blocks publishers, and the messages that came meanwhile, in their order.
#[derive(Debug)]
pub(crate) struct Held {
    blocked: bool,
    publications: VecDeque<Box<Publication>>,
    /// The first of their deadlines.
    earliest: Option<Instant>,
    expiry: Receiver<Instant>,
}

impl Held {
    pub(crate) fn new() -> Self {
        Self {
            blocked: false,
            publications: VecDeque::new(),
            earliest: None,
            expiry: never(),
        }
    }

    /// Takes note of what the broker says.
    pub(crate) fn note(&mut self, notice: &ConnectionBlockedNotification) {
        self.blocked = match notice {
            ConnectionBlockedNotification::Blocked(reason) => {
                tracing::warn!(reason, "the broker blocks publishers");
                true
            }
            ConnectionBlockedNotification::Unblocked => {
                tracing::info!("the broker lets publishers go on");
                false
            }
        };
    }

    pub(crate) const fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Whether no more are to be taken: who has one more to publish waits for room himself.
    pub(crate) fn is_full(&self) -> bool {
        self.publications.len() >= ROOM
    }

    pub(crate) fn push(&mut self, publication: Box<Publication>) {
        let deadline = publication.deadline();
        self.publications.push_back(publication);
        if self.earliest.is_none_or(|earliest| deadline < earliest) {
            self.expire_at(Some(deadline));
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Box<Publication>> {
        let publication = self.publications.pop_front();
        if self.publications.is_empty() && self.earliest.is_some() {
            self.expire_at(None);
        }
        publication
    }

    /// Speaks when [`refuse_overdue`](Self::refuse_overdue) has something to do.
    pub(crate) const fn expiry(&self) -> &Receiver<Instant> {
        &self.expiry
    }

    /// Settles those whose deadline has passed: they are not sent.
    pub(crate) fn refuse_overdue(&mut self) {
        let now = Instant::now();
        let (late, kept): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.publications)
            .into_iter()
            .partition(|publication| publication.deadline() <= now);
        self.publications = kept;
        let earliest = self.publications.iter().map(|held| held.deadline()).min();
        self.expire_at(earliest);
        for publication in late {
            publication.refuse(overdue);
        }
    }

    fn expire_at(&mut self, earliest: Option<Instant>) {
        self.earliest = earliest;
        self.expiry = earliest.map_or_else(never, at);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use amqp_broker::Confirms;
    use rpc_core::{Address, Certainty, Confirm, ErrorKind, Message};

    use super::*;

    fn hold(held: &mut Held, until: Instant) -> Confirm {
        let to = Address::try_from("queue").unwrap();
        let (publication, confirm) = Publication::new(&to, Message::new("x"), until, Confirms::On);
        held.push(publication);
        confirm
    }

    #[test]
    fn each_fails_at_its_own_deadline_and_the_others_keep_their_order() {
        let mut held = Held::new();
        let now = Instant::now();
        let far = now + Duration::from_secs(60);
        let _first = hold(&mut held, far);
        let late = hold(&mut held, now + Duration::from_millis(20));
        let _second = hold(&mut held, far + Duration::from_secs(1));
        // Fires for the one in the middle.
        held.expiry().recv_timeout(Duration::from_secs(10)).unwrap();
        held.refuse_overdue();
        let error = late.wait(far).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(error.certainty(), Certainty::NotExecuted);
        assert!(held.expiry().try_recv().is_err());
        assert_eq!(held.earliest, Some(far));
        assert_eq!(held.pop().unwrap().deadline(), far);
        assert!(held.pop().unwrap().deadline() > far);
        assert!(held.pop().is_none());
        assert_eq!(held.earliest, None);
    }
}
