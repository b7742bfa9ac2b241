//! Ours, blocking: all open calls in one thread, or a thread for each.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use amqp_broker::AmqpUrl;
use anyhow::{Result, anyhow, ensure};
use bytes::Bytes;
use rpc_core::CallOptions;
use rpc_core::adapt::BlockOn;
use rpc_core::blocking::{Client, Server, Transport};
use rpc_pure::memory::Echo;
use transport_amiquip::AmiquipTransport;
use transport_lapin::LapinTransport;
use transport_memory::MemoryBroker;

use crate::cell::{Cell, What};
use crate::meter::Tally;
use crate::ours::{DRAIN, amiquip, client_options, lapin, request, server_options};

/// Makes calls until it is told to stop.
pub(crate) fn call(
    transport: Arc<dyn Transport>,
    cell: &Cell,
    share: usize,
    tally: &Tally,
) -> Result<()> {
    let client = Client::new(transport, client_options(cell)?)?;
    let body = Bytes::from(cell.body());
    if cell.what == What::OursAmiquipThreads {
        by_threads(&client, &body, share, tally)?;
    } else {
        in_one_thread(&client, &body, share, tally)?;
    }
    client.close();
    Ok(())
}

/// The first that was asked is the first that is waited for.
fn in_one_thread(client: &Client, body: &Bytes, share: usize, tally: &Tally) -> Result<()> {
    let begin = || {
        let since = Instant::now();
        (
            since,
            client.begin_raw(CallOptions::default(), request(body)),
        )
    };
    let mut open: VecDeque<_> = (0..share).map(|_| begin()).collect();
    while let Some((since, call)) = open.pop_front() {
        let reply = call.wait()?;
        ensure!(reply.body == *body, "an answer is not what was asked");
        tally.answered(since);
        if tally.goes_on() {
            open.push_back(begin());
        }
    }
    Ok(())
}

fn by_threads(client: &Client, body: &Bytes, share: usize, tally: &Tally) -> Result<()> {
    thread::scope(|scope| {
        let callers: Vec<_> = (0..share)
            .map(|_| scope.spawn(|| caller(client, body, tally)))
            .collect();
        callers.into_iter().try_for_each(|caller| {
            let ended = caller.join();
            ended.map_err(|_| anyhow!("a caller panicked"))?
        })
    })
}

fn caller(client: &Client, body: &Bytes, tally: &Tally) -> Result<()> {
    while tally.goes_on() {
        let since = Instant::now();
        let reply = client.call_raw(CallOptions::default(), request(body))?;
        ensure!(reply.body == *body, "an answer is not what was asked");
        tally.answered(since);
    }
    Ok(())
}

/// Service and client on one broker inside this process, until it is told to stop.
pub(crate) fn in_process(cell: &Cell, share: usize, tally: &Tally) -> Result<()> {
    let broker = MemoryBroker::new();
    let server = Server::start(Arc::new(broker.connect()), Echo, server_options(cell)?)?;
    call(Arc::new(broker.connect()), cell, share, tally)?;
    server.drain(DRAIN);
    Ok(())
}

/// Answers requests until the process ends.
pub(crate) fn work(transport: Arc<dyn Transport>, cell: &Cell, ready: impl FnOnce()) -> Result<()> {
    let _server = Server::start(transport, Echo, server_options(cell)?)?;
    ready();
    loop {
        thread::park();
    }
}

/// A transport of the blocking face.
pub(crate) fn connect(url: &AmqpUrl, cell: &Cell) -> Result<Arc<dyn Transport>> {
    Ok(match cell.what {
        What::OursLapinBlocking => {
            let config = lapin(url, cell);
            Arc::new(BlockOn::with_runtime(|| LapinTransport::connect(config))?)
        }
        _ => Arc::new(AmiquipTransport::connect(amiquip(url, cell))?),
    })
}
