//! One queue: what is ready in it, in which order, and whose turn it is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use rpc_core::{ConsumerId, DeliveryMode, Message, QueueKind, ShortString};

use crate::broker::{DeadLetter, Death};
use crate::effects::Effects;

/// A queue of the broker.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) name: ShortString,
    pub(crate) ownership: Ownership,
    pub(crate) limits: Limits,
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

/// What a queue does besides keeping messages.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// How often a message is delivered again at most.
    pub(crate) deliveries: Option<u32>,
    /// How many messages are ready at most.
    pub(crate) length: Option<u32>,
    /// Whether the oldest goes when one comes that is over the length.
    pub(crate) keeps_newest: bool,
    /// The queue for what it gives up.
    pub(crate) dead_letters: Option<ShortString>,
}

/// A message in a queue, or on its way from there.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) message: Arc<Message>,
    /// How often it came back.
    pub(crate) returns: u32,
    expires_at: Option<Instant>,
    /// Where in its queue it was published to, and comes back to.
    position: u64,
}

impl Queue {
    pub(crate) const fn new(name: ShortString, ownership: Ownership, limits: Limits) -> Self {
        Self {
            name,
            ownership,
            limits,
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
            returns: 0,
            expires_at,
            position: self.next_position,
        });
        self.next_position += 1;
    }

    /// How many messages may be ready, where every queue holds `max`.
    pub(crate) fn capacity(&self, max: usize) -> usize {
        let own = self
            .limits
            .length
            .map(|own| usize::try_from(own).unwrap_or(max));
        own.map_or(max, |own| own.min(max))
    }

    /// Whether one more message may be ready, where every queue holds `max`. Where the newest are kept
    /// the oldest goes for it.
    pub(crate) fn make_room<W>(&mut self, max: usize, effects: &mut Effects<W>) -> bool {
        let capacity = self.capacity(max);
        while self.limits.keeps_newest && capacity > 0 && self.ready.len() >= capacity {
            let oldest = self.ready.pop_front();
            effects.dropped.extend(oldest.map(|entry| entry.message));
        }
        self.ready.len() < capacity
    }

    /// Whether its messages say how often they were delivered before.
    pub(crate) const fn counts(&self) -> bool {
        matches!(self.ownership, Ownership::Shared(QueueKind::Quorum))
    }

    /// Takes back what was delivered, to where it was before, unless that was once too often.
    pub(crate) fn take_back<W>(&mut self, mut entry: Entry, effects: &mut Effects<W>) {
        self.unsettled -= 1;
        entry.returns = entry.returns.saturating_add(1);
        if self
            .limits
            .deliveries
            .is_some_and(|most| entry.returns > most)
        {
            self.give_up(entry.message, Death::DeliveryLimit, effects);
            return;
        }
        let place = self
            .ready
            .partition_point(|other| other.position < entry.position);
        self.ready.insert(place, entry);
    }

    /// Lets a message go, to where dead letters go.
    pub(crate) fn give_up<W>(
        &self,
        message: Arc<Message>,
        reason: Death,
        effects: &mut Effects<W>,
    ) {
        match &self.limits.dead_letters {
            Some(to) => effects.dead.push(DeadLetter {
                to: to.clone(),
                from: self.name.clone(),
                reason,
                message,
            }),
            None => effects.dropped.push(message),
        }
    }

    /// The next message to deliver.
    pub(crate) fn pop<W>(&mut self, now: Instant, effects: &mut Effects<W>) -> Option<Entry> {
        self.drop_expired(now, effects);
        self.ready.pop_front()
    }

    /// Drops what has expired, at the head only: behind a message that lives on, it stays.
    pub(crate) fn drop_expired<W>(&mut self, now: Instant, effects: &mut Effects<W>) {
        while let Some(expired) = self
            .ready
            .pop_front_if(|entry| entry.expires_at.is_some_and(|end| now > end))
        {
            self.give_up(expired.message, Death::Expired, effects);
        }
    }

    /// Everything that is ready, when the queue is deleted.
    pub(crate) fn into_messages(self) -> impl Iterator<Item = Arc<Message>> {
        self.ready.into_iter().map(|entry| entry.message)
    }

    /// Drops what does not survive a crash of the broker.
    pub(crate) fn crash<W>(&mut self, effects: &mut Effects<W>) {
        // A quorum queue writes down whatever it takes.
        if !self.counts() {
            let lost = |entry: &Entry| entry.message.delivery_mode != DeliveryMode::Persistent;
            let (gone, kept) = std::mem::take(&mut self.ready).into_iter().partition(lost);
            self.ready = kept;
            let gone: VecDeque<Entry> = gone;
            effects
                .dropped
                .extend(gone.into_iter().map(|entry| entry.message));
        }
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
