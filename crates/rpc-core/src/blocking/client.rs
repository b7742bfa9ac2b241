//! The blocking face of the client: publishes on the caller's thread, receives on one of its own.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::thread;

use rpc_proto::client::{Request, Stats};
use rpc_proto::wire::Reply;
use rpc_proto::{CallError, ConsumerId, ErrorKind, TransportError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Consumer, Transport, cancel};
use crate::client::{CallOptions, ClientOptions, GIVE_UP, Inlet, OpenCall, Stub};
use crate::{ConsumeOptions, park};

/// Calls a service over any blocking [`Transport`].
///
/// Clones share one reply address and one table of calls; any number of threads may call at once.
/// The client does not close its transport, which may be shared.
pub struct Client<T: Transport = Arc<dyn Transport>> {
    shared: Arc<Shared<T>>,
}

struct Shared<T: Transport> {
    transport: Arc<T>,
    stub: Stub,
    inbox: ConsumerId,
}

impl<T: Transport> Client<T> {
    /// A client of one service, with its reply address open.
    ///
    /// # Errors
    ///
    /// Those of [`Transport::consume`] for an inbox, and [`ErrorKind::Other`] when the system has no
    /// thread left.
    pub fn new(transport: T, options: ClientOptions) -> Result<Self, TransportError> {
        let consumer = transport.consume(ConsumeOptions::inbox(options.inbox))?;
        let stub = Stub::new(options, consumer.queue().clone());
        let inbox = consumer.id();
        let inlet = stub.table.inlet();
        thread::Builder::new()
            .name("rpc-client".into())
            .spawn(move || receive(consumer, &inlet))
            .map_err(|error| {
                TransportError::new(ErrorKind::Other, "rpc", "start").with_source(error)
            })?;
        Ok(Self {
            shared: Arc::new(Shared {
                transport: Arc::new(transport),
                stub,
                inbox,
            }),
        })
    }

    /// Calls `method` and waits for the result; an empty name means the service's default method.
    ///
    /// # Errors
    ///
    /// A [`CallError`], within the client's timeout. Its `certainty` says whether the handler ran.
    pub fn call<Req, Resp>(&self, method: &str, arguments: &Req) -> Result<Resp, CallError>
    where
        Req: Serialize + ?Sized,
        Resp: DeserializeOwned,
    {
        self.call_with(CallOptions::default(), method, arguments)
    }

    /// Calls `method` with options of its own.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub fn call_with<Req, Resp>(
        &self,
        options: CallOptions,
        method: &str,
        arguments: &Req,
    ) -> Result<Resp, CallError>
    where
        Req: Serialize + ?Sized,
        Resp: DeserializeOwned,
    {
        let request = self.shared.stub.encode(method, arguments)?;
        let reply = self.call_raw(options, request)?;
        self.shared.stub.decode(&reply)
    }

    /// Calls with a body that is encoded already, and returns the reply as it came.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call), except that nothing is encoded or decoded.
    pub fn call_raw(&self, options: CallOptions, request: Request) -> Result<Reply, CallError> {
        let Shared {
            transport, stub, ..
        } = &*self.shared;
        let deadline = stub.deadline(options);
        let (mut call, message) = OpenCall::begin(&stub.table, request, &stub.reply_to, deadline)?;
        call.published(transport.publish(stub.service(), message, deadline));
        park::block_on_until(Pin::new(&mut call), deadline).unwrap_or_else(|| {
            call.expire(deadline);
            park::block_on(call)
        })
    }

    /// Calls that are open.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.stub.table.in_flight()
    }

    /// What became of all calls so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stub.table.stats()
    }

    /// The transport it was made with.
    #[must_use]
    pub fn transport(&self) -> &T {
        &self.shared.transport
    }

    /// Ends all open calls and gives the reply address up, for all clones.
    ///
    /// Takes a second at most. A broker that does not answer within it keeps the reply address until
    /// the transport is closed.
    pub fn close(&self) {
        let Shared {
            transport,
            stub,
            inbox,
        } = &*self.shared;
        stub.table.close();
        // Disconnected when it is done.
        let _ = cancel(transport, *inbox).recv_timeout(GIVE_UP);
    }
}

impl<T: Transport> Clone for Client<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T: Transport> fmt::Debug for Client<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("transport", &self.shared.transport)
            .field("service", &self.shared.stub.options.service)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl<T: Transport> Drop for Shared<T> {
    fn drop(&mut self) {
        cancel(&self.transport, self.inbox);
    }
}

fn receive(mut consumer: Box<dyn Consumer>, inlet: &Inlet) {
    loop {
        match consumer.recv() {
            Ok(Some(delivery)) => inlet.handle_reply(delivery.message),
            Ok(None) => return,
            Err(cause) => return inlet.handle_disconnect(cause),
        }
    }
}
