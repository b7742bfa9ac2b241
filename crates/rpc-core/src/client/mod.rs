//! The async client. Its blocking twin is [`blocking::Client`](crate::blocking::Client); what is
//! the same on both faces lives in the modules below, once.
//!
//! A [`Core`] is a client without the I/O: options, the table of open calls, the link. A [`Run`] is
//! one call with its attempts, each of them an `OpenCall`. What the faces add is how to wait,
//! and the tenant that lives on each transport: it has an inbox there, and feeds the table from it.

mod call_options;
mod core;
#[cfg(feature = "tokio")]
mod driver;
mod latch;
mod open_call;
mod options;
mod run;
mod stats;
mod stub;
mod table;

use std::time::Duration;

pub use self::call_options::CallOptions;
pub(crate) use self::core::{Carrying, Core, Receiving, ended};
#[cfg(feature = "tokio")]
pub use self::driver::Client;
#[cfg(feature = "blocking")]
pub(crate) use self::open_call::OpenCall;
pub use self::options::{ClientOptions, WhenBlocked};
pub(crate) use self::run::{Run, blocked};
pub use self::stats::{CallStats, ClientStats};
pub(crate) use self::stub::Stub;

/// How long a client that is closed waits for its reply address to be given up, and for workers to be
/// told.
pub(crate) const GIVE_UP: Duration = Duration::from_secs(1);
