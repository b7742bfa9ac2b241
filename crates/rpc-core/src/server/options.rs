//! How a server serves: which queue, how many requests at once, for how long.

use std::num::{NonZeroU16, NonZeroUsize};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rpc_proto::link::{Backoff, Link};
use rpc_proto::server::{Policy, Quarantine, Stats};

use crate::link::{LinkCell, Whose};
use crate::observe::Observers;
use crate::{Misdeclared, Observer, QueueKind, QueueSpec, ShortString};

/// How a server serves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerOptions {
    /// How a server that makes its own connections comes back after it has lost one.
    pub backoff: Backoff,
    /// Handlers that run at once. The cores of the machine when nothing is said.
    pub concurrency: NonZeroUsize,
    /// Whether to open an inbox of its own, where callers that give up cancel their requests. A server
    /// that may not open one does without.
    pub notices: bool,
    /// Requests taken from the queue at once: those that run, those whose reply is on its way, and
    /// those that wait for their turn. Twice the concurrency and at least 64 when nothing is said,
    /// which keeps quick handlers busy. For slow ones say less: what waits here cannot be taken by
    /// an idle worker.
    pub prefetch: NonZeroU16,
    /// The queue.
    pub queue: QueueSpec,
    /// Limits on requests and handlers.
    pub policy: Policy,
    /// How long a reply may take to be confirmed before the request goes back into the queue; and, on
    /// the async face, an acknowledgement to be handed over before the transport is given up. On the
    /// blocking face the transport says itself when that has taken too long.
    pub settle_timeout: Duration,
    pub(crate) observer: Observers,
    /// The quarantine queue as it is declared.
    pub(crate) quarantine: Option<QueueSpec>,
}

impl ServerOptions {
    /// The link of a server with these options.
    pub(crate) fn link(&self, link: Link) -> Arc<LinkCell> {
        let whose = Whose {
            role: "server",
            queue: self.queue.name.clone(),
        };
        LinkCell::new(link, self.observer.0.clone(), whose)
    }

    /// A server of this queue, which is declared first.
    ///
    /// One of a [quorum](QueueSpec::quorum) queue with dead letters has a
    /// [quarantine](Self::with_quarantine) of [`POISON_LIMIT`](Self::POISON_LIMIT), unless its name is
    /// too long for that; [`without_quarantine`](Self::without_quarantine) takes it away.
    #[must_use]
    pub fn new(queue: QueueSpec) -> Self {
        let policy = Policy::new(queue.name.clone());
        let concurrency = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let isolates = queue.kind == QueueKind::Quorum && queue.has_dead_letters();
        let options = Self {
            backoff: Backoff::default(),
            concurrency,
            notices: true,
            observer: Observers::default(),
            quarantine: None,
            prefetch: Self::default_prefetch(concurrency),
            queue,
            policy,
            settle_timeout: Duration::from_secs(10),
        };
        if !isolates {
            return options;
        }
        let without = options.clone();
        options
            .with_quarantine(Self::POISON_LIMIT)
            .unwrap_or(without)
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
    /// whatever the policy says, and so is its quarantine where the policy has none.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        let quarantine = self.policy.quarantine.take();
        self.policy = policy;
        self.policy.own_queue = self.queue.name.clone();
        match self.policy.quarantine {
            Some(_) => self.quarantine = None,
            None => self.policy.quarantine = quarantine,
        }
        self
    }

    /// How often a request may end the worker that takes it from quarantine when nothing else is said.
    pub const POISON_LIMIT: u32 = 3;

    /// Runs requests that may have ended a worker's process one at a time, from a queue of their own:
    /// the name of the server's with `.quarantine` behind it, declared together with it and of the
    /// same kind. One that was delivered there `limit` times is answered
    /// [`Poison`](crate::Reason::Poison), and goes where the dead letters of the server's queue go:
    /// with `rejected` as its `x-first-death-reason`, and the quarantine as `x-first-death-queue`.
    ///
    /// That goes for everything that is delivered again, whether its worker died, lost its connection
    /// or handed it back: it waits for its turn, and while it runs its worker begins no other request,
    /// for a second at the most.
    ///
    /// The queue must be one that counts deliveries: [`QueueSpec::quorum`].
    ///
    /// # Errors
    ///
    /// [`Misdeclared`] when the name would be too long.
    pub fn with_quarantine(mut self, limit: u32) -> Result<Self, Misdeclared> {
        let name = ShortString::new(format!("{}{QUARANTINE}", self.queue.name))?;
        let mut spec = QueueSpec::new(name.clone(), self.queue.kind);
        if let Some(dead) = self.queue.dead_letter_queue()? {
            let kept = dead.max_length().unwrap_or(QueueSpec::DEAD_LENGTH);
            spec = spec
                .with_dead_letter_to(dead.name)
                .with_dead_letters_kept(kept);
        }
        if let Some(length) = self.queue.max_length() {
            spec = spec.with_max_length(length);
        }
        if self.queue.kind == QueueKind::Quorum {
            // Where the broker gives up first, the caller is not told.
            spec = spec.with_delivery_limit(limit.saturating_add(QueueSpec::DELIVERY_LIMIT));
        }
        self.quarantine = Some(spec);
        self.policy.quarantine = Some(Quarantine::new(name, limit));
        Ok(self)
    }

