//! A message broker inside the process: the default transport, and the reference implementation of
//! the contract.
//!
//! ```
//! use std::time::{Duration, Instant};
//!
//! # #[cfg(feature = "blocking")] {
//! use rpc_core::blocking::Transport;
//! use rpc_core::{Address, ConsumeOptions, Inbox, Message};
//! use transport_memory::MemoryBroker;
//!
//! let broker = MemoryBroker::new();
//! let (here, there) = (broker.connect(), broker.connect());
//!
//! let mut inbox = here.consume(ConsumeOptions::inbox(Inbox::Exclusive))?;
//! let deadline = Instant::now() + Duration::from_secs(1);
//! there
//!     .publish(&Address::queue(inbox.queue().clone()), Message::new("42"), deadline)?
//!     .wait(deadline)?;
//! assert_eq!(inbox.recv()?.expect("the inbox is open").message.body, "42");
//! # }
//! # Ok::<(), rpc_core::TransportError>(())
//! ```
//!
//! Every [`MemoryTransport`] is one connection to a [`MemoryBroker`]; transports of one broker see
//! the same queues. Each implements both faces, [`rpc_core::Transport`] (feature `tokio`) and
//! [`rpc_core::blocking::Transport`] (feature `blocking`), and consumers of either compete for the
//! same messages. The async face needs no runtime: it works under any executor.
//!
//! # What it does as RabbitMQ does
//!
//! * Competing consumers take turns; each holds at most its prefetch of unsettled deliveries.
//! * What comes back (requeued, cancelled before it was received, connection lost) takes its old
//!   place in the queue, is marked as redelivered, and keeps its time of expiry.
//! * A message whose `expiration` has passed is dropped when it is at the head of its queue. One
//!   that waits in the buffer of a consumer is delivered late, as by RabbitMQ.
//! * A [`Transient`](rpc_core::QueueKind::Transient) queue goes with its last consumer.
//! * A full queue refuses what is published to it, as one declared with `reject-publish` does, or drops
//!   its oldest message where its newest are to be kept.
//! * What a queue with dead letters gives up (discarded, expired, over the delivery limit) goes to
//!   the queue for them, with the cause in the header `x-first-death-reason`, and loses its expiration.
//! * A message of a quorum queue that comes back says how often it has in `x-delivery-count`.
//! * Names that begin with `amq.` cannot be declared.
//!
//! # What differs
//!
//! * Nothing outlives the process. [`MemoryBroker::crash`] shows what would be left.
//! * There is the default exchange and no other. The confirm of a publish to a named one resolves
//!   to [`NotFound`](rpc_core::ErrorKind::NotFound), certainly not executed, and the transport
//!   stays usable.
//! * A verdict is known when `publish` returns, so nothing waits for its deadline, unless publishers
//!   are [blocked](MemoryBroker::block_publishers).
//! * A dead letter has no `x-death`: headers that nest are not carried.
//! * An inbox holds at most as many messages as a queue may; RabbitMQ would go on.

// Without a face nobody calls the verbs. Such a build is of no use, but it is no fault either.
#![cfg_attr(
    not(any(feature = "tokio", feature = "blocking")),
    allow(dead_code, unused_imports)
)]

#[cfg(feature = "blocking")]
mod blocking;
mod broker;
mod connection;
mod consumer;
mod effects;
mod handle;
mod held;
#[cfg(test)]
mod model;
mod queue;
mod refusal;
mod subscriber;
#[cfg(feature = "tokio")]
mod transport;

pub use self::connection::MemoryTransport;
pub use self::handle::MemoryBroker;
