//! Requests that run now, and the further deliveries of them that wait for the same answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{DedupKey, Kept};
use crate::mutants::{Mutant, is};
use crate::server::envelope::Envelope;
use crate::server::shared::Shared;

/// The requests that run, each with the deliveries that joined it.
#[derive(Debug, Default)]
pub(in crate::server) struct Duplicates(Mutex<HashMap<DedupKey, Vec<Envelope>>>);

/// What a delivery finds when it asks for its request.
#[derive(Debug)]
pub(in crate::server) enum Entry {
    /// It has been answered.
    Done(Envelope, Kept),
    /// It runs, and this delivery is answered with it.
    Joined,
    /// It is new.
    New(Envelope),
}

impl Duplicates {
    fn table(&self) -> MutexGuard<'_, HashMap<DedupKey, Vec<Envelope>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody else waits for the answer to a request that runs.
    pub(in crate::server) fn is_joined(&self, key: &DedupKey) -> bool {
        self.table()
            .get(key)
            .is_some_and(|joined| !joined.is_empty())
    }
}

/// A request that runs, under its key. Dropped, it runs no more.
#[derive(Debug)]
pub(in crate::server) struct Claim {
    shared: Arc<Shared>,
    key: DedupKey,
    /// It runs no more, and the key may be somebody else's by now.
    ended: bool,
}

impl Claim {
    /// Looks for the request of a delivery; where it is new, and `claim` says so, it runs from now
    /// on.
    pub(in crate::server) fn enter(
        shared: &Arc<Shared>,
        key: &DedupKey,
        envelope: Envelope,
        now: Instant,
        claim: bool,
    ) -> (Entry, Option<Self>) {
        let Some(store) = &shared.policy.dedup else {
            return (Entry::New(envelope), None);
        };
        let mut running = shared.duplicates.table();
        if let Some(joined) = running
            .get_mut(key)
            .filter(|_| !is(Mutant::DedupForgetsRunning))
        {
            joined.push(envelope);
            shared.counters.joined.add();
            return (Entry::Joined, None);
        }
        // Under the lock: in between it could end, and be found neither running nor done.
        if let Some(kept) = store.find(key, now) {
            shared.counters.replayed.add();
            return (Entry::Done(envelope, kept), None);
        }
        let claimed = claim.then(|| {
            running.insert(key.clone(), Vec::new());
            Self {
                shared: Arc::clone(shared),
                key: key.clone(),
                ended: false,
            }
        });
        (Entry::New(envelope), claimed)
    }

    /// It has ended: keeps the answer, if it is one to keep, and returns who else waits for it.
    pub(in crate::server) fn end(mut self, answer: Option<Kept>, now: Instant) -> Vec<Envelope> {
        let mut running = self.shared.duplicates.table();
        if let (Some(store), Some(answer)) = (&self.shared.policy.dedup, answer) {
            store.keep(self.key.clone(), answer, now);
        }
        self.ended = true;
        let joined = running.remove(&self.key).unwrap_or_default();
        if is(Mutant::JoinedIsForgotten) {
            return Vec::new();
        }
        joined
    }

    pub(in crate::server) const fn key(&self) -> &DedupKey {
        &self.key
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Whoever joined is delivered again with the end of its transport, like the one that ran.
        let joined = self.shared.duplicates.table().remove(&self.key);
        drop(joined);
    }
}
