//! The transports that a server lives on, and which of them settles what.

use std::iter;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_channel::oneshot;
use rpc_proto::{Cancellation, ConsumerId, ErrorKind, ShortString, TransportError};

use crate::{QueueKind, QueueSpec};

/// One transport in the life of a server, with the consumers of requests it has there.
#[derive(Debug)]
pub(crate) struct Post<T> {
    pub(crate) transport: Arc<T>,
    pub(crate) consumers: Vec<ConsumerId>,
    /// The inbox for cancellations, where there is one.
    pub(crate) control: Option<ShortString>,
    /// Cancelled when it has ended.
    pub(crate) ended: Cancellation,
    given_up: AtomicBool,
    /// Who is told when it is given up.
    tell: Mutex<Option<oneshot::Sender<TransportError>>>,
}

impl<T> Post<T> {
    /// Also returns where it is told that, and why, the transport is given up although it has not
    /// ended.
    pub(crate) fn new(
        transport: &Arc<T>,
        work: ConsumerId,
        quarantine: Option<ConsumerId>,
        control: Option<ShortString>,
    ) -> (Arc<Self>, oneshot::Receiver<TransportError>) {
        let (tell, given_up) = oneshot::channel();
        let post = Self {
            transport: Arc::clone(transport),
            consumers: iter::once(work).chain(quarantine).collect(),
            control,
            ended: Cancellation::new(),
            given_up: AtomicBool::new(false),
            tell: Mutex::new(Some(tell)),
        };
        (Arc::new(post), given_up)
    }

    /// Whether it is of any use to settle something here.
    pub(crate) fn is_given_up(&self) -> bool {
        // Whoever does not see it yet only waits in vain.
        self.given_up.load(Ordering::Relaxed)
    }

    /// How it went to settle a delivery. Tells whether the transport is to be closed now.
    ///
    /// What could not be settled comes again when its transport has ended. One that does not come back
    /// from a verb does not seem to end by itself, and all that it holds would stay there; so it is
    /// given up.
    #[must_use]
    pub(crate) fn handle_settled(&self, result: Result<(), &TransportError>) -> bool {
        let Err(error) = result else {
            return false;
        };
        tracing::debug!(%error, "a request could not be settled");
        if error.kind() != ErrorKind::Timeout {
            return false;
        }
        let tell = self
            .tell
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(tell) = tell else {
            return false;
        };
        self.given_up.store(true, Ordering::Relaxed);
        tracing::warn!(%error, "a transport that does not settle requests is given up");
        let cause = TransportError::new(ErrorKind::Closed, "rpc", "settle")
            .with_detail("the transport did not settle a request in time, and was given up")
            .with_source(error.clone());
        // Nobody listens any more where it has been left meanwhile.
        let _ = tell.send(cause);
        true
    }
}

/// The posts that are up: one as a rule, none for a while after a loss.
#[derive(Debug)]
pub(crate) struct Posts<T>(Mutex<Vec<Arc<Post<T>>>>);

impl<T> Posts<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    pub(crate) fn add(&self, post: Arc<Post<T>>) {
        self.lock().push(post);
    }

    /// Whatever was up is no more.
    pub(crate) fn clear(&self) -> Vec<Arc<Post<T>>> {
        let posts = std::mem::take(&mut *self.lock());
        posts.iter().for_each(|post| post.ended.cancel());
        posts
    }

    pub(crate) fn all(&self) -> Vec<Arc<Post<T>>> {
        self.lock().clone()
    }

    /// The one that settles what this consumer received; none when it is gone, and all that it had
    /// not settled is delivered again.
    pub(crate) fn of(&self, consumer: Option<ConsumerId>) -> Option<Arc<Post<T>>> {
        let consumer = consumer?;
        self.lock()
            .iter()
            .find(|post| post.consumers.contains(&consumer))
            .cloned()
    }

    /// Where a reply goes out for a request that came by `post`. When that is gone, its caller need
    /// not be: then by the one that is up now, if there is one.
    pub(crate) fn outlet(&self, post: &Arc<Post<T>>) -> Arc<T> {
        let posts = self.lock();
        let up = |other: &&Arc<Post<T>>| Arc::ptr_eq(other, post);
        let outlet = posts.iter().find(up).or_else(|| posts.last());
        Arc::clone(&outlet.unwrap_or(post).transport)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Post<T>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The consumer of the quarantine queue; none where an operator was to declare that and has not.
pub(crate) fn or_without<C>(
    queue: &QueueSpec,
    opened: Result<C, TransportError>,
) -> Result<Option<C>, TransportError> {
    match opened {
        Ok(consumer) => Ok(Some(consumer)),
        Err(error) if queue.kind == QueueKind::Passive && error.kind() == ErrorKind::NotFound => {
            tracing::warn!(%error, "there is no quarantine queue: suspects run among the others");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Why a server leaves a transport whose consumers were cancelled, and not by it.
pub(crate) fn closed_here() -> TransportError {
    TransportError::new(ErrorKind::Closed, "rpc", "serve")
        .with_detail("the transport was closed on this side")
}
