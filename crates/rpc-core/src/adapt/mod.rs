//! Adapters: a transport of one face behind the other, and a blocking one under a clock of ours.
//!
//! All are transports like any other, so a service, a client and the conformance suite cannot tell
//! them from native ones. Stacked on each other they still are, only slower.

#[cfg(feature = "tokio")]
mod block_on;
#[cfg(feature = "tokio")]
mod connect;
mod guarded;
mod hands;
#[cfg(feature = "tokio")]
mod offload;
#[cfg(test)]
#[cfg(feature = "tokio")]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[cfg(feature = "tokio")]
pub use self::block_on::BlockOn;
#[cfg(feature = "tokio")]
pub use self::connect::{BlockOnConnector, OffloadConnector};
pub use self::guarded::Guarded;
#[cfg(feature = "tokio")]
pub use self::offload::Offload;

/// What the inner transport may take to let go of our threads once it was told to: the bound that
/// the contract sets on `close`.
const GRACE: Duration = Duration::from_secs(2);

/// How long an adapter takes to close at most: a little more, so that a transport which keeps the
/// contract is never cut short.
const CLOSE: Duration = Duration::from_millis(2_500);

/// How long any other verb takes at most, for the same reason a little more than ten seconds.
const VERB: Duration = Duration::from_secs(11);

/// Locks, whatever a thread that panicked may have left: no lock of ours is held while foreign code
/// runs, so what it guards is whole.
fn lock<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
