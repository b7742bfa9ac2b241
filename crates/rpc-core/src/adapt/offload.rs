//! A blocking transport behind the async face.

mod crew;
mod feed;
mod lane;

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_channel::oneshot;

use self::crew::Crew;
use self::feed::Feed;
use self::lane::{Publish, Settle, Verdict, caught};
use super::GRACE;
use crate::{
    AckToken, Address, Confirm, ConsumeOptions, Consumer, ConsumerId, Delivery, ErrorKind, Fate,
    Message, QueueSpec, ShortString, Source, Transport, TransportError, blocking,
};

/// How long an acknowledgement may wait for its turn: the bound of a verb.
const VERB: Duration = Duration::from_secs(10);

/// How many deliveries of an inbox wait here for `recv`.
const INBOX: usize = 1024;

/// A blocking transport behind the async face.
///
/// It needs no runtime: its futures can be awaited on any executor, and none of them ever blocks.
/// The threads, all of them gone when [`close`](Transport::close) returns:
///
/// * one carries out the publishes in the order in which they were asked for, and one what settles
///   deliveries, so that a publish that waits for room holds up no acknowledgement;
/// * one for each verb that is rare and may take seconds (`declare`, `consume`, `cancel`), as long
///   as it takes, so that it holds up nothing;
/// * one for each consumer, which waits for deliveries: the thread that carried out its `consume`;
/// * one watches the deadlines of what waits for its turn, and closes the inner transport.
///
/// Dropped without `close` it closes in the background, and the inner transport is dropped on a
/// thread of its own, too.
///
/// # Cancel safety
///
/// A publish whose future is dropped is not done if its turn had not come; nobody can tell. An `ack`
/// or `reject` is done all the same, and so are the rare verbs; a consumer that nobody receives is
/// cancelled.
pub struct Offload<T: blocking::Transport> {
    // In this order: once the crew is told to end, it holds the last reference to the inner
    // transport, so that this is dropped on one of its threads.
    inner: Arc<T>,
    crew: Ending,
}

impl<T: blocking::Transport> Offload<T> {
    /// Puts `inner` behind the async face.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Other`] when the system has no thread to give.
    pub fn new(inner: T) -> Result<Self, TransportError> {
        let inner = Arc::new(inner);
        let crew = Ending(Crew::start(&inner)?);
        let this = Self { inner, crew };
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
    #[must_use]
    pub fn inner(&self) -> &T {
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
        work: impl FnOnce(&T) -> Result<R, TransportError> + Send + 'static,
    ) -> Result<R, TransportError> {
        let (reply, answer) = oneshot::channel();
        let (inner, transport) = (Arc::clone(&self.inner), self.name());
        self.crew.0.spawn(operation, move || {
            let _ = reply.send(caught(transport, operation, || work(&inner)));
        })?;
        self.answer(operation, answer).await
    }

    async fn settle(&self, token: AckToken, verdict: Verdict) -> Result<(), TransportError> {
        let (reply, answer) = oneshot::channel();
        self.crew.0.settles.push(Settle {
            token,
            verdict,
            deadline: Instant::now() + VERB,
            reply,
        });
        self.crew.0.watch();
        self.answer("settle", answer).await
    }

    async fn answer<R>(
        &self,
        operation: &'static str,
        answer: oneshot::Receiver<Result<R, TransportError>>,
    ) -> Result<R, TransportError> {
        answer.await.unwrap_or_else(|_| {
            Err(
                TransportError::new(ErrorKind::Other, self.name(), operation)
                    .with_detail("its thread ended"),
            )
        })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: blocking::Transport> Transport for Offload<T> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<(), TransportError> {
        let queue = queue.clone();
        self.errand("declare", move |inner| inner.declare(&queue))
            .await
    }

    async fn publish(
        &self,
        to: &Address,
        message: Message,
        deadline: Instant,
    ) -> Result<Confirm, TransportError> {
        let (reply, answer) = oneshot::channel();
        self.crew.0.publishes.push(Publish {
            to: to.clone(),
            message,
            deadline,
            reply,
        });
        self.crew.0.watch();
        self.answer("publish", answer).await
    }

    fn is_blocked(&self) -> bool {
        self.inner.is_blocked()
    }

    async fn consume(&self, options: ConsumeOptions) -> Result<Box<dyn Consumer>, TransportError> {
        let (reply, answer) = oneshot::channel();
        let (crew, inner) = (Arc::clone(&self.crew.0), Arc::clone(&self.inner));
        self.crew
            .0
            .spawn("consume", move || consume(&crew, &inner, options, reply))?;
        let consumer = self.answer("consume", answer).await?;
        Ok(Box::new(consumer))
    }

    async fn ack(&self, token: AckToken) -> Result<(), TransportError> {
        self.settle(token, Verdict::Done).await
    }

    async fn reject(&self, token: AckToken, fate: Fate) -> Result<(), TransportError> {
        self.settle(token, Verdict::NotDone(fate)).await
    }

    async fn cancel(&self, consumer: ConsumerId) -> Result<(), TransportError> {
        let (transport, feed) = (self.name(), self.crew.0.feed(consumer));
        let cancelled = self
            .errand("cancel", move |inner| {
                withdraw(inner, transport, consumer, feed.as_deref())
            })
            .await;
        match cancelled {
            // The end has cancelled every consumer.
            Err(_) if self.crew.0.is_ending() => Ok(()),
            cancelled => cancelled,
        }
    }

    async fn close(&self) -> Result<(), TransportError> {
        // The sender is only dropped unused when there is nothing left to wait for.
        let _ = self.crew.0.end_and_tell().await;
        Ok(())
    }
}

impl<T: blocking::Transport> fmt::Debug for Offload<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offload")
            .field("inner", &self.inner)
            .field("crew", &self.crew.0)
            .finish()
    }
}

