//! A row with the async face: service, client and callers are tasks of one runtime.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use rpc_core::{Client, Router, Server, Transport, TransportError};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::row::{Row, Span, Tickets};
use crate::setting;

pub(crate) struct AsyncRow {
    client: Client,
    server: Server<Arc<dyn Transport>, Router>,
    transports: [Arc<dyn Transport>; 2],
    // Last, so that what the others leave behind when a row fails can still end on it.
    runtime: Runtime,
}

impl AsyncRow {
    pub(crate) fn open<T: Transport>(
        connect: &impl AsyncFn() -> Result<T, TransportError>,
    ) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(setting::WORKERS.get())
            .enable_time()
            .build()?;
        let queue = setting::queue()?;
        let (transports, server, client) = runtime.block_on(async {
            let serving: Arc<dyn Transport> = Arc::new(connect().await?);
            let calling: Arc<dyn Transport> = Arc::new(connect().await?);
            let transports = [Arc::clone(&serving), Arc::clone(&calling)];
            let options = setting::server_options(&queue);
            let server = Server::start(serving, setting::service(), options).await?;
            let client = Client::new(calling, setting::client_options(queue)).await?;
            anyhow::Ok((transports, server, client))
        })?;
        Ok(Self {
            client,
            server,
            transports,
            runtime,
        })
    }
}

impl Row for AsyncRow {
    fn round_trips(&self, in_flight: usize, calls: u64) -> Result<Duration> {
        let tickets = Arc::new(Tickets::new(calls));
        self.runtime.block_on(async {
            let mut callers = JoinSet::new();
            for _ in 0..in_flight {
                callers.spawn(caller(self.client.clone(), Arc::clone(&tickets)));
            }
            let mut spans = Vec::with_capacity(in_flight);
            while let Some(span) = callers.join_next().await {
                spans.push(span??);
            }
            Ok(Span::over(spans))
        })
    }

    fn close(self: Box<Self>) -> Result<()> {
        let Self {
            client,
            server,
            transports,
            runtime,
        } = *self;
        runtime.block_on(async {
            client.close().await;
            let report = server.drain(setting::DRAIN).await;
            for transport in transports {
                transport.close().await?;
            }
            setting::check_drained(&report)
        })
    }
}

async fn caller(client: Client, tickets: Arc<Tickets>) -> Result<Span> {
    let began = Instant::now();
    while tickets.take() {
        setting::check(client.call(setting::METHOD, &setting::ARGUMENT).await)?;
    }
    let ended = Instant::now();
    Ok(Span { began, ended })
}
