//! The way of a message into lapin: at once, in its caller's thread, where nothing has to wait.
//!
//! Each thread on the way costs a wake, and a message that goes on by itself is a packet by itself,
//! which is dear to the broker. So a caller hands its message over itself. What has to wait, and
//! whatever comes after that, takes the long way through the publisher's task.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use amqp_broker::{Confirms, is_direct_reply_address};
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation};
use rpc_core::{Address, Message, TransportError, Verdict};
use tokio::sync::mpsc;

use crate::convert;
use crate::gate::Gate;
use crate::intake::Unwritten;
use crate::ledger::{Mark, Open};

/// What lapin and the publisher take for a message of no length, about.
const OVERHEAD: usize = 512;
/// Without confirms, one in so many messages is watched, or one in so many bytes: when it has been
/// written, so has all before it.
const WATCH_MESSAGES: usize = 64;
const WATCH_BYTES: usize = 64 * 1024;

/// A message that lapin has not got.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) to: Address,
    pub(crate) message: Message,
    pub(crate) deadline: Instant,
    /// `None` when nobody is told.
    pub(crate) verdict: Option<Verdict>,
    /// Held on the long way.
    pub(crate) queued: Option<Queued>,
}

impl Outgoing {
    pub(crate) fn fail(self, error: &TransportError) {
        if let Some(verdict) = self.verdict {
            verdict.settle(Err(error.clone()));
        }
    }
}

/// A message that lapin has got, until it says what became of it.
pub(crate) struct Handed {
    pub(crate) publish: Publishing,
    pub(crate) open: Option<Open>,
}

pub(crate) type Publishing = Pin<Box<dyn Future<Output = lapin::Result<Confirmation>> + Send>>;

/// What a publisher is sent.
pub(crate) enum Sent {
    Handed(Handed),
    Outgoing(Outgoing),
}

/// A channel to publish on.
#[derive(Debug)]
pub(crate) struct Outlet {
    channel: Arc<Channel>,
    confirms: Confirms,
    /// Locked while lapin gets a message: it numbers a publish and puts it into its queue in two
    /// steps, so that two threads could make it take the confirmation of one for that of another.
    unwatched: Mutex<Cost>,
    unwritten: Arc<Unwritten>,
    /// How many messages are on the long way. None may be overtaken.
    queued: Arc<AtomicUsize>,
}

/// What lapin holds for messages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    pub(crate) bytes: usize,
    pub(crate) messages: usize,
}

/// That a message is on the long way.
#[derive(Debug)]
pub(crate) struct Queued(Arc<AtomicUsize>);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl Outlet {
    pub(crate) fn new(channel: Channel, confirms: Confirms) -> Self {
        Self {
            channel: Arc::new(channel),
            confirms,
            unwatched: Mutex::default(),
            unwritten: Arc::default(),
            queued: Arc::default(),
        }
    }

    pub(crate) fn unwritten(&self) -> &Unwritten {
        &self.unwritten
    }

    /// Sends a message on the long way.
    pub(crate) fn queue(&self) -> Queued {
        // In the publisher's line, too, it comes behind all that was handed over before.
        let _order = self.order();
        self.queued.fetch_add(1, Ordering::Relaxed);
        Queued(Arc::clone(&self.queued))
    }

    /// Gives lapin a message now, and what comes of it to the publisher; gives the message back where
    /// it has to wait.
    pub(crate) fn try_hand_over(
        &self,
        outgoing: Outgoing,
        gate: &Gate,
        publisher: &mpsc::Sender<Sent>,
    ) -> Result<(), Box<Outgoing>> {
        let waits = |outgoing| Err(Box::new(outgoing));
        if gate.is_shut() || !self.unwritten.has_room() || outgoing.deadline <= Instant::now() {
            return waits(outgoing);
        }
        // First of all, for there is no way back from lapin.
        let Ok(place) = publisher.try_reserve() else {
            return waits(outgoing);
        };
        let mut unwatched = self.order();
        if self.queued.load(Ordering::Acquire) > 0 {
            return waits(outgoing);
        }
        if let Some(handed) = self.give(outgoing, &mut unwatched) {
            // Under the lock: the publisher is to learn of them in their order.
            place.send(Sent::Handed(handed));
        }
        Ok(())
    }

    /// Gives lapin a message that was on the long way.
    pub(crate) fn hand_over(&self, outgoing: Outgoing) -> Option<Handed> {
        self.give(outgoing, &mut self.order())
    }

    /// The first poll puts it into lapin's queue. What is to be told, or watched, is returned.
    fn give(&self, outgoing: Outgoing, unwatched: &mut Cost) -> Option<Handed> {
        let Outgoing {
            to,
            message,
            verdict,
            queued,
            ..
        } = outgoing;
        let mut cost = Cost {
            bytes: OVERHEAD + convert::header_len(&message) + message.body.len(),
            messages: 1,
        };
        self.unwritten.add(cost);
        let properties = convert::properties(&message);
        let options = BasicPublishOptions {
            mandatory: self.confirms == Confirms::On && !is_direct_reply_address(&to),
            immediate: false,
        };
        let exchange = convert::short(to.exchange_name());
        let routing_key = convert::short(to.routing_key());
        let mut context = Context::from_waker(Waker::noop());
        if self.confirms == Confirms::Off {
            unwatched.bytes += cost.bytes;
            unwatched.messages += cost.messages;
            if unwatched.bytes < WATCH_BYTES && unwatched.messages < WATCH_MESSAGES {
                let publish = self.channel.basic_publish(
                    exchange,
                    routing_key,
                    options,
                    &message.body,
                    properties,
                );
                return match pin!(publish).poll(&mut context) {
                    Poll::Ready(Err(error)) => Some(Handed {
                        publish: Box::pin(async { Err(error) }),
                        open: None,
                    }),
                    Poll::Ready(Ok(_)) | Poll::Pending => None,
                };
            }
            cost = std::mem::take(unwatched);
        }
        let open = verdict.map(|verdict| Open {
            mark: Mark {
                exchange: to.exchange_name().clone(),
                routing_key: to.routing_key().clone(),
                correlation_id: message.correlation_id,
                message_id: message.message_id,
            },
            verdict,
        });
        let body = message.body;
        let channel = Arc::clone(&self.channel);
        let unwritten = Arc::clone(&self.unwritten);
        let mut publish: Publishing = Box::pin(async move {
            let written = channel
                .basic_publish(exchange, routing_key, options, &body, properties)
                .await;
            unwritten.remove(cost);
            // What waits for its confirmation needs the body no longer.
            drop(body);
            written?.await
        });
        if let Poll::Ready(known) = publish.as_mut().poll(&mut context) {
            publish = Box::pin(async { known });
        }
        drop(queued);
        Some(Handed { publish, open })
    }

    /// Nobody hands anything over as long as this is held.
    pub(crate) fn order(&self) -> MutexGuard<'_, Cost> {
        self.unwatched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
