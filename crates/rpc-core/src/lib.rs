//! RPC over a message broker, with the broker client as an interchangeable part.
//!
//! Write a service once, as a [`Router`] of plain functions. Serve it with a [`Server`] and call it
//! with a [`Client`], over any [`Transport`]: RabbitMQ through an async or a blocking client
//! library, or a broker inside the process. The blocking face in [`blocking`] has the same nouns
//! with threads in place of tasks.
//!
//! ```
//! use rpc_core::{Client, ClientOptions, QueueSpec, Router, Server, ServerOptions};
//! use rpc_core::ShortString;
//! use transport_memory::MemoryTransport;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let transport = std::sync::Arc::new(MemoryTransport::new());
//! let queue = ShortString::from_static("numbers");
//!
//! let router = Router::new().handle("double", |n: u64| Ok(n * 2));
//! let spec = QueueSpec::durable(queue.clone());
//! let server = Server::start(transport.clone(), router, ServerOptions::new(spec)).await?;
//!
//! let client = Client::new(transport, ClientOptions::new(queue)).await?;
//! let doubled: u64 = client.call("double", &21).await?;
//! assert_eq!(doubled, 42);
//! # server.drain(std::time::Duration::from_secs(1)).await;
//! # Ok(())
//! # }
//! ```
//!
//! # What a call promises
//!
//! It ends by its deadline, which it always has, and a [`CallError`] says besides its code whether
//! the handler ran: *executed*, *maybe executed* or *not executed*. A call to a queue that is not
//! there ends in one round trip, not at the deadline. A call that is dropped gives its slot back. A
//! request is acknowledged only after its reply is confirmed, so a worker that dies loses none;
//! one may run twice, and [`proto::server::Request::redelivered`] tells a [`Service`] when that is
//! possible.
//!
//! All of this is decided in [`proto`], by machines that do no I/O; what is here drives them.
//!
//! # Features
//!
//! | feature | on by default | what for |
//! |---|---|---|
//! | `tokio` | yes | the async face |
//! | `blocking` | yes | the blocking face; without `tokio` no async runtime is in the tree |
//! | `text`, `json` | yes | codecs |
//! | `bincode` | no | a codec; its library is no longer maintained |
//!
//! A feature changes what there is, never how it behaves.

#[cfg(feature = "blocking")]
pub mod adapt;
#[cfg(feature = "blocking")]
pub mod blocking;
#[cfg(any(feature = "tokio", feature = "blocking"))]
mod client;
#[cfg(any(feature = "tokio", feature = "blocking"))]
mod clock;
pub mod codec;
mod confirm;
#[cfg(feature = "tokio")]
mod connector;
mod context;
#[cfg(any(feature = "tokio", feature = "blocking"))]
mod link;
mod observe;
mod options;
pub mod park;
#[cfg(any(feature = "tokio", feature = "blocking"))]
mod race;
mod router;
#[cfg(any(feature = "tokio", feature = "blocking"))]
mod server;
mod service;
#[cfg(feature = "tokio")]
mod transport;

pub use rpc_proto as proto;
pub use rpc_proto::client::RetryPolicy;
pub use rpc_proto::link::{Backoff, Generation, LinkState};
pub use rpc_proto::{
    AckToken, Address, CallError, Cancellation, Certainty, Code, ConsumerId, Delivery,
    DeliveryMode, ErrorKind, Expiration, HeaderValue, Headers, Message, Origin, Pushback, Reason,
    ShortString, Status, TransportError,
};

#[cfg(feature = "tokio")]
pub use self::client::Client;
#[cfg(any(feature = "tokio", feature = "blocking"))]
pub use self::client::{CallOptions, CallStats, ClientOptions, ClientStats, WhenBlocked};
pub use self::confirm::{Confirm, Verdict};
#[cfg(feature = "tokio")]
pub use self::connector::{ConnectWith, Connector, Erased};
pub use self::context::Context;
pub use self::observe::{CallEvent, Observer, RequestEvent};
pub use self::options::{ConsumeOptions, Fate, Inbox, Misdeclared, QueueKind, QueueSpec, Source};
pub use self::router::Router;
#[cfg(feature = "tokio")]
pub use self::server::Server;
#[cfg(any(feature = "tokio", feature = "blocking"))]
pub use self::server::{DrainReport, ServerOptions};
pub use self::service::{Answer, Service, Work};
#[cfg(feature = "tokio")]
pub use self::transport::{Consumer, Transport};
