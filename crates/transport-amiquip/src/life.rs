//! The one life that all parts of a transport share: it ends once, with one cause, everywhere.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use amqp_broker::{AmqpUrl, Guard, Timeouts, kind_of_end};
use rpc_core::{ConsumerId, ErrorKind, TransportError};

use crate::error;
use crate::feed::Feed;
use crate::link::{Link, Side};

/// How long a dying connection may take to say what it died of.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What the transport, its consumers and its threads share.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) consume: Link,
    pub(crate) publish: Link,
    pub(crate) url: AmqpUrl,
    pub(crate) timeouts: Timeouts,
    /// Set when it ends from elsewhere, before the cause is found out, which may take a while.
    lost: AtomicBool,
    /// What it ended of, then.
    cause: OnceLock<TransportError>,
    /// Set when it is ended from this side.
    closing: AtomicBool,
    /// Whether the broker takes no messages from publishers now.
    blocked: AtomicBool,
    /// Every consumer there was. One that is over leaves its id behind, so that a late cancel of it
    /// is told from one of another transport's.
    consumers: RwLock<HashMap<ConsumerId, Option<Registered>>>,
}

/// A consumer that has a thread.
#[derive(Debug)]
struct Registered {
    feed: Arc<Feed>,
    thread: JoinHandle<()>,
}

/// What is known of a consumer's id.
pub(crate) enum Known {
    /// It was never one of this transport's.
    Foreign,
    /// Its thread is gone, with all that could be settled.
    Over,
    /// It lives.
    Here(Arc<Feed>),
}

impl Life {
    pub(crate) fn new(consume: Link, publish: Link, url: AmqpUrl, timeouts: Timeouts) -> Self {
        Self {
            consume,
            publish,
            url,
            timeouts,
            lost: AtomicBool::new(false),
            cause: OnceLock::new(),
            closing: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            consumers: RwLock::default(),
        }
    }

    /// Ends the transport with what amiquip said on one side, unless it has ended already, and
    /// returns the cause of the end.
    ///
    /// `None` where amiquip said nothing: a receiver that is simply disconnected.
    pub(crate) fn lose(&self, side: Side, evidence: Option<amiquip::Error>) -> TransportError {
        self.end(|| {
            let told = match evidence {
                Some(error) if error::says_why(&error) => Some(error),
                other => self.last_words(side).or(other),
            };
            match told {
                Some(error) => error::of_lost_connection(&error, &self.url),
                None => error::new(ErrorKind::Closed, "connection"),
            }
        })
    }

    /// What a failed request to amiquip means: the broker's answer to it, or the end of all.
    pub(crate) fn judge(
        &self,
        error: amiquip::Error,
        guard: Guard,
        operation: &'static str,
    ) -> TransportError {
        if guard.disarm() {
            let overdue = error::new(ErrorKind::Timeout, operation)
                .with_detail("the broker did not answer in time, so the connection was cut");
            self.end(|| overdue.clone());
            return overdue;
        }
        match error {
            answer @ amiquip::Error::ServerClosedChannel { .. } => {
                error::of_channel(&answer, operation, &self.url)
            }
            amiquip::Error::ExhaustedChannelIds => error::of_channel(&error, operation, &self.url),
            other => {
                self.lose(Side::Consume, Some(other));
                self.refusal(operation)
            }
        }
    }

    /// The one place where a transport ends from elsewhere.
    fn end(&self, find_cause: impl FnOnce() -> TransportError) -> TransportError {
        if self.is_closing() {
            return closed_here("connection");
        }
        self.lost.store(true, Ordering::Release);
        let cause = self.cause.get_or_init(|| {
            let cause = find_cause();
            let source = cause.source().map(tracing::field::display);
            tracing::warn!(error = %cause, source, "transport ended");
            cause
        });
        // Each side's death is the other's too: a consumer that cannot reply is of no use.
        self.cut();
        self.stop_consumers();
        cause.clone()
    }

    fn last_words(&self, side: Side) -> Option<amiquip::Error> {
        let link = match side {
            Side::Consume => &self.consume,
            Side::Publish => &self.publish,
        };
        // The I/O thread is at its end, or may still be writing its farewell to a peer who does not
        // read. Without a watchdog the farewell is not worth waiting for.
        let deadline = Instant::now() + LAST_WORDS;
        let Ok(_guard) = link.cut_after(deadline, "connection") else {
            link.cut();
            return link.reap();
        };
        link.reap()
    }

