//! How things end: consumers, connections, queues; and where their messages go.

use std::time::Instant;

use rpc_core::{ConsumerId, QueueKind, ShortString};

use super::{Broker, ConnectionId, QueueId};
use crate::effects::Effects;
use crate::queue::{Entry, Ownership, Queue};
use crate::refusal::Refusal;
use crate::subscriber::{Flow, Subscriber};

impl<W> Broker<W> {
    /// Ends a consumer for its transport. Its unsettled deliveries stay with their tokens.
    pub(crate) fn cancel(
        &mut self,
        on: ConnectionId,
        id: ConsumerId,
        now: Instant,
        effects: &mut Effects<W>,
    ) -> Result<(), Refusal> {
        if !self.is_consumer_of(on, id) {
            return Err(Refusal::ForeignConsumer);
        }
        self.end_consumer(id, now, effects);
        Ok(())
    }

    /// Ends a consumer whose owner has let go of it.
    pub(crate) fn release(&mut self, id: ConsumerId, now: Instant, effects: &mut Effects<W>) {
        self.end_consumer(id, now, effects);
        if let Some(subscriber) = self.subscribers.get_mut(&id) {
            subscriber.released = true;
            if subscriber.is_done() {
                self.subscribers.remove(&id);
            }
        }
    }

    /// Ends a connection: by its own wish, or as if it had been lost, which every consumer is told.
    pub(crate) fn end(
        &mut self,
        on: ConnectionId,
        cause: &Refusal,
        now: Instant,
        effects: &mut Effects<W>,
    ) {
        self.end_all(&[on], cause, now, effects);
    }

    fn end_all(
        &mut self,
        all: &[ConnectionId],
        cause: &Refusal,
        now: Instant,
        effects: &mut Effects<W>,
    ) {
        let told = (*cause == Refusal::Severed).then_some(cause);
        let mut consumers = Vec::new();
        for on in all {
            let Some(connection) = self.connections.get_mut(on) else {
                continue;
            };
            if connection.ended.is_none() {
                connection.ended = Some(cause.clone());
                consumers.extend_from_slice(&connection.consumers);
                self.held.refuse_of(*on, cause, effects);
            }
        }
        // All of them leave before anything is dispatched, or one of them would get it.
        let mut touched = Vec::new();
        for id in consumers {
            touched.extend(self.detach(id, told, effects));
            let Some(subscriber) = self.subscribers.get_mut(&id) else {
                continue;
            };
            let queue_id = subscriber.queue;
            let entries = subscriber.surrender();
            if subscriber.is_done() {
                self.subscribers.remove(&id);
            }
            self.take_back(queue_id, entries, effects);
            touched.push(queue_id);
        }
        for queue_id in touched {
            self.rearrange(queue_id, now, effects);
        }
    }

    /// Ends every connection, as if the broker had been killed and had come back: shared queues
    /// stay with the persistent messages in them, and all else is gone.
    pub(crate) fn crash(&mut self, now: Instant, effects: &mut Effects<W>) {
        let connections: Vec<_> = self.connections.keys().copied().collect();
        self.end_all(&connections, &Refusal::Severed, now, effects);
        // Those that waited for their first consumer.
        let is_transient =
            |queue: &Queue| queue.ownership == Ownership::Shared(QueueKind::Transient);
        let doomed = |(id, queue): (&QueueId, &Queue)| is_transient(queue).then_some(*id);
        let doomed: Vec<_> = self.queues.iter().filter_map(doomed).collect();
        for id in doomed {
            self.remove_queue(id, effects);
        }
        for queue in self.queues.values_mut() {
            queue.crash(effects);
        }
    }

    /// Crashes, and stays away.
    pub(crate) fn stop(&mut self, now: Instant, effects: &mut Effects<W>) {
        self.stopped = true;
        self.crash(now, effects);
    }

    /// Comes back.
    pub(crate) const fn start(&mut self) {
        self.stopped = false;
    }

    /// Forgets a connection that nobody can use any more, once it has ended.
    pub(crate) fn forget(&mut self, on: ConnectionId, now: Instant, effects: &mut Effects<W>) {
        self.end(on, &Refusal::Closed, now, effects);
        self.connections.remove(&on);
    }

    /// Deletes a queue with all that is in it. Its consumers end with that as the cause.
    pub(crate) fn delete(&mut self, name: &ShortString, effects: &mut Effects<W>) -> bool {
        let Some(queue_id) = self.names.get(name).copied() else {
            return false;
        };
        let cause = Refusal::Deleted(name.clone());
        let of_queue = |(id, subscriber): (&ConsumerId, &Subscriber<W>)| {
            (subscriber.queue == queue_id).then_some(*id)
        };
        let consumers: Vec<_> = self.subscribers.iter().filter_map(of_queue).collect();
        for id in consumers {
            self.detach(id, Some(&cause), effects);
        }
        self.remove_queue(queue_id, effects);
        true
    }

    fn end_consumer(&mut self, id: ConsumerId, now: Instant, effects: &mut Effects<W>) {
        if let Some(queue_id) = self.detach(id, None, effects) {
            self.rearrange(queue_id, now, effects);
        }
    }

    /// Ends a running consumer and gives back what it never received. Returns its queue, to be
    /// rearranged when all that are to leave have left.
    fn detach(
        &mut self,
        id: ConsumerId,
        cause: Option<&Refusal>,
        effects: &mut Effects<W>,
    ) -> Option<QueueId> {
        let subscriber = self.subscribers.get_mut(&id)?;
        if !subscriber.is_running() {
            return None;
        }
        let flow = subscriber.flow();
        let queue_id = subscriber.queue;
        let (waiter, unread) = subscriber.end(cause.cloned());
        effects.wakes.extend(waiter);
        if let Some(queue) = self.queues.get_mut(&queue_id) {
            queue.leave(id);
        }
        match flow {
            Flow::Automatic => effects.dropped.extend(unread.map(|entry| entry.message)),
            Flow::Settled { .. } => self.take_back(queue_id, unread, effects),
        }
        Some(queue_id)
    }

    /// Puts deliveries back, unless their queue is gone.
    fn take_back(
        &mut self,
        queue_id: QueueId,
        entries: impl DoubleEndedIterator<Item = Entry>,
        effects: &mut Effects<W>,
    ) {
        match self.queues.get_mut(&queue_id) {
            // From the last to the first, so that each goes to the very front as a rule.
            Some(queue) => entries
                .rev()
                .for_each(|entry| queue.take_back(entry, effects)),
            None => effects.dropped.extend(entries.map(|entry| entry.message)),
        }
    }

    /// After consumers have left a queue: it goes with the last, or the others get what is ready.
    fn rearrange(&mut self, queue_id: QueueId, now: Instant, effects: &mut Effects<W>) {
        let Some(queue) = self.queues.get_mut(&queue_id) else {
            return;
        };
        if queue.is_abandoned() {
            self.remove_queue(queue_id, effects);
        } else {
            Self::dispatch(queue, &mut self.subscribers, now, effects);
        }
    }

    fn remove_queue(&mut self, id: QueueId, effects: &mut Effects<W>) {
        if let Some(queue) = self.queues.remove(&id) {
            self.names.remove(&queue.name);
            effects.dropped.extend(queue.into_messages());
        }
    }
}
