//! The blocking face: the same nouns as the async one, with threads and without a runtime.

mod transport;

pub use self::transport::{Consumer, Transport};
