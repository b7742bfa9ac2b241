//! The async supervisor: one transport after the other, and what lives on them.
//!
//! The blocking twin is `blocking/supervise.rs`.

use std::sync::Arc;

use async_trait::async_trait;
use rpc_proto::link::{Generation, Step};
use rpc_proto::{ErrorKind, TransportError};
use tokio::time::{sleep_until, timeout};

use super::{CLOSE_LIMIT, DIAL_LIMIT, LinkCell};
use crate::{Connector, Transport};

/// What lives on each transport in turn.
#[async_trait]
pub(crate) trait Tenant<T: Transport>: Send + Sync + 'static {
    /// What it needs to live there: consumers, as a rule.
    type Stay: Send;

    /// Sets up on a new transport what belongs there, and checks that it works. The supervisor's
    /// clock ends it when it takes too long; then the transport is closed.
    async fn move_in(&self, transport: &Arc<T>) -> Result<Self::Stay, TransportError>;

    /// It is about to be up as this generation: from here on it can be used. Called under the lock of
    /// the link, so that nobody sees it up before; must not wait, nor look at the link.
    fn arrive(&self, generation: Generation, transport: &Arc<T>, stay: &Self::Stay);

    /// Lives there until it ends; `None` when the owner wanted it to.
    async fn stay(
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
pub(crate) async fn supervise<C, N>(connector: C, cell: Arc<LinkCell>, tenant: Arc<N>)
where
    C: Connector,
    N: Tenant<C::Transport>,
{
    loop {
        match cell.poll() {
            Step::Dial(endpoint) => {
                let dialled = cell
                    .unless_closed(dial(&connector, &*tenant, endpoint))
                    .await;
                match dialled {
                    Some(Ok((transport, stay))) => live(&cell, &*tenant, transport, stay).await,
                    Some(Err(cause)) => cell.handle_failed(&cause),
                    None => {}
                }
            }
            Step::Wait(until) => {
                cell.unless_closed(sleep_until(until.into())).await;
            }
            // Nobody else drives this link, and a step that was dialled has ended above.
            Step::Watch | Step::Stop => return,
        }
    }
}

/// Lives on a transport that was made elsewhere, until it ends. Does not close it.
pub(crate) async fn occupy<T, N>(
    transport: Arc<T>,
    stay: N::Stay,
    cell: Arc<LinkCell>,
    tenant: Arc<N>,
) where
    T: Transport,
    N: Tenant<T>,
{
    let generation = Generation::FIRST;
    if let Some(cause) = tenant.stay(generation, &transport, stay).await {
        cell.handle_lost(generation, &cause);
        tenant.depart(generation, cause);
    }
}

async fn live<T: Transport, N: Tenant<T>>(
    cell: &LinkCell,
    tenant: &N,
    transport: Arc<T>,
    stay: N::Stay,
) {
    let up = cell.handle_up(|generation| tenant.arrive(generation, &transport, &stay));
    let Some(generation) = up else {
        close(&transport).await;
        return;
    };
    match tenant.stay(generation, &transport, stay).await {
        Some(cause) => {
            tracing::debug!(%cause, %generation, "the connection was lost");
            cell.handle_lost(generation, &cause);
            tenant.depart(generation, cause);
            // It has ended already, as a rule; what is left of it need not be waited for.
            tokio::spawn(async move { close(&transport).await });
        }
        None => close(&transport).await,
    }
}

async fn dial<C, N>(
    connector: &C,
    tenant: &N,
    endpoint: usize,
) -> Result<(Arc<C::Transport>, N::Stay), TransportError>
where
    C: Connector,
    N: Tenant<C::Transport>,
{
    let dialling = async {
        let transport = Arc::new(connector.connect(endpoint).await?);
        match tenant.move_in(&transport).await {
            Ok(stay) => Ok((transport, stay)),
            Err(cause) => {
                // Not waited for: to close may take its time, and the cause must not be lost in it.
                tokio::spawn(async move { close(&transport).await });
                Err(cause)
            }
        }
    };
    // Dropped where it hangs, it drops its transport, and a transport that is dropped ends.
    timeout(DIAL_LIMIT, dialling).await.unwrap_or_else(|_| {
        Err(TransportError::new(ErrorKind::Connect, "rpc", "connect")
            .with_detail("neither an answer nor an error in time"))
    })
}

async fn close<T: Transport>(transport: &Arc<T>) {
    // The only error there is says that it has ended already.
    if timeout(CLOSE_LIMIT, transport.close()).await.is_err() {
        tracing::warn!("a transport did not close in time, and is left alone");
    }
}
