//! What needs no broker: tarpc over a channel of its own, two threads and two channels of std, and
//! the machines alone.

use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use bytes::Bytes;
use futures_util::{StreamExt, future};
use rpc_pure::machines::{Caller, Responder, round_trip};
use tarpc::server::{BaseChannel, Channel, serve};
use tarpc::{RequestName, client, context, transport};
use tokio::task::JoinSet;

use crate::cell::Cell;
use crate::meter::Tally;

/// tarpc's client and server, joined by the channel it has for tests: tasks of one thread, as ours
/// on the in-process broker are.
pub(crate) async fn tarpc(cell: &Cell, share: usize, tally: &Tally) -> Result<()> {
    let (near, far) = transport::channel::unbounded();
    let serve = serve(|_, Body(body)| future::ready(Ok(body)));
    let server = BaseChannel::with_defaults(far).execute(serve);
    let server = tokio::spawn(server.for_each(|answer| async {
        tokio::spawn(answer);
    }));
    let mut config = client::Config::default();
    config.pending_request_buffer = config.pending_request_buffer.max(share);
    config.max_in_flight_requests = config.max_in_flight_requests.max(share);
    let client = client::new(config, near).spawn();
    let body = Bytes::from(cell.body());
    let mut callers = JoinSet::new();
    for _ in 0..share {
        let (client, body, tally) = (client.clone(), body.clone(), tally.clone());
        callers.spawn(async move {
            while tally.goes_on() {
                let since = Instant::now();
                let answer = client.call(context::current(), Body(body.clone())).await?;
                ensure!(answer == body, "an answer is not what was asked");
                tally.answered(since);
            }
            Ok(())
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    server.abort();
    Ok(())
}

/// What is asked; tarpc wants a name of it for its traces.
struct Body(Bytes);

impl RequestName for Body {
    fn name(&self) -> &str {
        "echo"
    }
}

/// One call at a time between two threads, by two channels of the standard library: what two
/// switches of threads cost.
pub(crate) fn mpsc(cell: &Cell, tally: &Tally) -> Result<()> {
    let (ask, asked) = mpsc::channel::<Bytes>();
    let (answer, answers) = mpsc::channel();
    let worker = thread::spawn(move || {
        for body in asked {
            if answer.send(body).is_err() {
                break;
            }
        }
    });
    let body = Bytes::from(cell.body());
    while tally.goes_on() {
        let since = Instant::now();
        ask.send(body.clone())?;
        ensure!(answers.recv()? == body, "an answer is not what was asked");
        tally.answered(since);
    }
    drop(ask);
    worker.join().map_err(|_| anyhow!("the worker panicked"))
}

/// The whole life of calls, one after the other, where everything is decided and no I/O is done.
pub(crate) fn machines(tally: &Tally) -> Result<()> {
    let (mut caller, mut responder) = (Caller::with_pending(0), Responder::default());
    while tally.goes_on() {
        let since = Instant::now();
        for _ in 0..LIVES {
            round_trip(&mut caller, &mut responder);
        }
        tally.answered_together(since, LIVES);
    }
    Ok(())
}

/// How many lives are timed together: one is no longer than looking at the clock.
const LIVES: u32 = 256;
