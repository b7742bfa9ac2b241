//! Where messages go that their queue gives up.

use std::sync::Arc;
use std::time::Instant;

use rpc_core::{HeaderValue, Message, ShortString};

use super::Broker;
use crate::effects::Effects;

/// A message that its queue has given up, on its way to another.
#[derive(Debug)]
pub(crate) struct DeadLetter {
    pub(crate) to: ShortString,
    pub(crate) from: ShortString,
    pub(crate) reason: Death,
    pub(crate) message: Arc<Message>,
}

/// What a message died of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    DeliveryLimit,
    Expired,
    Rejected,
}

impl Death {
    const fn word(self) -> &'static str {
        match self {
            Self::DeliveryLimit => "delivery_limit",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
        }
    }
}

impl<W> Broker<W> {
    /// Puts dead letters into their queues. To be called after each verb, under the same lock.
    pub(crate) fn bury(&mut self, now: Instant, effects: &mut Effects<W>) {
        // Handing them out may find more that have expired; those that died of that cannot again.
        loop {
            let dead = std::mem::take(&mut effects.dead);
            if dead.is_empty() {
                return;
            }
            for letter in dead.into_iter() {
                let max = self.max_ready;
                let queue_id = self.names.get(&letter.to);
                let mut queue = queue_id.and_then(|id| self.queues.get_mut(id));
                match queue.take_if(|queue| queue.make_room(max, effects)) {
                    // One that is full, or gone, loses them, and nobody is told.
                    Some(queue) => {
                        queue.push(Arc::new(inscribed(letter)), now);
                        Self::dispatch(queue, &mut self.subscribers, now, effects);
                    }
                    _ => effects.dropped.push(letter.message),
                }
            }
        }
    }
}

/// The message as it comes out at the other end: with its cause, and without its expiration, of
/// which it would die again.
fn inscribed(letter: DeadLetter) -> Message {
    let mut message = Arc::unwrap_or_clone(letter.message);
    message.expiration = None;
    if message.headers.get(FIRST_DEATH_REASON).is_none() {
        let headers = [
            (FIRST_DEATH_QUEUE, letter.from.as_str()),
            (FIRST_DEATH_REASON, letter.reason.word()),
        ];
        for (name, value) in headers {
            // Without room for it the message still counts.
            let _ = message.headers.insert(name, HeaderValue::from(value));
        }
    }
    message
}

/// The queue that gave it up first.
const FIRST_DEATH_QUEUE: &str = "x-first-death-queue";

/// Why.
const FIRST_DEATH_REASON: &str = "x-first-death-reason";
