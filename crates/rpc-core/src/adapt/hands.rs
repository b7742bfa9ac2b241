//! Verbs of a blocking transport as futures that need no runtime, and that end in time.

mod crew;
mod errand;
mod feed;
mod lane;

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_channel::oneshot;

use self::crew::Crew;
use self::errand::Errand;
use self::feed::Feed;
use self::lane::{Publish, Settle, Verdict, caught};
use super::GRACE;
use crate::blocking::{Consumer, Transport};
use crate::{
    AckToken, Address, Confirm, ConsumeOptions, ConsumerId, Delivery, ErrorKind, Fate, Message,
    QueueSpec, ShortString, Source, TransportError,
};

/// How many deliveries of an inbox wait here for `recv`.
const INBOX: usize = 1024;

/// A blocking transport whose verbs are carried out on threads of ours: what both
/// [`Offload`](super::Offload) and [`Guarded`](super::Guarded) are.
pub(super) struct Hands<T: Transport> {
    // In this order: once the crew is told to end, it holds the last reference to the inner
    // transport, so that this is dropped on one of its threads.
    inner: Arc<T>,
    crew: Ending,
    verb: Duration,
}

impl<T: Transport> Hands<T> {
    /// Starts the threads. `verb` is the limit of verbs other than `publish` and `close`.
    pub(super) fn start(inner: T, verb: Duration) -> Result<Self, TransportError> {
        let inner = Arc::new(inner);
        let crew = Ending(Crew::start(&inner)?);
        let this = Self { inner, crew, verb };
        let (crew, inner) = (Arc::clone(&this.crew.0), Arc::clone(&this.inner));
        this.crew
            .0
            .spawn("publish", move || crew.publishes.work(&*inner))?;
        let (crew, inner) = (Arc::clone(&this.crew.0), Arc::clone(&this.inner));
        this.crew
            .0
            .spawn("settle", move || crew.settles.work(&*inner))?;
        Ok(this)
    }

    /// The transport that does the work.
    pub(super) fn inner(&self) -> &T {
        &self.inner
    }

    /// How many hold the inner transport: the adapter, and each thread that can use it.
    #[cfg(test)]
    pub(super) fn shares(&self) -> usize {
        Arc::strong_count(&self.inner)
    }

    /// Does `work` in a thread of its own.
    async fn errand<R: Send + 'static>(
        &self,
        operation: &'static str,
        limit: Duration,
        work: impl FnOnce(&T) -> Result<R, TransportError> + Send + 'static,
    ) -> Result<R, TransportError> {
        let (errand, answer) = self.begin(operation, limit);
        let (inner, transport) = (Arc::clone(&self.inner), self.name());
        self.crew.0.spawn(operation, move || {
            errand.answer(caught(transport, operation, || work(&inner)));
        })?;
        self.crew.0.watch();
        self.answer(operation, answer).await
    }

    fn begin<R: Send + 'static>(
        &self,
        operation: &'static str,
        limit: Duration,
    ) -> (Arc<Errand<R>>, Answer<R>) {
        let deadline = Instant::now() + limit;
        self.crew.0.errands.begin(self.name(), operation, deadline)
    }

    async fn settle(&self, token: AckToken, verdict: Verdict) -> Result<(), TransportError> {
        let (reply, answer) = oneshot::channel();
        let settle = Settle {
            token,
            verdict,
            deadline: Instant::now() + self.verb,
        };
        self.crew.0.settles.push(settle, reply);
        self.crew.0.watch();
        self.answer("settle", answer).await
    }

    async fn answer<R>(
        &self,
        operation: &'static str,
        answer: Answer<R>,
    ) -> Result<R, TransportError> {
        answer.await.unwrap_or_else(|_| {
            Err(
                TransportError::new(ErrorKind::Other, self.name(), operation)
                    .with_detail("its thread ended"),
            )
        })
    }
}

