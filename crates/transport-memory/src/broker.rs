//! The broker as a plain value: it owns no lock and no clock, and hands back whom to wake.

mod dead;
mod declaring;
mod ending;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use rpc_core::{AckToken, Address, ConsumerId, Fate, Message, ShortString};
use rustc_hash::FxHashMap;

pub(crate) use self::dead::{DeadLetter, Death};
use crate::effects::Effects;
use crate::held::{Held, Publish};
use crate::queue::{Credit, Limits, Ownership, Queue};
use crate::refusal::Refusal;
use crate::subscriber::{Flow, Subscriber};

/// Queues, consumers and connections.
///
/// `W` is whatever wakes a waiting consumer; it is kept and handed back, never used.
///
/// After each verb, [`bury`](Self::bury) puts dead letters where they belong.
#[derive(Debug)]
pub(crate) struct Broker<W> {
    max_ready: usize,
    connections: FxHashMap<ConnectionId, Connection>,
    names: FxHashMap<ShortString, QueueId>,
    queues: FxHashMap<QueueId, Queue>,
    subscribers: FxHashMap<ConsumerId, Subscriber<W>>,
    held: Held,
    stopped: bool,
    /// The last number given to a connection or a queue. None is used twice, so that a delivery of
    /// a queue that is gone cannot come back into a younger one of its name.
    last_number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConnectionId(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct QueueId(u64);

#[derive(Debug)]
struct Connection {
    ended: Option<Refusal>,
    /// Every consumer it ever had, in order: eight bytes each, so that one of long ago is told
    /// from a foreign one.
    consumers: Vec<ConsumerId>,
}

/// What a consumer finds.
#[derive(Debug)]
pub(crate) enum Received {
    Parcel(Parcel),
    End(Option<Refusal>),
}

/// A delivery whose message is still shared with the broker.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) message: Arc<Message>,
    pub(crate) received_at: Instant,
    /// How often it came back before.
    pub(crate) returns: u32,
    /// Whether it says so itself.
    pub(crate) counted: bool,
    pub(crate) token: Option<AckToken>,
}

/// How a delivery is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settle {
    Done,
    Discard,
    Requeue,
}

impl From<Fate> for Settle {
    fn from(fate: Fate) -> Self {
        match fate {
            Fate::Discard => Self::Discard,
            // Whatever else it may be one day, the message must not get lost.
            _ => Self::Requeue,
        }
    }
}

/// How the address of a direct inbox begins. What is sent to one that is gone vanishes.
pub(crate) const DIRECT_PREFIX: &str = "amq.rabbitmq.reply-to.";

impl<W> Broker<W> {
    pub(crate) fn new(max_ready: NonZeroUsize) -> Self {
        Self {
            max_ready: max_ready.get(),
            connections: FxHashMap::default(),
            names: FxHashMap::default(),
            queues: FxHashMap::default(),
            subscribers: FxHashMap::default(),
            held: Held::default(),
            stopped: false,
            last_number: 0,
        }
    }

    pub(crate) fn connect(&mut self) -> ConnectionId {
        let id = ConnectionId(self.number());
        let connection = Connection {
            ended: self.stopped.then_some(Refusal::Severed),
            consumers: Vec::new(),
        };
        self.connections.insert(id, connection);
        id
    }

    /// Whether nobody can connect.
    pub(crate) const fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// How many connections have not ended.
    pub(crate) fn open_connections(&self) -> usize {
        let open = |connection: &&Connection| connection.ended.is_none();
        self.connections.values().filter(open).count()
    }

    /// Begins to consume from a shared queue.
    pub(crate) fn consume(
        &mut self,
        on: ConnectionId,
        id: ConsumerId,
        name: &ShortString,
        prefetch: usize,
        now: Instant,
        effects: &mut Effects<W>,
    ) -> Result<(), Refusal> {
        self.check_open(on)?;
        let no_queue = || Refusal::NoQueue(name.clone());
        let queue_id = *self.names.get(name).ok_or_else(no_queue)?;
        let queue = self.queues.get_mut(&queue_id).ok_or_else(no_queue)?;
        if !matches!(queue.ownership, Ownership::Shared(_)) {
            return Err(Refusal::Locked(name.clone()));
        }
        let flow = Flow::Settled {
            prefetch,
            counted: queue.counts(),
        };
        let subscriber = Subscriber::new(on, queue_id, flow);
        Self::subscribe(&mut self.connections, queue, on, id);
        self.subscribers.insert(id, subscriber);
        Self::dispatch(queue, &mut self.subscribers, now, effects);
        Ok(())
    }

