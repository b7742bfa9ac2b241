//! Who calls and who works, for each of those that are compared.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use amqp_broker::AmqpUrl;
use anyhow::{Result, anyhow, bail};
use tokio::runtime::{Builder, Runtime};

use crate::cell::{Cell, What};
use crate::meter::{Meter, Tally};
use crate::program::URL_VARIABLE;
use crate::{
    floor, hand_amiquip, hand_amqprs, hand_lapin, hand_lapin_tasks, in_process, ours, ours_blocking,
};

/// Makes the calls of a cell, from all its clients, until the meter says stop.
pub(crate) fn call(url: Option<&AmqpUrl>, cell: &Cell, meter: &Arc<Meter>) -> Result<()> {
    thread::scope(|scope| {
        let clients: Vec<_> = (0..cell.clients.get())
            .filter(|client| cell.share(*client) > 0)
            .map(|client| scope.spawn(move || call_one(url, cell, meter, client)))
            .collect();
        clients.into_iter().try_for_each(|client| {
            let ended = client.join();
            ended.map_err(|_| anyhow!("a client panicked"))?
        })
    })
}

fn call_one(url: Option<&AmqpUrl>, cell: &Cell, meter: &Arc<Meter>, client: usize) -> Result<()> {
    let (share, tally) = (cell.share(client), &meter.tally(client));
    match (cell.what, url) {
        (What::OursMemory, _) => runtime()?.block_on(ours::in_process(cell, share, tally)),
        (What::OursMemoryBlocking, _) => ours_blocking::in_process(cell, share, tally),
        (What::Tarpc, _) => runtime()?.block_on(in_process::tarpc(cell, share, tally)),
        (What::Mpsc, _) => in_process::mpsc(cell, tally),
        (What::Machines, _) => in_process::machines(tally),
        (_, Some(url)) => call_on_a_broker(url, cell, share, tally),
        (_, None) => bail!("{URL_VARIABLE} is not set"),
    }
}

fn call_on_a_broker(url: &AmqpUrl, cell: &Cell, share: usize, tally: &Tally) -> Result<()> {
    match cell.what {
        What::Floor => floor::call(url, cell, share, tally),
        What::Lapin => runtime()?.block_on(hand_lapin::call(url, cell, share, tally)),
        What::LapinTask | What::LapinSteps => {
            runtime()?.block_on(hand_lapin_tasks::call(url, cell, share, tally))
        }
        What::Amiquip => hand_amiquip::call(url, cell, share, tally),
        What::Amqprs => runtime()?.block_on(hand_amqprs::call(url, cell, share, tally)),
        What::OursLapin | What::OursAmiquipAsync => {
            let runtime = runtime()?;
            let transport = {
                let _turn = turn();
                runtime.block_on(ours::connect(url, cell))?
            };
            runtime.block_on(async {
                ours::call(Arc::clone(&transport), cell, share, tally).await?;
                Ok(transport.close().await?)
            })
        }
        What::OursAmiquip | What::OursAmiquipThreads | What::OursLapinBlocking => {
            let transport = {
                let _turn = turn();
                ours_blocking::connect(url, cell)?
            };
            ours_blocking::call(Arc::clone(&transport), cell, share, tally)?;
            Ok(transport.close()?)
        }
        other => bail!("{other:?} is not on a broker"),
    }
}

/// Answers requests until the connection or the process ends.
pub(crate) fn work(url: &AmqpUrl, cell: &Cell, ready: impl FnOnce()) -> Result<()> {
    match cell.what {
        What::Floor => floor::work(url, cell, ready),
        What::Lapin => runtime()?.block_on(hand_lapin::work(url, cell, ready)),
        What::LapinTask | What::LapinSteps => {
            runtime()?.block_on(hand_lapin_tasks::work(url, cell, ready))
        }
        What::Amiquip => hand_amiquip::work(url, cell, ready),
        What::Amqprs => runtime()?.block_on(hand_amqprs::work(url, cell, ready)),
        What::OursLapin | What::OursAmiquipAsync => runtime()?.block_on(async {
            let transport = ours::connect(url, cell).await?;
            ours::work(transport, cell, ready).await
        }),
        What::OursAmiquip | What::OursAmiquipThreads | What::OursLapinBlocking => {
            ours_blocking::work(ours_blocking::connect(url, cell)?, cell, ready)
        }
        other => bail!("{other:?} has no worker of its own"),
    }
}

/// Clients connect one by one: a thousand at once are more than a broker takes.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Of one thread, ours and theirs alike: no number of threads was found to do better.
fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}
