//! How a server serves: which queue, how many requests at once, for how long.

use std::num::{NonZeroU16, NonZeroUsize};
use std::thread;
use std::time::Duration;

use rpc_proto::server::{Policy, Stats};

use crate::QueueSpec;

/// How a server serves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerOptions {
    /// Handlers that run at once. The cores of the machine when nothing is said.
    pub concurrency: NonZeroUsize,
    /// Requests taken from the queue at once: those that run, those whose reply is on its way, and
    /// those that wait for their turn. Twice the concurrency and at least 64 when nothing is said,
    /// which keeps quick handlers busy. For slow ones say less: what waits here cannot be taken by
    /// an idle worker.
    pub prefetch: NonZeroU16,
    /// The queue.
    pub queue: QueueSpec,
    /// Limits on requests and handlers.
    pub policy: Policy,
    /// How long a reply may take to be confirmed, or an acknowledgement to be handed over, before
    /// the request goes back into the queue.
    pub settle_timeout: Duration,
}

impl ServerOptions {
    /// A server of this queue, which is declared first.
    #[must_use]
    pub fn new(queue: QueueSpec) -> Self {
        let policy = Policy::new(queue.name.clone());
        let concurrency = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self {
            concurrency,
            prefetch: Self::default_prefetch(concurrency),
            queue,
            policy,
            settle_timeout: Duration::from_secs(10),
        }
    }

    /// Sets how many handlers run at once, and the prefetch that goes with it.
    #[must_use]
    pub fn with_concurrency(mut self, concurrency: NonZeroUsize) -> Self {
        self.concurrency = concurrency;
        self.prefetch = Self::default_prefetch(concurrency);
        self
    }

    /// Sets how many requests are taken from the queue at once.
    #[must_use]
    pub const fn with_prefetch(mut self, prefetch: NonZeroU16) -> Self {
        self.prefetch = prefetch;
        self
    }

    /// Sets the limits on requests and handlers. The server's own queue is that of these options,
    /// whatever the policy says.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self.policy.own_queue = self.queue.name.clone();
        self
    }

    fn default_prefetch(concurrency: NonZeroUsize) -> NonZeroU16 {
        let twice = concurrency.get().saturating_mul(2).max(64);
        u16::try_from(twice)
            .ok()
            .and_then(NonZeroU16::new)
            .unwrap_or(NonZeroU16::MAX)
    }
}

/// How a drain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// What became of all deliveries, up to the end of the drain.
    pub stats: Stats,
    /// Requests that were still at work when the time was up. They are delivered again, to another
    /// worker, when the transport closes.
    pub unfinished: usize,
}

impl DrainReport {
    pub(crate) const fn new(stats: Stats, unfinished: usize) -> Self {
        Self { stats, unfinished }
    }
}