    /// Makes the inbox `name`, which nobody must know of yet, and begins to consume from it.
    pub(crate) fn open_inbox(
        &mut self,
        on: ConnectionId,
        id: ConsumerId,
        name: ShortString,
        ownership: Ownership,
    ) -> Result<(), Refusal> {
        self.check_open(on)?;
        let queue_id = self.add_queue(name, ownership, Limits::default());
        if let Some(queue) = self.queues.get_mut(&queue_id) {
            Self::subscribe(&mut self.connections, queue, on, id);
            let subscriber = Subscriber::new(on, queue_id, Flow::Automatic);
            self.subscribers.insert(id, subscriber);
        }
        Ok(())
    }

    /// Takes a message in, or says why not. [`Refusal::is_end`] tells whether it was even looked at.
    pub(crate) fn publish(
        &mut self,
        on: ConnectionId,
        to: &Address,
        message: Arc<Message>,
        now: Instant,
        effects: &mut Effects<W>,
    ) -> Result<(), Refusal> {
        match self.route(on, to, now, effects) {
            Ok(Some(queue_id)) => {
                if let Some(queue) = self.queues.get_mut(&queue_id) {
                    queue.push(message, now);
                    Self::dispatch(queue, &mut self.subscribers, now, effects);
                }
                Ok(())
            }
            Ok(None) => {
                effects.dropped.push(message);
                Ok(())
            }
            Err(refusal) => {
                effects.dropped.push(message);
                Err(refusal)
            }
        }
    }

    /// Blocks publishers, or lets them go on, and publishes what they had to say meanwhile.
    pub(crate) fn block(&mut self, blocked: bool, now: Instant, effects: &mut Effects<W>) {
        if blocked {
            self.held.block();
            return;
        }
        self.held.refuse_overdue(now, effects);
        for one in self.held.unblock() {
            let told = self.publish(one.on, &one.to, one.message, now, effects);
            effects.verdicts.push((one.verdict, told));
        }
    }

    /// Whether what is published on this connection has to wait.
    pub(crate) fn is_blocked(&self, on: ConnectionId) -> bool {
        self.held.is_blocked() && self.check_open(on).is_ok()
    }

    /// Whether somebody [watches](Self::refuse_overdue) over what is held.
    pub(crate) const fn is_watched(&self) -> bool {
        self.held.is_watched()
    }

    /// Keeps a publish until publishers may go on.
    pub(crate) fn hold(&mut self, publish: Publish) {
        self.held.push(publish);
    }

    /// Refuses what has waited too long to be published, and says when to look again.
    pub(crate) fn refuse_overdue(
        &mut self,
        now: Instant,
        effects: &mut Effects<W>,
    ) -> Option<Instant> {
        self.held.refuse_overdue(now, effects);
        self.held.next()
    }

    /// What there is for a consumer; `None` when it has to [`wait`](Self::wait).
    pub(crate) fn receive(&mut self, id: ConsumerId) -> Option<Received> {
        match self.subscribers.get_mut(&id) {
            Some(subscriber) => subscriber.receive(id),
            None => Some(Received::End(None)),
        }
    }

    /// Remembers whom to wake for a consumer. Returns whom it forgot, to be dropped outside the lock.
    #[must_use]
    pub(crate) fn wait(&mut self, id: ConsumerId, waiter: W) -> Option<W> {
        match self.subscribers.get_mut(&id) {
            Some(subscriber) => subscriber.wait(waiter),
            None => Some(waiter),
        }
    }

    /// Settles a delivery.
    pub(crate) fn settle(
        &mut self,
        on: ConnectionId,
        token: &AckToken,
        how: Settle,
        now: Instant,
        effects: &mut Effects<W>,
    ) -> Result<(), Refusal> {
        let id = token.consumer();
        if !self.is_consumer_of(on, id) {
            return Err(Refusal::ForeignToken);
        }
        self.check_open(on)?;
        let subscriber = self.subscribers.get_mut(&id).ok_or(Refusal::ForeignToken)?;
        let before = subscriber.credit();
        let entry = subscriber
            .settle(token.tag())
            .ok_or(Refusal::ForeignToken)?;
        let regained = before == Credit::Spent && subscriber.credit() == Credit::Left;
        let queue_id = subscriber.queue;
        if subscriber.is_done() {
            self.subscribers.remove(&id);
        }
        // The queue may be gone, and what was in it with it.
        let Some(queue) = self.queues.get_mut(&queue_id) else {
            effects.dropped.push(entry.message);
            return Ok(());
        };
        match how {
            Settle::Done => {
                queue.unsettled -= 1;
                effects.dropped.push(entry.message);
            }
            Settle::Discard => {
                queue.unsettled -= 1;
                queue.give_up(entry.message, Death::Rejected, effects);
            }
            Settle::Requeue => queue.take_back(entry, effects),
        }
        if regained {
            queue.join(id);
        }
        Self::dispatch(queue, &mut self.subscribers, now, effects);
        Ok(())
    }

