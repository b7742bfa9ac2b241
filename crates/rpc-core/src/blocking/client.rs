//! The blocking face of the client: publishes on the caller's thread, receives on one of its own.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rpc_proto::client::Request;
use rpc_proto::link::{Generation, Link, LinkState};
use rpc_proto::wire::Reply;
use rpc_proto::{CallError, TransportError, deadline_after};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::mailbox::Mailbox;
use super::pending::PendingCall;
use super::supervise::{Tenant, begin_to_close, occupy, supervise};
use super::tenant::spawn;
use super::{Connector, Transport, cancel};
use crate::client::{
    CallOptions, Carrying, ClientOptions, ClientStats, Core, GIVE_UP, Receiving, Stub,
};
use crate::{ConsumeOptions, park};

/// Calls a service over any blocking [`Transport`].
///
/// Clones share one reply address and one table of calls; any number of threads may call at once.
/// A client [made with a transport](Self::new) lives as long as that does, and does not close it: it
/// may be shared. One [made with a connector](Self::connect) makes its transports itself, one after
/// the other, and closes them.
#[must_use = "a client that is dropped ends its calls"]
pub struct Client<T: Transport = Arc<dyn Transport>> {
    shared: Arc<Shared<T>>,
}

/// What ends with the last clone.
struct Shared<T: Transport> {
    core: Arc<Core<T>>,
}

impl<T: Transport> Client<T> {
    /// A client of one service, with its reply address open.
    ///
    /// # Errors
    ///
    /// Those of [`Transport::consume`] for an inbox, and [`ErrorKind::Other`](crate::ErrorKind::Other) when the system has no
    /// thread left.
    pub fn new(transport: T, options: ClientOptions) -> Result<Self, TransportError> {
        let inbox = ConsumeOptions::inbox(options.inbox);
        let mailbox = Mailbox::new(transport.consume(inbox)?);
        let transport = Arc::new(transport);
        let core = Core::new(options, Link::given(Instant::now()), false);
        Tenant::arrive(&*core, Generation::FIRST, &transport, &mailbox);
        // From here on an error drops it, and the consumer with it.
        let client = Self::of(Arc::clone(&core));
        let receiving = Receiving(core);
        spawn("rpc-client", move || {
            let core = &receiving.0;
            occupy(&transport, mailbox, &core.cell, &**core);
        })?;
        client.carry()?;
        Ok(client)
    }

    /// A client of one service that makes its connection itself, and another one when that is lost.
    ///
    /// Returns at once. Until there is a connection calls fail with
    /// [`BrokerDown`](CallError::BrokerDown), unless they [wait](ClientOptions::wait_for_ready). Should
    /// the system have no thread left, they fail with [`NotSent`](CallError::NotSent), which says so.
    pub fn connect<C>(connector: C, options: ClientOptions) -> Self
    where
        C: Connector<Transport = T>,
    {
        let core = Core::connecting(options, connector.endpoints());
        let client = Self::of(Arc::clone(&core));
        let connector = Arc::new(connector);
        let driven = Arc::clone(&core);
        let supervised = move || {
            let receiving = Receiving(driven);
            let core = &receiving.0;
            supervise(&connector, &core.cell, core);
        };
        // The supervisor last: without it nothing is connected yet, and the courier ends by itself.
        let started = client
            .carry()
            .and_then(|()| spawn("rpc-client", supervised));
        if let Err(error) = started {
            tracing::error!(%error, "a client could not be started");
            core.abandon(error);
        }
        client
    }

    fn of(core: Arc<Core<T>>) -> Self {
        Self {
            shared: Arc::new(Shared { core }),
        }
    }

    fn carry(&self) -> Result<(), TransportError> {
        let carrying = Carrying(Arc::clone(&self.shared.core));
        spawn("rpc-courier", move || carry(&carrying))
    }

    /// Waits until there is a connection, at most this long; less where there is no use in waiting: there
    /// will be none any more, or every broker refuses for what only a person can mend, such as a wrong
    /// password, a virtual host that is not there or a feature that is not built in. It goes on trying
    /// all the same, in case somebody mends that.
    ///
    /// # Errors
    ///
    /// Why there is none: the last cause that is known, or that there has been no answer yet.
    pub fn ready(&self, limit: Duration) -> Result<(), TransportError> {
        let cell = &self.core().cell;
        let deadline = deadline_after(Instant::now(), limit);
        cell.ready(park::block_on_until(pin!(cell.until_ready()), deadline))
    }

    /// Whether there is a connection, and why not.
    #[must_use]
    pub fn link_state(&self) -> LinkState {
        self.core().cell.state()
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
    /// As [`call`](Self::call), within the timeout of the options if they have one.
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
        self.begin_with(options, method, arguments)?.wait()
    }

