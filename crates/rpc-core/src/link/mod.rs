//! What outlives a connection: the link of a client or a server, and who makes its transports.
//!
//! The machine is [`Link`](rpc_proto::link::Link). [`LinkCell`] is that machine behind a lock, for
//! the owner to look at and the supervisor to drive. A [`Tenant`] is what lives on each transport in
//! turn: the client with its inbox, the server with its consumers.
//!
//! ```text
//!  supervise: dial ─▶ move_in ─▶ arrive ─▶ stay … ended ─▶ depart ─▶ wait ─▶ dial …
//! ```

mod cell;
#[cfg(feature = "tokio")]
mod supervise;

use std::time::Duration;

pub(crate) use self::cell::{LinkCell, Whose};
#[cfg(feature = "tokio")]
pub(crate) use self::supervise::{Tenant, occupy, supervise};

/// How long it may take to make a transport and to set up on it what belongs there. Transports bound
/// each of their verbs themselves; this is for one that does not.
pub(crate) const DIAL_LIMIT: Duration = Duration::from_secs(30);

/// How long a transport may take to close. After that it is left alone: its own clock, or the end of
/// the process, does the rest.
pub(crate) const CLOSE_LIMIT: Duration = Duration::from_secs(3);
