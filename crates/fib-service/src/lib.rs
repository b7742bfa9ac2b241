//! The Fibonacci service: one method, `fib`, that no transport can be seen from.
//!
//! ```
//! use fib_service::{Index, ServiceOptions, fib, service};
//!
//! assert_eq!(fib(Index::new(30))?, 832_040);
//! assert!(fib(Index::new(187)).is_err(), "does not fit 128 bits");
//!
//! // Ready to be given to a server of either face, over any transport.
//! let router = service(ServiceOptions::default());
//! # let _ = router;
//! # Ok::<(), rpc_core::Status>(())
//! ```
//!
//! On the wire it is the service of RabbitMQ's RPC tutorial: the body `30` comes back as `832040`.
//! JSON and bincode are understood as well, each by its content type.

mod algorithm;
mod index;
mod service;

pub use self::algorithm::{Algorithm, fib};
pub use self::index::Index;
pub use self::service::{METHOD, QUEUE, ServiceOptions, service};
