//! Clients and servers of either face on any transport, as scenarios use them.
//!
//! Everything here is made by a connector and supervised: what happens when a connection is lost is
//! the matter of the framework under test, and nothing here helps it.

mod caller;
mod desk;
mod dial;
mod serving;
mod stuck;

pub(crate) use self::caller::Caller;
pub use self::caller::{CallerOptions, Session, quick_backoff};
pub use self::desk::Desk;
pub use self::dial::{raw, raw_async, raw_blocking};
pub use self::serving::{QueueChoice, Serving, ServingOptions};
pub use self::stuck::{StuckBroker, Verb};
