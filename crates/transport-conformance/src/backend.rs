//! What a case sees of a transport: the contract without its face, with a limit on every wait.
//!
//! A case is a plain function. A row of the suite brings each of these verbs to its own face: the
//! async one awaits, the blocking one calls, and no adapter stands between.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rpc_core::proto::wire::Reply;
use rpc_core::proto::{client, server};
use rpc_core::{
    AckToken, Address, CallError, CallOptions, ClientOptions, ClientStats, Confirm, ConsumeOptions,
    ConsumerId, Delivery, DrainReport, Fate, LinkState, Message, QueueSpec, ServerOptions, Service,
    ShortString, TransportError,
};

pub(crate) mod sealed {
    /// Keeps the interfaces of this module free to grow with the cases.
    pub trait Sealed {}
}

/// One row of the suite: a broker, and a way to connect to it.
///
/// Made by [`AsyncRow`](crate::AsyncRow) and [`BlockingRow`](crate::BlockingRow) and by nothing
/// else, so that a new case may ask for a new verb.
pub trait Backend: Debug + Send + sealed::Sealed {
    /// Makes a new transport to the broker.
    ///
    /// # Errors
    ///
    /// Those of the transport.
    fn connect(&self) -> Result<Box<dyn Connection>, TransportError>;

    /// A client of the face that makes its connections to the broker itself.
    fn keep_connected(&self, options: ClientOptions) -> Box<dyn Linked>;

    /// A name that no queue of the broker has.
    fn queue(&self) -> ShortString;

    /// Makes the broker block publishers, or lets them go on; whether the row can.
    fn block_publishers(&self, blocked: bool) -> bool;
}

/// One transport, and clients and servers on it.
///
/// Dropped, it closes the transport.
pub trait Connection: Send + Sync {
    /// As the contract says.
    ///
    /// # Errors
    ///
    /// Those of the contract.
    fn declare(&self, queue: &QueueSpec) -> Result<(), TransportError>;

    /// As the contract says.
    ///
    /// # Errors
    ///
    /// Those of the contract.
    fn publish(
        &self,
        to: &Address,
        message: Message,
        deadline: Instant,
    ) -> Result<Confirm, TransportError>;

    /// As the contract says.
    fn is_blocked(&self) -> bool;

    /// Waits for a verdict, in the way of the face.
    ///
    /// # Errors
    ///
    /// The verdict, or a timeout when there is none within `limit`.
    fn verdict(&self, confirm: Confirm, limit: Duration) -> Result<(), TransportError>;

    /// As the contract says.
    ///
    /// # Errors
    ///
    /// Those of the contract.
    fn consume(&self, options: ConsumeOptions) -> Result<Box<dyn Receiver>, TransportError>;

    /// As the contract says.
    ///
    /// # Errors
    ///
    /// Those of the contract.
    fn ack(&self, token: AckToken) -> Result<(), TransportError>;

    /// As the contract says.
    ///
    /// # Errors
    ///
    /// Those of the contract.
    fn reject(&self, token: AckToken, fate: Fate) -> Result<(), TransportError>;

    /// As the contract says.
    ///
    /// # Errors
    ///
    /// Those of the contract.
    fn cancel(&self, consumer: ConsumerId) -> Result<(), TransportError>;

    /// As the contract says.
    ///
    /// # Errors
    ///
    /// Those of the contract.
    fn close(&self) -> Result<(), TransportError>;

    /// A client of the face, on this transport.
    ///
    /// # Errors
    ///
    /// Those of the client.
    fn client(&self, options: ClientOptions) -> Result<Arc<dyn Caller>, TransportError>;

    /// A server of the face, on this transport.
    ///
    /// # Errors
    ///
    /// Those of the server.
    fn serve(
        &self,
        service: Arc<dyn Service>,
        options: ServerOptions,
    ) -> Result<Box<dyn Serving>, TransportError>;
}

/// A consumer. Dropped, it is dropped as the face drops it.
pub trait Receiver: Send {
    /// Its identity.
    fn id(&self) -> ConsumerId;

    /// The name of its queue.
    fn queue(&self) -> &ShortString;

    /// Receives once, for at most `limit`.
    ///
    /// On the async face a receive that finds nothing is dropped, and the next one is a new one. A
    /// thread cannot be called back: on the blocking face the receive goes on, and the next call
    /// takes what it found.
    fn recv_within(&mut self, limit: Duration) -> Received;
}

/// How a receive with a limit went.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a case must look at all of them")]
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart at once, a few times in a test"
)]
pub enum Received {
    /// A delivery.
    Delivery(Delivery),
    /// The consumer or its transport was ended on this side.
    Ended,
    /// It ended for another reason.
    Failed(TransportError),
    /// None of these within the limit.
    Nothing,
}

/// A client.
pub trait Caller: Send + Sync {
    /// Calls, and waits for the end of the call.
    ///
    /// # Errors
    ///
    /// Those of the client.
    fn call(&self, options: CallOptions, request: client::Request) -> Result<Reply, CallError>;

    /// Calls a method from number to number, typed.
    ///
    /// # Errors
    ///
    /// Those of the client.
    fn call_number(&self, method: &str, number: u64) -> Result<u64, CallError>;

    /// Begins a call in the background.
    fn begin(&self, options: CallOptions, request: client::Request) -> Box<dyn Ongoing>;

    /// Makes `count` calls and gives each up half-way, as callers of the face do: the async one
    /// drops the future of the call within a few milliseconds, the blocking one sets a timeout of
    /// that length. Returns when all have been given up.
    fn give_up(&self, count: usize, request: &client::Request);

    /// Calls that are open.
    fn in_flight(&self) -> usize;

    /// What became of all calls so far, and of the attempts at them.
    fn stats(&self) -> ClientStats;

    /// Closes the client.
    fn close(&self);
}

/// A client that makes its connections itself, and what can befall them.
pub trait Linked: Send {
    /// The client.
    fn caller(&self) -> Arc<dyn Caller>;

    /// Whether there is a connection.
    fn state(&self) -> LinkState;

    /// Waits for a connection, for at most `limit`.
    ///
    /// # Errors
    ///
    /// Why there is none.
    fn ready(&self, limit: Duration) -> Result<(), TransportError>;

    /// Ends its present connection under it, and tells whether there was one.
    fn lose(&self) -> bool;

    /// Lets further attempts to connect fail, or succeed again.
    fn bar(&self, barred: bool);
}

/// A call in the background.
pub trait Ongoing: Send {
    /// Waits for its end, for at most `limit`.
    fn end_within(&mut self, limit: Duration) -> Option<Result<Reply, CallError>>;
}

/// A server. Dropped, it is dropped as the face drops it.
pub trait Serving: Send {
    /// What became of all deliveries so far.
    fn stats(&self) -> server::Stats;

    /// Waits for at most `limit` until no more requests come.
    fn ended_within(&mut self, limit: Duration) -> Option<Result<(), TransportError>>;

    /// Drains it.
    fn drain(self: Box<Self>, limit: Duration) -> DrainReport;
}