impl<T: Transport> Hands<T> {
    pub(super) fn name(&self) -> &'static str {
        self.inner.name()
    }

    pub(super) async fn declare(&self, queue: &QueueSpec) -> Result<(), TransportError> {
        let queue = queue.clone();
        self.errand("declare", self.verb, move |inner| inner.declare(&queue))
            .await
    }

    pub(super) async fn publish(
        &self,
        to: &Address,
        message: Message,
        deadline: Instant,
    ) -> Result<Confirm, TransportError> {
        let (reply, answer) = oneshot::channel();
        let publish = Publish {
            to: to.clone(),
            message,
            deadline,
        };
        self.crew.0.publishes.push(publish, reply);
        self.crew.0.watch();
        self.answer("publish", answer).await
    }

    pub(super) async fn consume(
        &self,
        options: ConsumeOptions,
    ) -> Result<Received<T>, TransportError> {
        let (errand, answer) = self.begin("consume", self.verb);
        let (crew, inner) = (Arc::clone(&self.crew.0), Arc::clone(&self.inner));
        self.crew
            .0
            .spawn("consume", move || consume(&crew, &inner, options, &errand))?;
        self.crew.0.watch();
        self.answer("consume", answer).await
    }

    pub(super) async fn ack(&self, token: AckToken) -> Result<(), TransportError> {
        self.settle(token, Verdict::Done).await
    }

    pub(super) async fn reject(&self, token: AckToken, fate: Fate) -> Result<(), TransportError> {
        self.settle(token, Verdict::NotDone(fate)).await
    }

    pub(super) async fn cancel(&self, consumer: ConsumerId) -> Result<(), TransportError> {
        let (transport, feed) = (self.name(), self.crew.0.feed(consumer));
        let cancelled = self
            .errand("cancel", self.verb + GRACE, move |inner| {
                withdraw(inner, transport, consumer, feed.as_deref())
            })
            .await;
        match cancelled {
            // The end has cancelled every consumer.
            Err(error) if error.kind() != ErrorKind::Timeout && self.crew.0.is_ending() => Ok(()),
            cancelled => cancelled,
        }
    }

    pub(super) async fn close(&self) {
        // The sender is only dropped unused when there is nothing left to wait for.
        let _ = self.crew.0.end_and_tell().await;
    }
}

impl<T: Transport> fmt::Debug for Hands<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hands")
            .field("inner", &self.inner)
            .field("crew", &self.crew.0)
            .finish()
    }
}

/// What a verb waits for.
type Answer<R> = oneshot::Receiver<Result<R, TransportError>>;

/// The hold of the adapter on its crew, which ends with it.
struct Ending(Arc<Crew>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The receiving end. The pump at the other end of the feed does the waiting.
pub(super) struct Received<T: Transport> {
    id: ConsumerId,
    queue: ShortString,
    transport: &'static str,
    feed: Arc<Feed>,
    crew: Arc<Crew>,
    /// Weak, so that the consumer is never the last to hold the transport.
    inner: Weak<T>,
}

impl<T: Transport> Received<T> {
    pub(super) const fn id(&self) -> ConsumerId {
        self.id
    }

    pub(super) const fn queue(&self) -> &ShortString {
        &self.queue
    }

    /// Cancel safe.
    pub(super) async fn recv(&mut self) -> Result<Option<Delivery>, TransportError> {
        // A delivery leaves the feed only in the poll that returns it, so a dropped future takes
        // none with it.
        poll_fn(|context| self.feed.poll_recv(context)).await
    }
}

impl<T: Transport> fmt::Debug for Received<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("id", &self.id)
            .field("queue", &self.queue)
            .field("feed", &self.feed)
            .finish_non_exhaustive()
    }
}

impl<T: Transport> Drop for Received<T> {
    fn drop(&mut self) {
        let (id, transport) = (self.id, self.transport);
        self.crew.forget(id);
        if self.feed.is_spent() {
            return;
        }
        let (inner, feed) = (Weak::clone(&self.inner), Arc::clone(&self.feed));
        let cancelled = self.crew.spawn("cancel", move || {
            let Some(inner) = inner.upgrade() else {
                return;
            };
            if let Err(error) = withdraw(&*inner, transport, id, Some(&feed)) {
                tracing::debug!(%error, consumer = %id, "a dropped consumer was not cancelled");
            }
        });
        if let Err(error) = cancelled {
            drop(self.feed.stop());
            // After the end there is nothing left to cancel. Without a thread to give, the
            // transport keeps the consumer, and its deliveries, until it closes.
            if error.kind() != ErrorKind::Closed {
                tracing::warn!(%error, consumer = %id, "a dropped consumer was not cancelled");
            }
        }
    }
}

