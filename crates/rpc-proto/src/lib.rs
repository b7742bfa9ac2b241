//! The sans-IO core of RPC over a message broker.
//!
//! Everything that can be wrong about a remote call is decided here, by plain values that own no
//! socket, no clock, no thread and no `async`: who a reply belongs to, when a call has ended and
//! whether it ran, what an error looks like on the wire, and in which order a request is answered
//! and acknowledged. Time comes in as an argument, random ids come in as arguments, and the
//! drivers in `rpc-core` do the I/O.
//!
//! Three machines, each in the style that fits it:
//!
//! * [`client::Calls`] multiplexes many calls over time, so it is driven by events. `handle_*`
//!   takes what happened, `poll_*` says what to do now, plain verbs are commands, plain nouns are
//!   getters.
//! * [`link::Link`] says when to make the next transport after one was lost.
//! * [`server::Acceptor`] turns one delivery into one [`server::Job`], whose steps have a fixed
//!   order, so each step is a type. The acknowledgement can only be had from a
//!   [`server::AfterReply`], and that only by taking the reply out first.
//!
//! A driver locks the machine, feeds it one event, drains what it wants, unlocks, and only then
//! does the I/O.

mod address;
mod cancellation;
pub mod client;
mod correlation;
mod deadline;
mod error;
mod headers;
mod jitter;
pub mod link;
mod message;
#[cfg(not(feature = "mutants"))]
mod mutants;
#[cfg(feature = "mutants")]
pub mod mutants;
mod reason;
pub mod server;
mod short_string;
mod status;
pub mod wire;

pub use address::Address;
pub use cancellation::{Cancellation, Cancelled};
pub use client::CallError;
pub use correlation::CallId;
pub use deadline::{LONGEST_WAIT, deadline_after};
pub use error::{ErrorKind, TransportError};
pub use headers::{HeaderValue, Headers, HeadersTooLarge};
pub use message::{AckToken, ConsumerId, Delivery, DeliveryMode, Expiration, Message};
pub use reason::Reason;
pub use short_string::{ShortString, TooLong};
pub use status::{Certainty, Code, Origin, Pushback, Status};
