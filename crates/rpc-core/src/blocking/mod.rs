//! The blocking face: the same nouns as the async one, with threads and without a runtime.

mod client;
mod server;
mod transport;

pub use self::client::Client;
pub use self::server::Server;
pub use self::transport::{Consumer, Transport};