    /// Calls with a body that is encoded already, and returns the reply as it came.
    ///
    /// # Errors
    ///
    /// As [`call_with`](Self::call_with), except that nothing is encoded or decoded.
    pub fn call_raw(&self, options: CallOptions, request: Request) -> Result<Reply, CallError> {
        self.begin_raw(options, request).wait()
    }

    /// Begins to call `method`: sends the request, and leaves the answer to be
    /// [waited for](PendingCall::wait), so that one thread can have many calls open.
    ///
    /// ```
    /// # use rpc_core::CallError;
    /// # use rpc_core::blocking::{Client, Transport};
    /// /// Calls with sixteen open at a time, in this thread alone.
    /// fn sum<T: Transport>(client: &Client<T>, numbers: &[u64]) -> Result<u64, CallError> {
    ///     let (mut open, mut sum) = (std::collections::VecDeque::new(), 0);
    ///     for number in numbers {
    ///         open.push_back(client.begin::<_, u64>("fib", number)?);
    ///         if open.len() == 16
    ///             && let Some(first) = open.pop_front()
    ///         {
    ///             sum += first.wait()?;
    ///         }
    ///     }
    ///     open.into_iter().try_fold(sum, |sum, call| Ok(sum + call.wait()?))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`RequestUnencodable`](CallError::RequestUnencodable) at once; all others come of waiting.
    pub fn begin<Req, Resp>(
        &self,
        method: &str,
        arguments: &Req,
    ) -> Result<PendingCall<'_, Resp, T>, CallError>
    where
        Req: Serialize + ?Sized,
        Resp: DeserializeOwned,
    {
        self.begin_with(CallOptions::default(), method, arguments)
    }

    /// Begins to call `method` with options of its own.
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin).
    pub fn begin_with<Req, Resp>(
        &self,
        options: CallOptions,
        method: &str,
        arguments: &Req,
    ) -> Result<PendingCall<'_, Resp, T>, CallError>
    where
        Req: Serialize + ?Sized,
        Resp: DeserializeOwned,
    {
        let request = self.core().stub.encode(method, arguments)?;
        let decode = |stub: &Stub, reply: Reply| stub.decode(&reply);
        Ok(PendingCall::begin(self.core(), options, request, decode))
    }

    /// Begins a call with a body that is encoded already.
    pub fn begin_raw(&self, options: CallOptions, request: Request) -> PendingCall<'_, Reply, T> {
        PendingCall::begin(self.core(), options, request, |_, reply| Ok(reply))
    }

    /// Calls that are open, with those that wait for their next attempt.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.core().in_flight()
    }

    /// What became of all calls so far, and of the attempts at them.
    #[must_use]
    pub fn stats(&self) -> ClientStats {
        self.core().stats()
    }

    /// The transport that calls go out on now, if there is one.
    #[must_use]
    pub fn transport(&self) -> Option<Arc<T>> {
        self.core().table.seat().map(|seat| seat.transport)
    }

    /// Ends all open calls and gives the reply address up, for all clones; and closes the transport
    /// of a client that made it itself.
    ///
    /// Takes two seconds at most, and three more to close a transport. A broker that does not answer
    /// within them keeps the reply address until the transport has ended. Again, it changes nothing.
    pub fn close(&self) {
        let core = self.core();
        core.table.close();
        // The last notices go out while there is something to send them on.
        park::block_on_until(pin!(core.told.wait()), Instant::now() + GIVE_UP);
        self.shared.leave();
        park::block_on_until(pin!(core.left.wait()), Instant::now() + core.leave_limit());
    }

    fn core(&self) -> &Core<T> {
        &self.shared.core
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
            .field("link", &self.link_state())
            .field("service", &self.core().stub.options.service)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl<T: Transport> Shared<T> {
    /// Ends the link, and wakes the thread that sits in `recv`.
    fn leave(&self) {
        let core = &self.core;
        core.table.close();
        core.cell.close();
        if let Some(seat) = core.table.seat() {
            // Either goes on in the background.
            drop(if core.owned {
                begin_to_close(&seat.transport)
            } else {
                cancel(&seat.transport, seat.inbox)
            });
        }
    }
}

impl<T: Transport> Drop for Shared<T> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Carries notices to workers that nobody awaits their replies any more.
fn carry<T: Transport>(carrying: &Carrying<T>) {
    while let Some((to, message, transport)) = park::block_on(carrying.0.table.next_cancel()) {
        // Blocked, it would not arrive while it is of use. Lost, it does no harm: the work ends at
        // its deadline.
        if !transport.is_blocked() {
            drop(transport.publish(&to, message, Instant::now() + GIVE_UP));
        }
    }
}
