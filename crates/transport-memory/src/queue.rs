//! One queue: what is ready in it, in which order, and whose turn it is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use rpc_core::{ConsumerId, Message, QueueKind, ShortString};

use crate::effects::Few;

/// A queue of the broker.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) name: ShortString,
    pub(crate) ownership: Ownership,
    /// How many consumers it has, whether or not they have credit.
    pub(crate) consumers: usize,
    /// How many of its messages are with consumers and not settled.
    pub(crate) unsettled: usize,
    /// By position, the lowest first.
    ready: VecDeque<Entry>,
    /// The consumers that have credit, in the order of their turns. Either this or `ready` is
    /// empty whenever the broker is at rest, but for messages that expired since.
    idle: VecDeque<ConsumerId>,
    next_position: u64,
}

/// Who may use a queue, and when it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// Everybody.
    Shared(QueueKind),
    /// One consumer, which it goes with.
    Private,
    /// As private, and gone, it takes messages all the same.
    Direct,
}

/// A message in a queue, or on its way from there.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) message: Arc<Message>,
    pub(crate) redelivered: bool,
    expires_at: Option<Instant>,
    /// Where in its queue it was published to, and comes back to.
    position: u64,
}

impl Queue {
    pub(crate) const fn new(name: ShortString, ownership: Ownership) -> Self {
        Self {
            name,
            ownership,
            consumers: 0,
            unsettled: 0,
            ready: VecDeque::new(),
            idle: VecDeque::new(),
            next_position: 0,
        }
    }

    /// Whether nothing of it is to stay, now that a consumer has gone.
    pub(crate) const fn is_abandoned(&self) -> bool {
        self.consumers == 0
            && matches!(
                self.ownership,
                Ownership::Shared(QueueKind::Transient) | Ownership::Private | Ownership::Direct
            )
    }

    pub(crate) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// Takes in a new message, at the end.
    pub(crate) fn push(&mut self, message: Arc<Message>, now: Instant) {
        // A time too far to be written down is as good as none.
        let expires_at = message
            .expiration
            .and_then(|expiration| now.checked_add(expiration.as_duration()));
        self.ready.push_back(Entry {
            message,
            redelivered: false,
            expires_at,
            position: self.next_position,
        });
        self.next_position += 1;
    }

    /// Takes back what was delivered, to where it was before.
    pub(crate) fn take_back(&mut self, mut entry: Entry) {
        entry.redelivered = true;
        let place = self
            .ready
            .partition_point(|other| other.position < entry.position);
        self.ready.insert(place, entry);
        self.unsettled -= 1;
    }

    /// The next message to deliver.
    pub(crate) fn pop(&mut self, now: Instant, dropped: &mut Few<Arc<Message>>) -> Option<Entry> {
        self.drop_expired(now, dropped);
        self.ready.pop_front()
    }

    /// Drops what has expired, at the head only: behind a message that lives on, it stays.
    pub(crate) fn drop_expired(&mut self, now: Instant, dropped: &mut Few<Arc<Message>>) {
        while let Some(expired) = self
            .ready
            .pop_front_if(|entry| entry.expires_at.is_some_and(|end| now > end))
        {
            dropped.push(expired.message);
        }
    }

    /// Everything that is ready, when the queue is deleted.
    pub(crate) fn into_messages(self) -> impl Iterator<Item = Arc<Message>> {
        self.ready.into_iter().map(|entry| entry.message)
    }

    /// Whose turn it is.
    pub(crate) fn turn(&self) -> Option<ConsumerId> {
        self.idle.front().copied()
    }

    /// Ends the turn of the consumer at the front, which stays in the round if it has `credit`.
    pub(crate) fn end_turn(&mut self, credit: Credit) {
        let id = self.idle.pop_front();
        if credit == Credit::Left {
            self.idle.extend(id);
        }
    }

    /// Lets a consumer in that has credit again, or from now on.
    pub(crate) fn join(&mut self, id: ConsumerId) {
        self.idle.push_back(id);
    }

    /// Takes a consumer out of the round for good.
    pub(crate) fn leave(&mut self, id: ConsumerId) {
        self.idle.retain(|other| *other != id);
        self.consumers -= 1;
    }
}

/// Whether a consumer may be given one more message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Credit {
    Left,
    Spent,
}
