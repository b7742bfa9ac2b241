//! Adapters: a transport of one face behind the other.
//!
//! Both are transports like any other, so a service, a client and the conformance suite cannot tell
//! them from native ones. Stacked on each other they still are, only slower.

mod block_on;
mod connect;
mod offload;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use self::block_on::BlockOn;
pub use self::connect::{BlockOnConnector, OffloadConnector};
pub use self::offload::Offload;

/// What the inner transport may take to let go of our threads once it was told to: the bound that
/// the contract sets on `close`.
const GRACE: Duration = Duration::from_secs(2);

/// Locks, whatever a thread that panicked may have left: no lock of ours is held while foreign code
/// runs, so what it guards is whole.
fn lock<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
