//! The blocking supervisor: one transport after the other, and what lives on them.
//!
//! The async twin is `link/supervise.rs`. A thread cannot be called back, so each attempt to connect
//! has one of its own, which is left alone when it takes too long.

use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Instant;

use futures_channel::oneshot;
use rpc_proto::link::{Generation, Step};
use rpc_proto::{ErrorKind, TransportError};

use super::{Connector, Transport};
use crate::link::{CLOSE_LIMIT, DIAL_LIMIT, LinkCell};
use crate::park;

/// What lives on each transport in turn.
pub(super) trait Tenant<T: Transport>: Send + Sync + 'static {
    /// What it needs to live there: consumers, as a rule.
    type Stay: Send + 'static;

    /// Sets up on a new transport what belongs there, and checks that it works. When it fails, the
    /// transport is closed; when it takes too long it is left alone, and closed when it comes back.
    fn move_in(&self, transport: &Arc<T>) -> Result<Self::Stay, TransportError>;

    /// It is about to be up as this generation: from here on it can be used. Called under the lock of
    /// the link, so that nobody sees it up before; must not wait, nor look at the link.
    fn arrive(&self, generation: Generation, transport: &Arc<T>, stay: &Self::Stay);

    /// Lives there until it ends; `None` when the owner wanted it to.
    fn stay(
        &self,
        generation: Generation,
        transport: &Arc<T>,
        stay: Self::Stay,
    ) -> Option<TransportError>;

    /// It is over with this generation, and the link says so already: whoever fails because of it
    /// and looks there for another transport does not find the old one.
    fn depart(&self, generation: Generation, cause: TransportError);
}

/// Makes transports and lives on them, one after the other, until the owner closes the link. On
/// return the last transport is closed.
pub(super) fn supervise<C, N>(connector: &Arc<C>, cell: &LinkCell, tenant: &Arc<N>)
where
    C: Connector,
    N: Tenant<C::Transport>,
{
    loop {
        match cell.poll() {
            Step::Dial(endpoint) => match dial(connector, tenant, cell, endpoint) {
                Some(Ok((transport, stay))) => live(cell, &**tenant, &transport, stay),
                Some(Err(cause)) => cell.handle_failed(&cause),
                None => {}
            },
            Step::Wait(until) => {
                park::block_on_until(pin!(cell.until_closed()), until);
            }
            // Nobody else drives this link, and a step that was dialled has ended above.
            Step::Watch | Step::Stop => return,
        }
    }
}

/// Lives on a transport that was made elsewhere, until it ends. Does not close it.
pub(super) fn occupy<T, N>(transport: &Arc<T>, stay: N::Stay, cell: &LinkCell, tenant: &N)
where
    T: Transport,
    N: Tenant<T>,
{
    let generation = Generation::FIRST;
    if let Some(cause) = tenant.stay(generation, transport, stay) {
        cell.handle_lost(generation, &cause);
        tenant.depart(generation, cause);
    }
}

fn live<T: Transport, N: Tenant<T>>(
    cell: &LinkCell,
    tenant: &N,
    transport: &Arc<T>,
    stay: N::Stay,
) {
    let up = cell.handle_up(|generation| tenant.arrive(generation, transport, &stay));
    let Some(generation) = up else {
        return close(transport);
    };
    if let Some(cause) = tenant.stay(generation, transport, stay) {
        tracing::debug!(%cause, %generation, "the connection was lost");
        cell.handle_lost(generation, &cause);
        tenant.depart(generation, cause);
        // It has ended already, as a rule; what is left of it need not be waited for.
        drop(begin_to_close(transport));
    } else {
        close(transport);
    }
}

type Dialled<T, S> = Result<(Arc<T>, S), TransportError>;

/// Makes a transport and moves in; nothing when the owner ends the link first.
fn dial<C, N>(
    connector: &Arc<C>,
    tenant: &Arc<N>,
    cell: &LinkCell,
    endpoint: usize,
) -> Option<Dialled<C::Transport, N::Stay>>
where
    C: Connector,
    N: Tenant<C::Transport>,
{
    let (connector, tenant) = (Arc::clone(connector), Arc::clone(tenant));
    let (hand_over, dialled) = oneshot::channel();
    let spawned = thread::Builder::new()
        .name("rpc-dial".into())
        .spawn(move || {
            let transport = match connector.connect(endpoint) {
                Ok(transport) => Arc::new(transport),
                Err(cause) => return drop(hand_over.send(Err(cause))),
            };
            let moved_in = tenant.move_in(&transport);
            let failed = moved_in.is_err();
            let dialled = moved_in.map(|stay| (Arc::clone(&transport), stay));
            // First: to close may take its time, and the cause must not be lost in it.
            let too_late = hand_over.send(dialled).is_err();
            if failed || too_late {
                let _ = transport.close();
            }
        });
    if let Err(error) = spawned {
        return Some(Err(failed().with_source(error)));
    }
    let limit = Instant::now() + DIAL_LIMIT;
    let answered = match park::block_on_until(pin!(cell.unless_closed(dialled)), limit) {
        Some(answered) => answered?,
        None => {
            return Some(Err(
                failed().with_detail("neither an answer nor an error in time")
            ));
        }
    };
    let panicked = |_| Err(failed().with_detail("the attempt panicked"));
    Some(answered.unwrap_or_else(panicked))
}

/// Closes a transport, and leaves it alone when that takes too long.
fn close<T: Transport>(transport: &Arc<T>) {
    let closed = begin_to_close(transport).recv_timeout(CLOSE_LIMIT);
    if closed == Err(RecvTimeoutError::Timeout) {
        tracing::warn!("a transport did not close in time, and is left alone");
    }
}

/// Closes a transport in the background; what is returned is disconnected when that is done.
pub(super) fn begin_to_close<T: Transport>(transport: &Arc<T>) -> mpsc::Receiver<()> {
    let closing = Arc::clone(transport);
    let (done, when_done) = mpsc::channel();
    // Without a thread it ends when its last holder drops it.
    let _ = thread::Builder::new()
        .name("rpc-close".into())
        .spawn(move || {
            // The only error there is says that it has ended already.
            let _ = closing.close();
            drop(done);
        });
    when_done
}

fn failed() -> TransportError {
    TransportError::new(ErrorKind::Connect, "rpc", "connect")
}
