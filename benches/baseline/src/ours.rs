//! Ours, async: a client and a server as anybody would make them, and a service that gives back
//! what it gets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use amqp_broker::AmqpUrl;
use anyhow::{Result, ensure};
use bytes::Bytes;
use rpc_core::adapt::Offload;
use rpc_core::proto::client::Request;
use rpc_core::{
    CallOptions, Client, ClientOptions, DeliveryMode, QueueKind, QueueSpec, Server, ServerOptions,
    ShortString, Transport,
};
use rpc_pure::memory::Echo;
use tokio::task::JoinSet;
use transport_amiquip::{AmiquipConfig, AmiquipTransport, Confirms};
use transport_lapin::{LapinConfig, LapinTransport};
use transport_memory::MemoryBroker;

use crate::arrivals::Arrivals;
use crate::cell::{Cell, What};
use crate::meter::Tally;

/// Makes calls until it is told to stop.
pub(crate) async fn call(
    transport: Arc<dyn Transport>,
    cell: &Cell,
    share: usize,
    tally: &Tally,
) -> Result<()> {
    let client = Client::new(transport, client_options(cell)?).await?;
    let body = Bytes::from(cell.body());
    let mut callers = JoinSet::new();
    if cell.rate.is_some() {
        let mut arrivals = Arrivals::new(cell, share, tally);
        while let Some(since) = arrivals.next().await {
            while callers.try_join_next().transpose()?.transpose()?.is_some() {}
            let (client, body, tally) = (client.clone(), body.clone(), tally.clone());
            callers.spawn(async move { call_once(&client, &body, &tally, since).await });
        }
    } else {
        for _ in 0..share {
            callers.spawn(caller(client.clone(), body.clone(), tally.clone()));
        }
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    client.close().await;
    Ok(())
}

async fn caller(client: Client, body: Bytes, tally: Tally) -> Result<()> {
    while tally.goes_on() {
        let since = Instant::now();
        call_once(&client, &body, &tally, since).await?;
    }
    Ok(())
}

async fn call_once(client: &Client, body: &Bytes, tally: &Tally, since: Instant) -> Result<()> {
    let reply = client
        .call_raw(CallOptions::default(), request(body))
        .await?;
    ensure!(reply.body == *body, "an answer is not what was asked");
    tally.answered(since);
    Ok(())
}

/// Service and client on one broker inside this process, until it is told to stop.
pub(crate) async fn in_process(cell: &Cell, share: usize, tally: &Tally) -> Result<()> {
    let broker = MemoryBroker::new();
    let options = server_options(cell)?;
    let server = Server::start(Arc::new(broker.connect()), Echo, options).await?;
    call(Arc::new(broker.connect()), cell, share, tally).await?;
    server.drain(DRAIN).await;
    Ok(())
}

/// Answers requests until the process ends.
pub(crate) async fn work(
    transport: Arc<dyn Transport>,
    cell: &Cell,
    ready: impl FnOnce(),
) -> Result<()> {
    let _server = Server::start(transport, Echo, server_options(cell)?).await?;
    ready();
    std::future::pending().await
}

/// A transport of the async face.
pub(crate) async fn connect(url: &AmqpUrl, cell: &Cell) -> Result<Arc<dyn Transport>> {
    Ok(match cell.what {
        What::OursAmiquipAsync => Arc::new(Offload::new(AmiquipTransport::connect(amiquip(
            url, cell,
        ))?)?),
        _ => Arc::new(LapinTransport::connect(lapin(url, cell)).await?),
    })
}

pub(crate) fn lapin(url: &AmqpUrl, cell: &Cell) -> LapinConfig {
    LapinConfig::new(url.clone()).with_confirms(confirms(cell))
}

pub(crate) fn amiquip(url: &AmqpUrl, cell: &Cell) -> AmiquipConfig {
    AmiquipConfig::new(url.clone()).with_confirms(confirms(cell))
}

const fn confirms(cell: &Cell) -> Confirms {
    if cell.confirms {
        Confirms::On
    } else {
        Confirms::Off
    }
}

pub(crate) fn client_options(cell: &Cell) -> Result<ClientOptions> {
    let queue = ShortString::new(cell.queue.clone())?;
    Ok(ClientOptions::new(queue).with_delivery_mode(DeliveryMode::Transient))
}

pub(crate) fn server_options(cell: &Cell) -> Result<ServerOptions> {
    let queue = ShortString::new(cell.queue.clone())?;
    let queue = QueueSpec::new(queue, QueueKind::Transient);
    Ok(ServerOptions::new(queue).with_prefetch(cell.prefetch))
}

pub(crate) fn request(body: &Bytes) -> Request {
    Request {
        body: body.clone(),
        delivery_mode: DeliveryMode::Transient,
        ..Request::default()
    }
}

/// How long the last requests of a service in this process may take.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);
