//! Requests whose callers know where to cancel them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::dedup::DedupKey;
use super::shared::Shared;
use crate::mutants::{Mutant, is};
use crate::{Cancellation, ShortString};

/// Running requests by correlation id: those of which the caller was told, and no others. What ends
/// quickly is never in here.
#[derive(Debug, Default)]
pub(super) struct Cancels(Mutex<HashMap<ShortString, Known>>);

#[derive(Debug)]
struct Known {
    cancellation: Cancellation,
    /// Set when it was the caller who cancelled, and not the clock.
    given_up: Arc<AtomicBool>,
    key: Option<DedupKey>,
}

impl Cancels {
    fn table(&self) -> MutexGuard<'_, HashMap<ShortString, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that can be cancelled while this lives.
#[derive(Debug)]
pub(super) struct Registered {
    shared: Arc<Shared>,
    id: ShortString,
    cancellation: Cancellation,
    given_up: Arc<AtomicBool>,
}

impl Registered {
    pub(super) fn new(
        shared: &Arc<Shared>,
        id: ShortString,
        cancellation: &Cancellation,
        key: Option<DedupKey>,
    ) -> Self {
        let given_up = Arc::default();
        let known = Known {
            cancellation: cancellation.clone(),
            given_up: Arc::clone(&given_up),
            key,
        };
        shared.cancels.table().insert(id.clone(), known);
        Self {
            shared: Arc::clone(shared),
            id,
            cancellation: cancellation.clone(),
            given_up,
        }
    }

    /// Whether the caller has cancelled it.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    /// Cancels the request of this id, unless somebody else awaits its answer too.
    pub(super) fn cancel(shared: &Shared, id: &ShortString) -> bool {
        let mut table = shared.cancels.table();
        let other = is(Mutant::CancelStopsAnother).then(|| table.keys().min().cloned());
        let known = table.remove(other.flatten().as_ref().unwrap_or(id));
        drop(table);
        let Some(known) = known else {
            return false;
        };
        if known
            .key
            .is_some_and(|key| shared.duplicates.is_joined(&key))
        {
            return false;
        }
        known.given_up.store(true, Ordering::Release);
        known.cancellation.cancel();
        true
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut table = self.shared.cancels.table();
        // A plain peer may have used the id again; then it is not ours any more.
        if table
            .get(&self.id)
            .is_some_and(|known| known.cancellation.is(&self.cancellation))
        {
            table.remove(&self.id);
        }
    }
}
