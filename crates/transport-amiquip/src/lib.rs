//! RPC transport to RabbitMQ through amiquip, for programs of plain threads.
//!
//! # Legacy
//!
//! amiquip is **unmaintained**: its last release is of January 2022. It works, it is the only
//! blocking AMQP client there is, and this crate exists for programs that want no async runtime in
//! their tree. Everyone else is better off with the lapin transport. What that means:
//!
//! * Two advisories are in its dependency tree: RUSTSEC-2024-0421 (`idna` 0.1.5, by way of `url` 1.7;
//!   only reached when amiquip parses a URL, which it is never asked to) and RUSTSEC-2020-0016
//!   (`net2`, unmaintained). `nom` 4 makes the compiler warn that a future version may refuse it.
//! * It is contained: no type of it is in a public signature, nothing but this crate depends on it,
//!   its release is pinned, and every wait of ours on it stands under a watchdog that owns a second
//!   handle of the socket. Whatever goes wrong on a connection ends the transport; the next one has
//!   new connections and new threads.
//! * No TLS: it only knows OpenSSL's, which is not built. `amqps://` is refused.
//! * It would make room for a frame of any length, from whatever answers at the port. So each frame is
//!   checked before the library sees it: 128 KiB at most, which is also what is asked for when the URL
//!   names no `frame_max`, or that if it is more.
//! * A peer that sends text which is not UTF-8 in a header or property, or nests headers some
//!   thousands deep, ends the connection or the process: amiquip's parser runs on its I/O thread, out
//!   of our reach. A work queue that strangers can publish to wants another transport.
//! * It logs through the `log` crate: the login with its password at debug level, bodies at trace
//!   level. The default feature `redact-log` compiles these levels of `log` (not of `tracing`) out
//!   of the whole program. Who turns it off must filter the target `amiquip` at `info`.
//!
//! # How it works
//!
//! Two connections, since a broker that blocks publishers stops reading from them, and acks must not
//! wait behind that: one consumes and acknowledges, one publishes. Either one's death is the other's.
//!
//! | thread | of | does |
//! |---|---|---|
//! | `amq-publisher` | each transport | owns the publishing channel; sends what has gathered in one go, matches confirms and returns |
//! | `amq-consumer` | each consumer | owns its channel; joins acknowledgements that have no gap into one |
//! | `amiquip-io` and a timer | each connection | amiquip's own |
//! | `amqp-watchdog` | a verb under way | cuts the socket when its time is up |
//!
//! `recv` reads amiquip's own queue, so that a delivery crosses no thread of ours. It follows that
//! [`received_at`](rpc_core::Delivery::received_at) is when `recv` took it: what it waited in the
//! library's queue, which holds `prefetch` messages at most, cannot be known. Choose a prefetch near
//! the number of workers.
//!
//! While the broker blocks publishers, messages are held here and fail at their deadlines as
//! *unsent*. Beyond a thousand they queue for a place first, and beyond two thousand `publish` waits
//! until the deadline for room. A direct inbox publishes on the connection that consumes, where
//! nothing is held.
//!
//! What was handed to amiquip and is not written yet is bounded by frames: 128 a channel, of 128 KiB
//! at most, and about a megabyte before the socket. It is no strict budget, since the I/O thread looks
//! at its own bound only between two rounds; nor are the messages that wait for their turn counted in
//! bytes.
//!
//! # What differs from the contract
//!
//! * A message to a direct reply address is not mandatory: RabbitMQ 3.10 returns it although it
//!   has delivered it.
//! * A reply to a direct reply address is refused as [`Unsupported`](rpc_core::ErrorKind::Unsupported)
//!   and *unsent* where the broker would close the connection over one whose requester is gone, or is
//!   not known not to, unless the configuration says [`DirectReplyTo::Forced`].
//! * A transport has one direct inbox at a time: all have the same name, and what is published with
//!   it must go out on the channel of its own inbox.
//!
//! # Without confirms
//!
//! With [`Confirms::Off`] a publish resolves as it is handed over, and nothing is mandatory. A
//! message without a queue, or refused by a full one, is lost without a word.

mod connector;
mod consumer;
mod convert;
mod error;
mod feed;
mod frames;
mod held;
mod ledger;
mod life;
mod link;
mod owner;
mod publisher;
mod publishing;
mod transport;

pub use amqp_broker::{
    AmqpConfig, AmqpUrl, Confirms, DirectReplyTo, Endpoints, Timeouts, UrlError,
};

pub use self::connector::AmiquipConnector;
pub use self::transport::AmiquipTransport;

/// What a transport is made from.
pub type AmiquipConfig = AmqpConfig;