/// The life of a consumer's thread: carries out `consume`, then pumps what comes.
fn consume<T: Transport>(
    crew: &Arc<Crew>,
    inner: &Arc<T>,
    options: ConsumeOptions,
    errand: &Errand<Received<T>>,
) {
    let transport = inner.name();
    let capacity = match options.source {
        // What is in the feed is not settled yet, and the transport holds no more than `prefetch`
        // deliveries that are not: the pump never waits for room, so it hears of every cancel.
        Source::Queue(_) => usize::from(options.prefetch.get()),
        // Here the pump may wait for room, and nothing comes to harm: deliveries of an inbox need
        // no settling, no other thread waits for the pump, and stopping the feed frees it.
        Source::Inbox(_) => INBOX,
    };
    let consumer = match caught(transport, "consume", || inner.consume(options)) {
        Ok(consumer) => consumer,
        Err(error) => {
            errand.answer(Err(error));
            return;
        }
    };
    let feed = Arc::new(Feed::new(capacity));
    crew.register(consumer.id(), &feed);
    // If nobody waits for it any more, it is dropped here, and that cancels it.
    errand.answer(Ok(Received {
        id: consumer.id(),
        queue: consumer.queue().clone(),
        transport,
        feed: Arc::clone(&feed),
        crew: Arc::clone(crew),
        inner: Arc::downgrade(inner),
    }));
    pump(&**inner, transport, consumer, &feed);
}

/// Moves deliveries into the feed until the consumer ends.
///
/// What arrives after the feed was stopped is kept until then: put back at once, the broker would
/// send it here again, as long as the cancellation is on its way.
fn pump<T: Transport>(
    inner: &T,
    transport: &'static str,
    mut consumer: Box<dyn Consumer>,
    feed: &Feed,
) {
    let mut unreturned = VecDeque::new();
    loop {
        match caught(transport, "recv", || consumer.recv()) {
            Ok(Some(delivery)) => {
                unreturned.extend(feed.push(delivery));
            }
            Ok(None) => break feed.end(None),
            Err(error) => break feed.end(Some(error)),
        }
    }
    put_back(inner, transport, unreturned);
    // A panic while it is dropped must not keep those waiting who wait for the pump.
    let _ = caught(transport, "cancel", || {
        drop(consumer);
        Ok(())
    });
    feed.set_over();
}

/// Cancels a consumer and puts back what its `recv` has not returned.
fn withdraw<T: Transport>(
    inner: &T,
    transport: &'static str,
    consumer: ConsumerId,
    feed: Option<&Feed>,
) -> Result<(), TransportError> {
    let unreturned = feed.map(Feed::stop);
    // First this, or the broker would send here again what is put back.
    let cancelled = caught(transport, "cancel", || inner.cancel(consumer));
    put_back(inner, transport, unreturned.unwrap_or_default());
    if let Some(feed) = feed
        && !feed.wait_over(Instant::now() + GRACE)
    {
        tracing::warn!(%consumer, "a cancelled consumer still waits for deliveries");
    }
    cancelled
}

/// Puts deliveries back into their queue; those of an inbox are dropped, for nobody else can have
/// them.
fn put_back<T: Transport>(inner: &T, transport: &'static str, deliveries: VecDeque<Delivery>) {
    for token in deliveries.into_iter().filter_map(|one| one.token) {
        if let Err(error) = caught(transport, "reject", || inner.reject(token, Fate::Requeue)) {
            // It goes back when the transport closes, if it has not just done so.
            tracing::debug!(%error, "an unreturned delivery was not put back");
        }
    }
}