/// The hold of the adapter on its crew, which ends with it.
struct Ending(Arc<Crew>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The receiving end. The pump at the other end of the feed does the waiting.
struct OffloadConsumer<T: blocking::Transport> {
    id: ConsumerId,
    queue: ShortString,
    transport: &'static str,
    feed: Arc<Feed>,
    crew: Arc<Crew>,
    /// Weak, so that the consumer is never the last to hold the transport.
    inner: Weak<T>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: blocking::Transport> Consumer for OffloadConsumer<T> {
    fn id(&self) -> ConsumerId {
        self.id
    }

    fn queue(&self) -> &ShortString {
        &self.queue
    }

    async fn recv(&mut self) -> Result<Option<Delivery>, TransportError> {
        // A delivery leaves the feed only in the poll that returns it, so a dropped future takes
        // none with it.
        poll_fn(|context| self.feed.poll_recv(context)).await
    }
}

impl<T: blocking::Transport> fmt::Debug for OffloadConsumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OffloadConsumer")
            .field("id", &self.id)
            .field("queue", &self.queue)
            .field("feed", &self.feed)
            .finish_non_exhaustive()
    }
}

impl<T: blocking::Transport> Drop for OffloadConsumer<T> {
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
fn consume<T: blocking::Transport>(
    crew: &Arc<Crew>,
    inner: &Arc<T>,
    options: ConsumeOptions,
    reply: oneshot::Sender<Result<OffloadConsumer<T>, TransportError>>,
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
            let _ = reply.send(Err(error));
            return;
        }
    };
    let feed = Arc::new(Feed::new(capacity));
    crew.register(consumer.id(), &feed);
    // If nobody waits for it any more, it is dropped here, and that cancels it.
    let _ = reply.send(Ok(OffloadConsumer {
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
fn pump<T: blocking::Transport>(
    inner: &T,
    transport: &'static str,
    mut consumer: Box<dyn blocking::Consumer>,
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
fn withdraw<T: blocking::Transport>(
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
fn put_back<T: blocking::Transport>(
    inner: &T,
    transport: &'static str,
    deliveries: VecDeque<Delivery>,
) {
    for token in deliveries.into_iter().filter_map(|one| one.token) {
        if let Err(error) = caught(transport, "reject", || inner.reject(token, Fate::Requeue)) {
            // It goes back when the transport closes, if it has not just done so.
            tracing::debug!(%error, "an unreturned delivery was not put back");
        }
    }
}
