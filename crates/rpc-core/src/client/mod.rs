//! The async client. Its blocking twin is [`blocking::Client`](crate::blocking::Client); what is
//! the same on both faces lives in the modules below, once.

#[cfg(feature = "tokio")]
mod driver;
mod open_call;
mod options;
mod stub;

use std::time::Duration;

#[cfg(feature = "tokio")]
pub use self::driver::Client;
pub(crate) use self::open_call::{Inlet, OpenCall, Table};
pub use self::options::{CallOptions, ClientOptions};
pub(crate) use self::stub::Stub;

/// How long a client that is closed waits for its reply address to be given up.
pub(crate) const GIVE_UP: Duration = Duration::from_secs(1);
