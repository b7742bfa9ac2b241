//! A row with the blocking face: service, client and callers are threads.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use rpc_core::blocking::{Client, Server, Transport};
use rpc_core::{Router, TransportError};

use crate::row::{Row, Span, Tickets};
use crate::setting;

pub(crate) struct BlockingRow {
    client: Client,
    server: Server<Arc<dyn Transport>, Router>,
    transports: [Arc<dyn Transport>; 2],
}

impl BlockingRow {
    pub(crate) fn open<T: Transport>(
        connect: &impl Fn() -> Result<T, TransportError>,
    ) -> Result<Self> {
        let queue = setting::queue()?;
        let serving: Arc<dyn Transport> = Arc::new(connect()?);
        let calling: Arc<dyn Transport> = Arc::new(connect()?);
        let transports = [Arc::clone(&serving), Arc::clone(&calling)];
        let options = setting::server_options(&queue);
        let server = Server::start(serving, setting::service(), options)?;
        let client = Client::new(calling, setting::client_options(queue))?;
        Ok(Self {
            client,
            server,
            transports,
        })
    }
}

impl Row for BlockingRow {
    fn round_trips(&self, in_flight: usize, calls: u64) -> Result<Duration> {
        // The row as a whole cannot be shared by threads: the server in it cannot.
        let (client, tickets) = (&self.client, Tickets::new(calls));
        // A thread takes so long to start that the first could be done before the last is there.
        let start = Barrier::new(in_flight);
        thread::scope(|scope| {
            let callers: Vec<_> = (0..in_flight)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        caller(client, &tickets)
                    })
                })
                .collect();
            let spans: Result<Vec<Span>> = callers
                .into_iter()
                .map(|caller| caller.join().map_err(|_| anyhow!("a caller panicked"))?)
                .collect();
            Ok(Span::over(spans?))
        })
    }

    fn close(self: Box<Self>) -> Result<()> {
        let Self {
            client,
            server,
            transports,
        } = *self;
        client.close();
        let report = server.drain(setting::DRAIN);
        for transport in transports {
            transport.close()?;
        }
        setting::check_drained(&report)
    }
}

fn caller(client: &Client, tickets: &Tickets) -> Result<Span> {
    let began = Instant::now();
    while tickets.take() {
        setting::check(client.call(setting::METHOD, &setting::ARGUMENT))?;
    }
    let ended = Instant::now();
    Ok(Span { began, ended })
}
