//! RPC transport to RabbitMQ through the async client lapin.
//!
//! [`LapinTransport`] is an [`rpc_core::Transport`]. It owns two connections, one that consumes and
//! acknowledges and one that publishes, so that a bad publish or a broker that blocks publishers
//! never stops acknowledgements. lapin runs on a small runtime with a thread of its own; no handler
//! and no future of the caller ever runs there, and the futures given out here work in any executor,
//! also in a plain thread with [`rpc_core::park`].
//!
//! Threads per transport: `transport-lapin`, and two of lapin's `lapin-io-loop`. All of them are
//! gone after [`close`](rpc_core::Transport::close). Per process there is one more, started by
//! lapin's socket adapter, which idles for ever: `async-compat/tokio-1`.
//!
//! lapin's automatic recovery stays off: it hangs for ever in several ways, and
//! reconnecting is the business of `rpc-core`.
//!
//! Whoever publishes gives lapin the message in its own thread, and whoever acknowledges leaves that to
//! the consumer, which sends all at once when it has nothing more to receive. The thread of the
//! transport minds what has to wait: confirms, messages while the broker takes none, acknowledgements
//! whose consumer does not look for a millisecond.
//!
//! # What to know
//!
//! * **Returned messages.** lapin logs each one, body included, at `WARN` under the target
//!   `lapin::returned_messages`. Filter it where bodies are confidential.
//! * **Direct reply-to.** A publish *to* such an address is not mandatory: RabbitMQ 3.10 reports
//!   "no route" also for a reply that it has delivered. A reply whose requester is gone vanishes.
//!   Where a broker is not known to survive an address that is no longer valid, which may be made up
//!   by any stranger, the publish is refused with
//!   [`ErrorKind::Unsupported`](rpc_core::ErrorKind::Unsupported). A transport has one direct inbox at
//!   a time: all have the same name, and a second one would take the requests of the first.
//! * **Frame size.** Without `frame_max` in the URL, the broker's is taken (131,072 as it
//!   comes), and lapin takes two buffers of 32 frames for each of the two connections: 16 MiB of
//!   address space. A smaller one saves that, but then any peer whose own limit is larger can
//!   end this connection, by message headers that fit its frames and not ours.
//! * **TLS.** `amqps://` needs the feature `tls`.
//!
//! # Without confirms
//!
//! [`Confirms::Off`] gives up knowing that a message arrived, that nobody listens
//! ([`ErrorKind::NoRoute`](rpc_core::ErrorKind::NoRoute)) and that a full queue took it back
//! ([`ErrorKind::Refused`](rpc_core::ErrorKind::Refused)): every
//! confirm is `Ok` at once. Nothing is mandatory then either, since lapin would keep what
//! comes back in memory until it is asked for it.

mod connect;
mod connector;
mod consumer;
mod convert;
mod direct;
mod error;
mod gate;
mod home;
mod in_flight;
mod intake;
mod ledger;
mod line;
mod outlet;
mod probe;
mod publisher;
mod shared;
mod sweep;
mod transport;

pub use amqp_broker::{
    AmqpConfig, AmqpUrl, Confirms, DirectReplyTo, Endpoints, Timeouts, UrlError,
};

pub use self::connector::LapinConnector;
pub use self::transport::LapinTransport;

/// What a transport is made from.
pub type LapinConfig = AmqpConfig;
