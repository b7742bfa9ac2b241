//! What a server has once, over all its connections: where consumers, turns and cancellations come
//! from, and what is counted.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::cancels::Registered;
use super::shared::Shared;
use super::{Forward, Intake, Job, Part, Policy, Settlement, Stats, Turn};
use crate::mutants::{Mutant, is};
use crate::{Message, ShortString, wire};

/// Takes deliveries in, for one server over all its connections.
#[derive(Debug)]
pub struct Acceptor {
    shared: Arc<Shared>,
}

/// Which of a server's queues a consumer receives from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a driver consumes both")]
pub enum Lane {
    /// Requests that may have ended a worker's process, to be taken one at a time.
    Quarantine,
    /// All others.
    Work,
}

/// A delivery, sorted.
#[derive(Debug)]
#[must_use = "until it is carried out, nobody is answered and nothing is acknowledged"]
#[expect(clippy::exhaustive_enums, reason = "a driver must handle all of them")]
pub enum Accepted {
    /// A request to pass on to the quarantine queue.
    Forward(Box<Forward>),
    /// A request to run.
    Job(Job),
    /// A request that runs already, and is answered together with it.
    Joined,
    /// Something to settle without running anything.
    Settlement(Settlement),
}

impl Acceptor {
    /// An acceptor under this policy.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            shared: Shared::new(policy),
        }
    }

    /// Tells how many handlers run at once: a suspect that has waited for its turn long enough is one
    /// of them.
    #[must_use]
    pub fn with_concurrency(self, handlers: usize) -> Self {
        self.shared.isolation.limit(handlers);
        self
    }

    pub(super) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Opens an intake for a consumer.
    #[must_use]
    pub fn intake(&self, lane: Lane) -> Intake {
        Intake::new(&self.shared, lane)
    }

    /// The queue where callers may cancel requests now, if there is one: an inbox of this server.
    pub fn set_control(&self, inbox: Option<ShortString>) {
        *self.shared.control() = inbox;
    }

    /// A message has come to the inbox of [`set_control`](Self::set_control). Tells whether it has
    /// cancelled a request; any other is none of ours, or too late.
    pub fn handle_cancel(&self, message: &Message) -> bool {
        message.kind.as_ref() == Some(&wire::CANCEL_TYPE)
            && message
                .correlation_id
                .as_ref()
                .is_some_and(|id| Registered::cancel(&self.shared, id))
    }

    /// Lets no further request begin: those that have not are handed back when their turn comes.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
        self.shared.isolation.drain();
    }

    /// The turn of what was just accepted, where it must wait for one: not that of ordinary work,
    /// which [begins](Self::work) later. To be kept until the delivery is settled.
    #[must_use]
    pub fn arrive(&self, accepted: &Accepted) -> Option<Turn> {
        match accepted {
            Accepted::Forward(_) => self.turn(Part::Forward),
            Accepted::Job(job) if job.lane == Lane::Quarantine => self.turn(Part::Suspect),
            Accepted::Job(_) | Accepted::Joined | Accepted::Settlement(_) => None,
        }
    }

    /// The turn of ordinary work that is about to begin, to be kept until its handler has ended. None
    /// is needed where there is no quarantine.
    #[must_use]
    pub fn work(&self) -> Option<Turn> {
        self.turn(Part::Work)
    }

    fn turn(&self, part: Part) -> Option<Turn> {
        let isolates = self.isolates();
        isolates.then(|| self.shared.isolation.arrive(part))
    }

    /// Whether there is a quarantine, and something to wait for.
    #[must_use]
    pub fn isolates(&self) -> bool {
        self.shared.policy.quarantine.is_some()
    }

    /// Whether no further request begins.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire)
    }

    /// A handler has not come back by its deadline and cannot be stopped: gives it up, so that
    /// another one may run in its place. `None` when too many are given up already; then its place
    /// is taken until it comes back.
    #[must_use]
    pub fn give_up(&self) -> Option<GivenUp> {
        self.shared.counters.stuck.add();
        let limit = self.shared.policy.max_stuck;
        self.shared
            .stuck
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |stuck| {
                (stuck < limit).then_some(stuck + 1)
            })
            .ok()
            .map(|_| GivenUp(Arc::clone(&self.shared)))
    }

    /// Handlers that were given up, and have not come back yet.
    #[must_use]
    pub fn stuck(&self) -> usize {
        self.shared.stuck.load(Ordering::Acquire)
    }

    /// What became of all deliveries so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.counters.read()
    }
}

/// A handler that was given up, to be dropped when it comes back.
#[derive(Debug)]
#[must_use = "it counts as stuck until this is dropped"]
pub struct GivenUp(Arc<Shared>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        let back = usize::from(!is(Mutant::StuckForEver));
        self.0.stuck.fetch_sub(back, Ordering::AcqRel);
    }
}
