//! What all jobs of a server share.

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::admission::Gate;
use super::cancels::Cancels;
use super::dedup::Duplicates;
use super::doubt::Doubt;
use super::isolation::Isolation;
use super::strikes::Strikes;
use super::{Counters, Policy};
use crate::mutants::{Mutant, is};
use crate::{Pushback, ShortString};

/// What all jobs of a server share. Each part has a lock of its own, held for moments.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) policy: Policy,
    pub(super) counters: Counters,
    /// Nothing further may begin.
    pub(super) draining: AtomicBool,
    /// Handlers that were given up and still hold a thread.
    pub(super) stuck: AtomicUsize,
    pub(super) cancels: Cancels,
    pub(super) doubt: Doubt,
    pub(super) duplicates: Duplicates,
    pub(super) strikes: Strikes,
    /// Whether this server was not allowed to publish when it last tried.
    pub(super) denied: AtomicBool,
    /// Of no use without a quarantine.
    pub(super) isolation: Arc<Isolation>,
    control: Mutex<Option<ShortString>>,
    gate: Mutex<Gate>,
}

impl Shared {
    pub(super) fn new(policy: Policy) -> Arc<Self> {
        Arc::new(Self {
            policy,
            counters: Counters::default(),
            draining: AtomicBool::new(false),
            stuck: AtomicUsize::new(0),
            cancels: Cancels::default(),
            doubt: Doubt::default(),
            duplicates: Duplicates::default(),
            strikes: Strikes::default(),
            denied: AtomicBool::new(false),
            isolation: Arc::new(Isolation::new()),
            control: Mutex::default(),
            gate: Mutex::default(),
        })
    }

    /// Where cancellations may be sent.
    pub(super) fn control(&self) -> MutexGuard<'_, Option<ShortString>> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this server consumes this queue: what is sent there comes back to it.
    pub(super) fn consumes(&self, queue: &ShortString) -> bool {
        let Policy {
            own_queue,
            quarantine,
            ..
        } = &self.policy;
        own_queue == queue
            || quarantine.as_ref().is_some_and(|lane| lane.queue == *queue)
            || self.control().as_ref() == Some(queue)
    }

    /// Whether a request that was delivered before is refused, because it may have been shed then: its
    /// caller has been told that it did not run, and it must stay so.
    pub(super) fn shed_again(
        &self,
        waited: Duration,
        timeout: Option<Duration>,
    ) -> Option<Pushback> {
        let (_, timeout) = (self.policy.admission?, timeout?);
        if is(Mutant::SecondShedRuns) {
            return None;
        }
        Gate::may_have_refused(waited, timeout)
    }

    /// Whether a request that has waited for so long is refused, and when it may come again.
    pub(super) fn shed(
        &self,
        now: Instant,
        waited: Duration,
        timeout: Option<Duration>,
    ) -> Option<Pushback> {
        let (admission, timeout) = (self.policy.admission?, timeout?);
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        gate.check(now, waited, timeout, admission)
    }
}
