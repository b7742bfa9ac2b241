//! The async client. Its blocking twin is [`blocking::Client`](crate::blocking::Client); what is
//! the same on both faces lives in the modules below, once.

#[cfg(feature = "tokio")]
mod driver;
mod open_call;
mod options;
mod stub;

use rpc_proto::{ErrorKind, TransportError};

#[cfg(feature = "tokio")]
pub use self::driver::Client;
pub(crate) use self::open_call::{OpenCall, Table};
pub use self::options::{CallOptions, ClientOptions};
pub(crate) use self::stub::Stub;

/// Why the calls end whose reply address was cancelled under them.
pub(crate) fn ended() -> TransportError {
    TransportError::new(ErrorKind::Closed, "rpc", "receive")
        .with_detail("the reply address was given up")
}
