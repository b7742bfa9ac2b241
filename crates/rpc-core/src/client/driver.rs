//! The async face of the client: publishes on the caller's task, receives on a task of its own.

use std::fmt;
use std::sync::Arc;

use rpc_proto::client::{Request, Stats};
use rpc_proto::wire::Reply;
use rpc_proto::{CallError, ConsumerId, TransportError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::{CallOptions, ClientOptions, GIVE_UP, Inlet, OpenCall, Stub};
use crate::{ConsumeOptions, Consumer, Transport};

/// Calls a service over any [`Transport`].
///
/// Clones share one reply address and one table of calls; any number of calls may be open at once.
/// The client does not close its transport, which may be shared.
///
/// Needs a tokio runtime with its timer.
pub struct Client<T: Transport = Arc<dyn Transport>> {
    shared: Arc<Shared<T>>,
}

struct Shared<T: Transport> {
    transport: T,
    stub: Stub,
    inbox: ConsumerId,
    receiver: AbortHandle,
}

impl<T: Transport> Client<T> {
    /// A client of one service, with its reply address open.
    ///
    /// # Errors
    ///
    /// Those of [`Transport::consume`] for an inbox.
    pub async fn new(transport: T, options: ClientOptions) -> Result<Self, TransportError> {
        let consumer = transport
            .consume(ConsumeOptions::inbox(options.inbox))
            .await?;
        let stub = Stub::new(options, consumer.queue().clone());
        let inbox = consumer.id();
        let receiver = tokio::spawn(receive(consumer, stub.table.inlet())).abort_handle();
        Ok(Self {
            shared: Arc::new(Shared {
                transport,
                stub,
                inbox,
                receiver,
            }),
        })
    }

    /// Calls `method` and waits for the result; an empty name means the service's default method.
    ///
    /// # Errors
    ///
    /// A [`CallError`], within the client's timeout. Its `certainty` says whether the handler ran.
    ///
    /// # Cancel safety
    ///
    /// A dropped call gives its slot back at once. Its request may run all the same.
    pub async fn call<Req, Resp>(&self, method: &str, arguments: &Req) -> Result<Resp, CallError>
    where
        Req: Serialize + ?Sized,
        Resp: DeserializeOwned,
    {
        self.call_with(CallOptions::default(), method, arguments)
            .await
    }

    /// Calls `method` with options of its own.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn call_with<Req, Resp>(
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
        let reply = self.call_raw(options, request).await?;
        self.shared.stub.decode(&reply)
    }

    /// Calls with a body that is encoded already, and returns the reply as it came.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call), except that nothing is encoded or decoded.
    pub async fn call_raw(
        &self,
        options: CallOptions,
        request: Request,
    ) -> Result<Reply, CallError> {
        let Shared {
            transport, stub, ..
        } = &*self.shared;
        let deadline = stub.deadline(options);
        let (mut call, message) = OpenCall::begin(&stub.table, request, &stub.reply_to, deadline)?;
        let answered = async {
            call.published(transport.publish(stub.service(), message, deadline).await);
            (&mut call).await
        };
        match tokio::time::timeout_at(deadline.into(), answered).await {
            Ok(result) => result,
            Err(_) => {
                call.expire(deadline);
                call.await
            }
        }
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
    pub async fn close(&self) {
        let Shared {
            transport,
            stub,
            inbox,
            receiver,
        } = &*self.shared;
        stub.table.close();
        // An error means that the transport has ended, and the consumer with it.
        let _ = timeout(GIVE_UP, transport.cancel(*inbox)).await;
        receiver.abort();
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
        // The task holds the consumer, and a consumer that is dropped is cancelled.
        self.receiver.abort();
    }
}

async fn receive(mut consumer: Box<dyn Consumer>, inlet: Inlet) {
    loop {
        match consumer.recv().await {
            Ok(Some(delivery)) => inlet.handle_reply(delivery.message),
            Ok(None) => return,
            Err(cause) => return inlet.handle_disconnect(cause),
        }
    }
}