    /// Runs all requests alike, those that come again too. One that ends each worker that takes it
    /// goes on doing so, up to the delivery limit of its queue, if that has one.
    #[must_use]
    pub fn without_quarantine(mut self) -> Self {
        self.quarantine = None;
        self.policy.quarantine = None;
        self
    }

    /// Tells this observer what happens.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<impl Observer>) -> Self {
        self.observer = Observers(Some(observer));
        self
    }

    /// Sets how a server that makes its own connections comes back after it has lost one.
    #[must_use]
    pub const fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// The quarantine queue, if there is one. One that only the policy names must be there.
    pub(crate) fn quarantine_queue(&self) -> Option<QueueSpec> {
        let Quarantine { queue, .. } = self.policy.quarantine.as_ref()?;
        let passive = || QueueSpec::new(queue.clone(), QueueKind::Passive);
        Some(self.quarantine.clone().unwrap_or_else(passive))
    }

    fn default_prefetch(concurrency: NonZeroUsize) -> NonZeroU16 {
        let twice = concurrency.get().saturating_mul(2).max(64);
        u16::try_from(twice)
            .ok()
            .and_then(NonZeroU16::new)
            .unwrap_or(NonZeroU16::MAX)
    }
}

/// How the name of the quarantine queue ends.
const QUARANTINE: &str = ".quarantine";

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

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: ShortString = ShortString::from_static("numbers");

    #[test]
    fn a_quorum_queue_with_dead_letters_has_a_quarantine_and_no_other() {
        let options = ServerOptions::new(QueueSpec::quorum(NAME));
        let queue = options.quarantine_queue().unwrap();
        assert_eq!(queue.name, "numbers.quarantine");
        assert_eq!(
            (queue.kind, queue.delivery_limit()),
            (QueueKind::Quorum, Some(23))
        );
        let dead = queue.dead_letter_queue().unwrap();
        assert_eq!(dead, options.queue.dead_letter_queue().unwrap());
        let limit = options.policy.quarantine.unwrap().limit;
        assert_eq!(limit, ServerOptions::POISON_LIMIT);
        for plain in [
            QueueSpec::durable(NAME).with_dead_letter(),
            QueueSpec::quorum(NAME).without_dead_letter(),
            QueueSpec::new(NAME, QueueKind::Quorum),
            QueueSpec::new(NAME, QueueKind::Passive),
            QueueSpec::quorum(ShortString::new("x".repeat(250)).unwrap()),
        ] {
            assert_eq!(ServerOptions::new(plain).quarantine_queue(), None);
        }
    }

    #[test]
    fn a_quarantine_agrees_with_its_queue_on_how_many_dead_letters_are_kept() {
        let spec = QueueSpec::quorum(NAME).with_dead_letters_kept(7);
        let queue = ServerOptions::new(spec.clone()).quarantine_queue().unwrap();
        let dead = queue.dead_letter_queue().unwrap().unwrap();
        assert_eq!(dead.max_length(), Some(7));
        assert!(dead.keeps_newest());
        assert_eq!(Some(dead), spec.dead_letter_queue().unwrap());
    }

    #[test]
    fn a_quarantine_can_be_done_without_and_a_policy_changes_nothing_about_it() {
        let options = ServerOptions::new(QueueSpec::quorum(NAME));
        let policy = Policy::new(NAME);
        let kept = options.clone().with_policy(policy.clone());
        assert!(kept.quarantine_queue().is_some());
        let without = options.without_quarantine();
        assert_eq!(without.quarantine_queue(), None);
        assert_eq!(without.policy.quarantine, None);
        assert_eq!(without.with_policy(policy).quarantine_queue(), None);
    }
}
