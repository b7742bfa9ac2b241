//! The transports that a server lives on, and which of them settles what.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rpc_proto::{ConsumerId, ShortString};

/// One transport in the life of a server, with the consumers of requests it has there.
#[derive(Debug)]
pub(crate) struct Post<T> {
    pub(crate) transport: Arc<T>,
    pub(crate) consumers: Vec<ConsumerId>,
    /// The inbox for cancellations, where there is one.
    pub(crate) control: Option<ShortString>,
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
        std::mem::take(&mut *self.lock())
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
