//! One consumer as the broker sees it: what it was sent, what it took, what it has not settled.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use rpc_core::{AckToken, ConsumerId};

use crate::broker::{ConnectionId, Parcel, QueueId, Received};
use crate::queue::{Credit, Entry};
use crate::refusal::Refusal;

/// A consumer of the broker.
#[derive(Debug)]
pub(crate) struct Subscriber<W> {
    pub(crate) connection: ConnectionId,
    pub(crate) queue: QueueId,
    /// Whether its owner has let go of it: it stays for its unsettled deliveries only.
    pub(crate) released: bool,
    flow: Flow,
    /// Sent, and not received yet.
    mailbox: VecDeque<(Entry, Instant)>,
    /// Received, by tag.
    unsettled: BTreeMap<u64, Entry>,
    next_tag: u64,
    phase: Phase,
    waiter: Option<W>,
}

/// How deliveries are settled, and what bounds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// By being received, without a bound.
    Automatic,
    /// One by one, and so many at once. Where they are counted, they say how often they came before.
    Settled { prefetch: usize, counted: bool },
}

#[derive(Debug)]
enum Phase {
    Running,
    /// Together with the cause, until it has been told.
    Ended(Option<Refusal>),
}

impl<W> Subscriber<W> {
    pub(crate) const fn new(connection: ConnectionId, queue: QueueId, flow: Flow) -> Self {
        Self {
            connection,
            queue,
            released: false,
            flow,
            mailbox: VecDeque::new(),
            unsettled: BTreeMap::new(),
            next_tag: 1,
            phase: Phase::Running,
            waiter: None,
        }
    }

    pub(crate) fn credit(&self) -> Credit {
        match (&self.phase, self.flow) {
            (Phase::Ended(_), _) => Credit::Spent,
            (Phase::Running, Flow::Automatic) => Credit::Left,
            (Phase::Running, Flow::Settled { prefetch, .. }) => {
                if self.mailbox.len() + self.unsettled.len() < prefetch {
                    Credit::Left
                } else {
                    Credit::Spent
                }
            }
        }
    }

    pub(crate) const fn flow(&self) -> Flow {
        self.flow
    }

    pub(crate) const fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }

    /// Whether neither its owner nor a token needs it any more.
    pub(crate) fn is_done(&self) -> bool {
        self.released && self.unsettled.is_empty()
    }

    pub(crate) fn mailbox_len(&self) -> usize {
        self.mailbox.len()
    }

    /// Puts a message into the mailbox. Returns whom to wake.
    #[must_use]
    pub(crate) fn send(&mut self, entry: Entry, now: Instant) -> Option<W> {
        self.mailbox.push_back((entry, now));
        self.waiter.take()
    }

    /// The next delivery or the end; `None` when there is neither yet.
    pub(crate) fn receive(&mut self, id: ConsumerId) -> Option<Received> {
        let Some((entry, received_at)) = self.mailbox.pop_front() else {
            return match &mut self.phase {
                Phase::Running => None,
                Phase::Ended(cause) => Some(Received::End(cause.take())),
            };
        };
        let returns = entry.returns;
        let (message, counted, token) = match self.flow {
            Flow::Automatic => (entry.message, false, None),
            Flow::Settled { counted, .. } => {
                let tag = self.next_tag;
                self.next_tag += 1;
                let message = entry.message.clone();
                self.unsettled.insert(tag, entry);
                (message, counted, Some(AckToken::new(id, tag)))
            }
        };
        Some(Received::Parcel(Parcel {
            message,
            received_at,
            returns,
            counted,
            token,
        }))
    }

    /// Remembers whom to wake. Returns who was to be woken before, to be dropped elsewhere.
    #[must_use]
    pub(crate) const fn wait(&mut self, waiter: W) -> Option<W> {
        self.waiter.replace(waiter)
    }

    /// Takes one delivery out of what is unsettled.
    pub(crate) fn settle(&mut self, tag: u64) -> Option<Entry> {
        self.unsettled.remove(&tag)
    }

    /// Ends it. Returns whom to wake, and what was sent and never received.
    pub(crate) fn end(
        &mut self,
        cause: Option<Refusal>,
    ) -> (Option<W>, impl DoubleEndedIterator<Item = Entry> + use<W>) {
        self.phase = Phase::Ended(cause);
        let unread = std::mem::take(&mut self.mailbox);
        (
            self.waiter.take(),
            unread.into_iter().map(|(entry, _)| entry),
        )
    }

    /// Takes everything that is unsettled.
    pub(crate) fn surrender(&mut self) -> impl DoubleEndedIterator<Item = Entry> + use<W> {
        std::mem::take(&mut self.unsettled).into_values()
    }
}
