//! Requests that run now, and the further deliveries of them that wait for the same answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{DedupKey, Digest, Kept};
use crate::mutants::{Mutant, is};
use crate::server::envelope::Envelope;
use crate::server::shared::Shared;

/// The requests that run, each with the deliveries that joined it.
#[derive(Debug, Default)]
pub(in crate::server) struct Duplicates(Mutex<HashMap<DedupKey, Run>>);

/// A request that runs.
#[derive(Debug)]
struct Run {
    request: Digest,
    joined: Vec<Envelope>,
}

/// What a request is known by: its key, and what is to be equal then.
#[derive(Clone, Debug)]
pub(in crate::server) struct Identity {
    pub(in crate::server) key: DedupKey,
    pub(in crate::server) request: Digest,
}

/// What a delivery finds when it asks for its request.
#[derive(Debug)]
pub(in crate::server) enum Entry {
    /// It has been answered.
    Done(Envelope, Kept),
    /// It runs, and this delivery is answered with it.
    Joined,
    /// It is new.
    New(Envelope),
    /// Its key is that of another request.
    Reused(Envelope),
}

impl Duplicates {
    fn table(&self) -> MutexGuard<'_, HashMap<DedupKey, Run>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the lock is free.
    #[cfg(test)]
    pub(in crate::server) fn is_free(&self) -> bool {
        self.0.try_lock().is_ok()
    }

    /// Whether somebody else waits for the answer to a request that runs.
    pub(in crate::server) fn is_joined(&self, key: &DedupKey) -> bool {
        self.table()
            .get(key)
            .is_some_and(|run| !run.joined.is_empty())
    }
}

/// A request that runs, under its key. Dropped, it runs no more.
#[derive(Debug)]
pub(in crate::server) struct Claim {
    shared: Arc<Shared>,
    identity: Identity,
    /// It runs no more, and the key may be somebody else's by now.
    ended: bool,
}

impl Claim {
    /// Looks for the request of a delivery; where it is new, and `claim` says so, it runs from now
    /// on.
    pub(in crate::server) fn enter(
        shared: &Arc<Shared>,
        identity: &Identity,
        envelope: Envelope,
        now: Instant,
        claim: bool,
    ) -> (Entry, Option<Self>) {
        let Some(store) = &shared.policy.dedup else {
            return (Entry::New(envelope), None);
        };
        let Identity { key, request } = identity;
        let mut running = Some(shared.duplicates.table());
        let run = running.as_mut().and_then(|running| running.get_mut(key));
        if let Some(run) = run.filter(|_| !is(Mutant::DedupForgetsRunning)) {
            if run.request != *request {
                return (Entry::Reused(envelope), None);
            }
            run.joined.push(envelope);
            shared.counters.joined.add();
            return (Entry::Joined, None);
        }
        if !claim {
            // One that begins now is found when this one has its turn, and claims it.
            running = None;
        }
        if let Some(kept) = store.find(key, now) {
            if kept.request != *request {
                return (Entry::Reused(envelope), None);
            }
            shared.counters.replayed.add();
            return (Entry::Done(envelope, kept), None);
        }
        let claimed = running.map(|mut running| {
            let run = Run {
                request: *request,
                joined: Vec::new(),
            };
            running.insert(key.clone(), run);
            Self {
                shared: Arc::clone(shared),
                identity: identity.clone(),
                ended: false,
            }
        });
        (Entry::New(envelope), claimed)
    }

    /// It has ended: keeps the answer, if it is one to keep, and returns who else waits for it.
    pub(in crate::server) fn end(mut self, answer: Option<Kept>, now: Instant) -> Vec<Envelope> {
        let Identity { key, request } = &self.identity;
        // Before it is taken out: in between it is found running and done, never neither.
        if let (Some(store), Some(mut answer)) = (&self.shared.policy.dedup, answer) {
            answer.request = *request;
            store.keep(key.clone(), answer, now);
        }
        let run = self.shared.duplicates.table().remove(key);
        self.ended = true;
        let run = run.filter(|_| !is(Mutant::JoinedIsForgotten));
        run.map_or_else(Vec::new, |run| run.joined)
    }

    pub(in crate::server) const fn key(&self) -> &DedupKey {
        &self.identity.key
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Whoever joined is delivered again with the end of its transport, like the one that ran.
        let joined = self.shared.duplicates.table().remove(&self.identity.key);
        drop(joined);
    }
}
