//! Hooks for metrics and logs: what happens is told, and nothing waits for the listener.

use crate::proto::link::LinkState;

/// Told what happens to a client or a server, as it happens.
///
/// Every method does nothing by default. They are called on the task or thread on which it happened,
/// with no lock held: return soon, and do not panic.
pub trait Observer: Send + Sync + 'static {
    /// The connection came, went, or failed to come.
    fn link_changed(&self, state: &LinkState) {
        let _ = state;
    }
}
