//! The async face of the client: publishes on the caller's task, receives on a task of its own.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rpc_proto::client::{Check, Next, Request};
use rpc_proto::link::{Generation, Link, LinkState};
use rpc_proto::wire::Reply;
use rpc_proto::{CallError, TransportError, deadline_after};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{timeout, timeout_at};

use super::{
    CallOptions, Carrying, ClientOptions, ClientStats, Core, GIVE_UP, Receiving, Run, blocked,
    ended,
};
use crate::link::{Tenant, occupy, supervise};
use crate::{Connector, ConsumeOptions, Consumer, Transport};

/// Calls a service over any [`Transport`].
///
/// Clones share one reply address and one table of calls; any number of calls may be open at once.
/// A client [made with a transport](Self::new) lives as long as that does, and does not close it: it
/// may be shared. One [made with a connector](Self::connect) makes its transports itself, one after
/// the other, and closes them.
///
/// Needs a tokio runtime with its timer.
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
    /// Those of [`Transport::consume`] for an inbox; it takes as long as that does.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it gives the inbox up, and the transport with it.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn new(transport: T, options: ClientOptions) -> Result<Self, TransportError> {
        let inbox = ConsumeOptions::inbox(options.inbox);
        let consumer = transport.consume(inbox).await?;
        let transport = Arc::new(transport);
        let core = Core::new(options, Link::given(Instant::now()), false);
        Tenant::arrive(&*core, Generation::FIRST, &transport, &consumer);
        let receiving = Receiving(Arc::clone(&core));
        tokio::spawn(async move {
            let core = &receiving.0;
            occupy(
                transport,
                consumer,
                Arc::clone(&core.cell),
                Arc::clone(core),
            )
            .await;
        });
        Ok(Self::of(core))
    }

    /// A client of one service that makes its connection itself, and another one when that is lost.
    ///
    /// Returns at once. Until there is a connection calls fail with
    /// [`BrokerDown`](CallError::BrokerDown), unless they [wait](ClientOptions::wait_for_ready).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn connect<C>(connector: C, options: ClientOptions) -> Self
    where
        C: Connector<Transport = T>,
    {
        let core = Core::connecting(options, connector.endpoints());
        let receiving = Receiving(Arc::clone(&core));
        tokio::spawn(async move {
            let core = &receiving.0;
            supervise(connector, Arc::clone(&core.cell), Arc::clone(core)).await;
        });
        Self::of(core)
    }

    fn of(core: Arc<Core<T>>) -> Self {
        tokio::spawn(carry(Carrying(Arc::clone(&core))));
        Self {
            shared: Arc::new(Shared { core }),
        }
    }

    /// Waits until there is a connection, at most this long; less where there is no use in waiting: there
    /// will be none any more, or every broker refuses for what only a person can mend, such as a wrong
    /// password, a virtual host that is not there or a feature that is not built in. It goes on trying
    /// all the same, in case somebody mends that.
    ///
    /// # Errors
    ///
    /// Why there is none: the last cause that is known, or that there has been no answer yet.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only looks.
    pub async fn ready(&self, limit: Duration) -> Result<(), TransportError> {
        let cell = &self.core().cell;
        let deadline = deadline_after(Instant::now(), limit);
        let ready = timeout_at(deadline.into(), cell.until_ready()).await;
        cell.ready(ready.ok())
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
    ///
    /// # Cancel safety
    ///
    /// A dropped call gives its slot back at once, and a worker of ours that has been running it for
    /// a while is told.
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
    /// As [`call`](Self::call), within the timeout of the options if they have one.
    ///
    /// # Cancel safety
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
        let stub = &self.core().stub;
        let request = stub.encode(method, arguments)?;
        self.run(options, request, |reply| stub.decode(&reply))
            .await
    }

    /// Calls with a body that is encoded already, and returns the reply as it came.
    ///
    /// # Errors
    ///
    /// As [`call_with`](Self::call_with), except that nothing is encoded or decoded.
    ///
    /// # Cancel safety
    ///
    /// As [`call`](Self::call).
    pub async fn call_raw(
        &self,
        options: CallOptions,
        request: Request,
    ) -> Result<Reply, CallError> {
        self.run(options, request, Ok).await
    }

    async fn run<R>(
        &self,
        options: CallOptions,
        request: Request,
        decode: impl FnOnce(Reply) -> Result<R, CallError>,
    ) -> Result<R, CallError> {
        let mut run = Run::new(self.core(), options, request);
        loop {
            let outcome = attempt(&mut run).await;
            match run.next(outcome) {
                Next::Done(result) => return run.end(result, decode),
                Next::RetryAt(at) => pause(&run, at).await,
                Next::WhenUp { after, until } => {
                    pause(&run, after).await;
                    let up = timeout_at(until.into(), run.until_up()).await;
                    if up.is_err() {
                        let error = run.give_up();
                        return run.end(Err(error), decode);
                    }
                }
            }
        }
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
    ///
    /// # Cancel safety
    ///
    /// Calls end at once. Dropped while it waits for the last notices to workers, it does not leave the
    /// transport: close it again, or drop the last clone.
    pub async fn close(&self) {
        let core = self.core();
        core.table.close();
        // The last notices go out while there is something to send them on.
        let _ = timeout(GIVE_UP, core.told.wait()).await;
        core.cell.close();
        let _ = timeout(core.leave_limit(), core.left.wait()).await;
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

impl<T: Transport> Drop for Shared<T> {
    fn drop(&mut self) {
        self.core.table.close();
        self.core.cell.close();
    }
}

/// Makes the next attempt.
async fn attempt<T: Transport>(run: &mut Run<'_, T>) -> Result<Reply, CallError> {
    let (mut call, message, transport) = run.attempt()?;
    let deadline = run.deadline();
    let answered = async {
        if run.refuses(transport.is_blocked()) {
            call.published(Err(blocked()));
        } else {
            let published = transport.publish(run.service(), message, deadline);
            call.published(published.await);
        }
        (&mut call).await
    };
    match timeout_at(deadline.into(), run.unless_given_up(answered)).await {
        Ok(Some(result)) => result,
        Ok(None) => {
            call.give_up();
            call.await
        }
        Err(_) => {
            call.expire(deadline);
            call.await
        }
    }
}

/// Waits until then, or until there is no use in it.
async fn pause<T>(run: &Run<'_, T>, until: Instant) {
    let _ = timeout_at(until.into(), run.until_useless()).await;
}

#[async_trait]
impl<T: Transport> Tenant<T> for Core<T> {
    type Stay = Box<dyn Consumer>;

    async fn move_in(&self, transport: &Arc<T>) -> Result<Self::Stay, TransportError> {
        let inbox = ConsumeOptions::inbox(self.stub.options.inbox);
        let mut consumer = transport.consume(inbox).await?;
        let Some((check, to, message)) = self.check(consumer.queue(), transport.is_blocked())
        else {
            return Ok(consumer);
        };
        let deadline = check.deadline();
        let checking = async {
            let confirm = transport.publish(&to, message, deadline).await?;
            loop {
                let delivery = consumer.recv().await?.ok_or_else(ended)?;
                if check.is_heard(&delivery.message) {
                    break;
                }
            }
            if check.confirm_counts() {
                confirm.await?;
            }
            Ok(())
        };
        let outcome = timeout_at(deadline.into(), checking).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Check::overdue()));
        check.judge(outcome, transport.is_blocked())?;
        Ok(consumer)
    }

    fn arrive(&self, generation: Generation, transport: &Arc<T>, stay: &Self::Stay) {
        Self::arrive(self, generation, transport, stay.id(), stay.queue().clone());
    }

    async fn stay(
        &self,
        generation: Generation,
        transport: &Arc<T>,
        mut consumer: Self::Stay,
    ) -> Option<TransportError> {
        let inbox = consumer.id();
        let receiving = async {
            loop {
                match consumer.recv().await {
                    Ok(Some(delivery)) => self.table.handle_reply(generation, delivery.message),
                    Ok(None) => return ended(),
                    Err(cause) => return cause,
                }
            }
        };
        if let Some(cause) = self.cell.unless_closed(receiving).await {
            return Some(cause);
        }
        if !self.owned {
            // An error means that the transport has ended, and the consumer with it.
            let _ = timeout(GIVE_UP, transport.cancel(inbox)).await;
        }
        None
    }

    fn depart(&self, generation: Generation, cause: TransportError) {
        Self::depart(self, generation, cause);
    }
}

/// Carries notices to workers that nobody awaits their replies any more.
async fn carry<T: Transport>(carrying: Carrying<T>) {
    while let Some((to, message, transport)) = carrying.0.table.next_cancel().await {
        // Nor would it arrive while it is of use.
        if transport.is_blocked() {
            continue;
        }
        let deadline = Instant::now() + GIVE_UP;
        // Lost, it does no harm: the work ends at its deadline.
        let _ = timeout_at(deadline.into(), transport.publish(&to, message, deadline)).await;
    }
}
