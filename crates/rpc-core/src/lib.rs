//! RPC over a message broker, with the broker client as an interchangeable part.
//!
//! placeholder
#[cfg(feature = "blocking")]
pub mod blocking;
mod confirm;
mod options;
pub mod park;
#[cfg(feature = "tokio")]
mod transport;

pub use rpc_proto as proto;
pub use rpc_proto::{
    AckToken, Address, CallError, Certainty, Code, ConsumerId, Delivery, DeliveryMode, ErrorKind,
    Expiration, HeaderValue, Headers, Message, Origin, Reason, ShortString, Status, TransportError,
};

pub use self::confirm::{Confirm, Verdict};
pub use self::options::{ConsumeOptions, Fate, Inbox, QueueKind, QueueSpec, Source};
#[cfg(feature = "tokio")]
pub use self::transport::{Consumer, Transport};
