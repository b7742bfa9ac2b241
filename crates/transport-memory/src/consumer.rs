//! The receiving end, polled alike by both faces.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use rpc_core::{ConsumerId, Delivery, ShortString, TransportError};

use crate::broker::{Parcel, Received};
use crate::handle::MemoryBroker;

/// A consumer in either face. Dropped, it is cancelled.
pub(crate) struct MemoryConsumer {
    broker: MemoryBroker,
    id: ConsumerId,
    queue: ShortString,
}

impl MemoryConsumer {
    pub(crate) const fn new(broker: MemoryBroker, id: ConsumerId, queue: ShortString) -> Self {
        Self { broker, id, queue }
    }

    pub(crate) const fn consumer_id(&self) -> ConsumerId {
        self.id
    }

    pub(crate) const fn queue_name(&self) -> &ShortString {
        &self.queue
    }

    /// A delivery is taken only when this returns it, so a wait can be given up at any time.
    pub(crate) fn poll_recv(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Delivery>, TransportError>> {
        let (received, forgotten) = {
            let mut broker = self.broker.lock();
            match broker.receive(self.id) {
                Some(received) => (Some(received), None),
                None => (None, broker.wait(self.id, context.waker().clone())),
            }
        };
        // Only now, without the lock: it may be the last hold on a task that owns a consumer.
        drop(forgotten);
        match received {
            None => Poll::Pending,
            Some(Received::End(None)) => Poll::Ready(Ok(None)),
            Some(Received::End(Some(cause))) => Poll::Ready(Err(cause.into_error("recv"))),
            Some(Received::Parcel(parcel)) => Poll::Ready(Ok(Some(unpack(parcel)))),
        }
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        let now = Instant::now();
        self.broker
            .with(|broker, effects| broker.release(self.id, now, effects));
    }
}

impl fmt::Debug for MemoryConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryConsumer")
            .field("id", &self.id)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

/// How often a message of a quorum queue was delivered before; not there the first time.
const DELIVERY_COUNT: &str = "x-delivery-count";

/// Copies the message where the broker keeps it for a redelivery. The body stays shared.
fn unpack(parcel: Parcel) -> Delivery {
    let mut message = Arc::unwrap_or_clone(parcel.message);
    if parcel.counted && parcel.returns > 0 {
        let count = i64::from(parcel.returns);
        // Without room for it the message still counts.
        let _ = message.headers.insert(DELIVERY_COUNT, count);
    }
    Delivery {
        message,
        received_at: parcel.received_at,
        redelivered: parcel.returns > 0,
        token: parcel.token,
    }
}