    /// How many messages are ready in a queue.
    pub(crate) fn ready_len(
        &mut self,
        name: &ShortString,
        now: Instant,
        effects: &mut Effects<W>,
    ) -> Option<usize> {
        let queue = self.queues.get_mut(self.names.get(name)?)?;
        queue.drop_expired(now, effects);
        Some(queue.ready_len())
    }

    /// How many messages of a queue are with consumers and not settled.
    pub(crate) fn unsettled_len(&self, name: &ShortString) -> Option<usize> {
        self.find(name).map(|queue| queue.unsettled)
    }

    /// How many messages a consumer was sent and has not received.
    pub(crate) fn mailbox_len(&self, id: ConsumerId) -> usize {
        self.subscribers.get(&id).map_or(0, Subscriber::mailbox_len)
    }

    /// The queue that takes a message; `None` where the message vanishes.
    fn route(
        &mut self,
        on: ConnectionId,
        to: &Address,
        now: Instant,
        effects: &mut Effects<W>,
    ) -> Result<Option<QueueId>, Refusal> {
        self.check_open(on)?;
        if !to.exchange_name().is_empty() {
            return Err(Refusal::NoExchange(to.exchange_name().clone()));
        }
        let name = to.routing_key();
        let Some(queue_id) = self.names.get(name).copied() else {
            return match name.as_str().starts_with(DIRECT_PREFIX) {
                true => Ok(None),
                false => Err(Refusal::NoRoute(name.clone())),
            };
        };
        let Some(queue) = self.queues.get_mut(&queue_id) else {
            return Err(Refusal::NoRoute(name.clone()));
        };
        queue.drop_expired(now, effects);
        let max = queue.capacity(self.max_ready);
        let room = match (queue.ownership, queue.turn()) {
            (Ownership::Shared(_), _) | (_, None) => queue.make_room(self.max_ready, effects),
            // An inbox sends on at once, so what waits is in the mailbox.
            (_, Some(id)) => self.mailbox_len(id) < max,
        };
        if !room {
            return Err(Refusal::Full {
                name: name.clone(),
                max,
            });
        }
        Ok(Some(queue_id))
    }

    /// Hands out what is ready, by turns, to those that have credit.
    fn dispatch(
        queue: &mut Queue,
        subscribers: &mut FxHashMap<ConsumerId, Subscriber<W>>,
        now: Instant,
        effects: &mut Effects<W>,
    ) {
        while let Some(id) = queue.turn() {
            let Some(subscriber) = subscribers.get_mut(&id) else {
                queue.end_turn(Credit::Spent);
                continue;
            };
            let Some(entry) = queue.pop(now, effects) else {
                return;
            };
            effects.wakes.extend(subscriber.send(entry, now));
            if matches!(subscriber.flow(), Flow::Settled { .. }) {
                queue.unsettled += 1;
            }
            queue.end_turn(subscriber.credit());
        }
    }

    /// Makes the consumer `id` one of `queue` and of the connection `on`.
    fn subscribe(
        connections: &mut FxHashMap<ConnectionId, Connection>,
        queue: &mut Queue,
        on: ConnectionId,
        id: ConsumerId,
    ) {
        queue.consumers += 1;
        queue.join(id);
        if let Some(Connection { consumers, .. }) = connections.get_mut(&on) {
            // Ids grow, but two that were made at the same time may come in the other order.
            let place = consumers.partition_point(|other| *other < id);
            consumers.insert(place, id);
        }
    }

    fn add_queue(&mut self, name: ShortString, ownership: Ownership, limits: Limits) -> QueueId {
        let id = QueueId(self.number());
        self.names.insert(name.clone(), id);
        self.queues.insert(id, Queue::new(name, ownership, limits));
        id
    }

    fn find(&self, name: &ShortString) -> Option<&Queue> {
        self.queues.get(self.names.get(name)?)
    }

    /// Whether the queue of this name is an inbox of the connection `on`.
    fn owns(&self, on: ConnectionId, name: &ShortString) -> bool {
        self.find(name)
            .and_then(Queue::turn)
            .and_then(|id| self.subscribers.get(&id))
            .is_some_and(|subscriber| subscriber.connection == on)
    }

    fn is_consumer_of(&self, on: ConnectionId, id: ConsumerId) -> bool {
        self.connections
            .get(&on)
            .is_some_and(|connection| connection.consumers.binary_search(&id).is_ok())
    }

    fn check_open(&self, on: ConnectionId) -> Result<(), Refusal> {
        match self.connections.get(&on) {
            Some(Connection { ended: None, .. }) => Ok(()),
            Some(Connection {
                ended: Some(cause), ..
            }) => Err(cause.clone()),
            None => Err(Refusal::Closed),
        }
    }

    const fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}