    /// Marks the end from this side. True for who was first.
    pub(crate) fn begin_to_close(&self) -> bool {
        !self.closing.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Notes what the broker says to publishers.
    pub(crate) fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Release);
    }

    /// Whether the broker blocks publishers, and they are not gone.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Acquire) && !self.is_closing() && !self.is_lost()
    }

    /// Whether it ended from elsewhere, also while the cause is being found out.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Why it ended from elsewhere, if it did.
    pub(crate) fn cause(&self) -> Option<&TransportError> {
        self.cause.get()
    }

    /// Refuses a verb that comes after the end.
    pub(crate) fn check(&self, operation: &'static str) -> Result<(), TransportError> {
        if self.is_closing() || self.cause().is_some() {
            return Err(self.refusal(operation));
        }
        Ok(())
    }

    /// What a verb gets that comes after the end.
    pub(crate) fn refusal(&self, operation: &'static str) -> TransportError {
        match self.cause() {
            Some(cause) => error::new(kind_of_end(cause.kind()), operation)
                .with_detail("the transport has ended")
                .with_source(cause.clone()),
            None if self.is_closing() => closed_here(operation),
            // Its cause is being found out.
            None => error::new(ErrorKind::Closed, operation).with_detail("the connection was lost"),
        }
        .unsent()
    }

    /// The cause as a consumer yields it.
    pub(crate) fn cause_for_consumer(cause: TransportError) -> TransportError {
        match kind_of_end(cause.kind()) {
            kind if kind == cause.kind() => cause,
            kind => error::new(kind, "recv")
                .with_detail("the transport has ended")
                .with_source(cause),
        }
    }

    /// Ends every wait inside amiquip. Blocks nobody.
    pub(crate) fn cut(&self) {
        self.consume.cut();
        self.publish.cut();
    }

    /// Joins amiquip's threads.
    pub(crate) fn reap(&self) {
        for (side, link) in [("publish", &self.publish), ("consume", &self.consume)] {
            if let Some(error) = link.reap() {
                tracing::debug!(side, %error, "connection was not closed in order");
            }
        }
    }

    /// Lists a consumer together with the thread that `spawn` starts for it. The thread cannot be
    /// over before it is listed.
    pub(crate) fn add_consumer(
        &self,
        id: ConsumerId,
        feed: Arc<Feed>,
        spawn: impl FnOnce() -> io::Result<JoinHandle<()>>,
    ) -> io::Result<()> {
        let mut consumers = self
            .consumers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let thread = spawn()?;
        consumers.insert(id, Some(Registered { feed, thread }));
        drop(consumers);
        // The end may have come while it was not listed, and then it was not told.
        if self.is_closing() || self.cause().is_some() {
            self.stop_consumers();
        }
        Ok(())
    }

    /// Lets go of a consumer whose thread is about to end.
    pub(crate) fn forget_consumer(&self, id: ConsumerId) {
        let mut consumers = self
            .consumers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = consumers.get_mut(&id) {
            *entry = None;
        }
    }

    pub(crate) fn consumer(&self, id: ConsumerId) -> Known {
        match self.read_consumers().get(&id) {
            None => Known::Foreign,
            Some(None) => Known::Over,
            Some(Some(registered)) => Known::Here(Arc::clone(&registered.feed)),
        }
    }

    /// Tells all consumers' threads to end.
    pub(crate) fn stop_consumers(&self) {
        for registered in self.read_consumers().values().flatten() {
            registered.feed.stop();
        }
    }

    /// Takes the threads of all consumers, to join them.
    pub(crate) fn take_consumer_threads(&self) -> Vec<JoinHandle<()>> {
        self.consumers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .values_mut()
            .filter_map(Option::take)
            .map(|registered| registered.thread)
            .collect()
    }

    fn read_consumers(&self) -> RwLockReadGuard<'_, HashMap<ConsumerId, Option<Registered>>> {
        self.consumers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn closed_here(operation: &'static str) -> TransportError {
    error::new(ErrorKind::Closed, operation).with_detail("closed on this side")
}
