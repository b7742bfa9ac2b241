//! The receiving end of a consumer.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use amiquip::ConsumerMessage;
use amqp_broker::kind_of_reply_code;
use crossbeam_channel::Receiver;
use rpc_core::{AckToken, ConsumerId, Delivery, ErrorKind, ShortString, TransportError, blocking};

use crate::convert::take_message;
use crate::error;
use crate::feed::Feed;
use crate::life::Life;
use crate::link::Side;

/// Reads the library's own receiver, so that a delivery crosses one thread less; everything else is
/// done by the owner thread.
///
/// The owner holds the same receiver, and while it ends the consumer both may read. Neither waits
/// for a certain last message, which the other could have taken: both go by the disconnection, which
/// follows it at once.
pub(crate) struct Consumer {
    id: ConsumerId,
    queue: ShortString,
    deliveries: Receiver<ConsumerMessage>,
    acknowledged: bool,
    feed: Arc<Feed>,
    life: Arc<Life>,
    done: bool,
}

impl Consumer {
    pub(crate) fn new(
        id: ConsumerId,
        queue: ShortString,
        deliveries: Receiver<ConsumerMessage>,
        acknowledged: bool,
        feed: Arc<Feed>,
        life: Arc<Life>,
    ) -> Self {
        Self {
            id,
            queue,
            deliveries,
            acknowledged,
            feed,
            life,
            done: false,
        }
    }

    fn take(&self, mut delivery: amiquip::Delivery) -> Delivery {
        let received_at = Instant::now();
        let message = take_message(&mut delivery);
        let redelivered = delivery.redelivered;
        let token = self.acknowledged.then(|| {
            let token = AckToken::new(self.id, delivery.delivery_tag());
            self.feed.keep(delivery);
            token
        });
        Delivery {
            message,
            received_at,
            redelivered,
            token,
        }
    }

    fn is_over(&self) -> bool {
        self.life.is_closing() || self.life.is_lost()
    }

    /// The end, told once.
    fn finish(&mut self, last: Option<ConsumerMessage>) -> Result<(), TransportError> {
        self.done = true;
        self.feed.finish();
        if self.feed.is_cancelled() || self.life.is_closing() {
            return Ok(());
        }
        match last {
            Some(ConsumerMessage::ServerCancelled) => Err(error::new(ErrorKind::NotFound, "recv")
                .with_detail("the broker ended the consumer: its queue is gone")),
            Some(ConsumerMessage::ServerClosedChannel(error)) => {
                self.feed.stop();
                Err(self.of_channel(&error))
            }
            Some(ConsumerMessage::ServerClosedConnection(error)) => Err(self.lost(Some(error))),
            _ => Err(self.lost(None)),
        }
    }

    fn lost(&self, evidence: Option<amiquip::Error>) -> TransportError {
        Life::cause_for_consumer(self.life.lose(Side::Consume, evidence))
    }

    /// A channel that died under a consumer: an acknowledgement came too late, for example. Only the
    /// codes that mean the same here as in an answer keep their kind.
    fn of_channel(&self, error: &amiquip::Error) -> TransportError {
        let kind = match error {
            amiquip::Error::ServerClosedChannel { code, .. } => match kind_of_reply_code(*code) {
                kind @ (ErrorKind::Denied | ErrorKind::NotFound) => kind,
                _ => ErrorKind::Closed,
            },
            _ => ErrorKind::Closed,
        };
        error::with_library(error::new(kind, "recv"), error, &self.life.url)
    }
}

impl blocking::Consumer for Consumer {
    fn id(&self) -> ConsumerId {
        self.id
    }

    fn queue(&self) -> &ShortString {
        &self.queue
    }

    fn recv(&mut self) -> Result<Option<Delivery>, TransportError> {
        if self.done {
            return Ok(None);
        }
        match self.deliveries.recv() {
            // It could not be settled any more, and somebody else gets it.
            Ok(ConsumerMessage::Delivery(_)) if self.acknowledged && self.is_over() => {
                self.finish(None).map(|()| None)
            }
            Ok(ConsumerMessage::Delivery(delivery)) => Ok(Some(self.take(delivery))),
            Ok(last) => self.finish(Some(last)).map(|()| None),
            Err(_) => self.finish(None).map(|()| None),
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if !self.done {
            self.feed.abandon();
        }
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("id", &self.id)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}
