//! Who calls and who works, for each of those that are compared.

use std::sync::Arc;
use std::thread;

use amqp_broker::AmqpUrl;
use anyhow::{Result, anyhow};
use tokio::runtime::{Builder, Runtime};

use crate::cell::{Cell, What};
use crate::meter::Meter;
use crate::{floor, hand_amiquip, hand_lapin, hand_lapin_tasks, ours, ours_blocking};

/// Makes the calls of a cell, from all its clients, until the meter says stop.
pub(crate) fn call(url: &AmqpUrl, cell: &Cell, meter: &Arc<Meter>) -> Result<()> {
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

fn call_one(url: &AmqpUrl, cell: &Cell, meter: &Arc<Meter>, client: usize) -> Result<()> {
    let (share, tally) = (cell.share(client), &meter.tally(client));
    match cell.what {
        What::Floor => floor::call(url, cell, share, tally),
        What::Lapin => runtime()?.block_on(hand_lapin::call(url, cell, share, tally)),
        What::LapinTask | What::LapinSteps => {
            runtime()?.block_on(hand_lapin_tasks::call(url, cell, share, tally))
        }
        What::Amiquip => hand_amiquip::call(url, cell, share, tally),
        What::OursLapin | What::OursAmiquipAsync => runtime()?.block_on(async {
            let transport = ours::connect(url, cell).await?;
            ours::call(Arc::clone(&transport), cell, share, tally).await?;
            Ok(transport.close().await?)
        }),
        What::OursAmiquip | What::OursLapinBlocking => {
            let transport = ours_blocking::connect(url, cell)?;
            ours_blocking::call(Arc::clone(&transport), cell, share, tally)?;
            Ok(transport.close()?)
        }
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
        What::OursLapin | What::OursAmiquipAsync => runtime()?.block_on(async {
            let transport = ours::connect(url, cell).await?;
            ours::work(transport, cell, ready).await
        }),
        What::OursAmiquip | What::OursLapinBlocking => {
            ours_blocking::work(ours_blocking::connect(url, cell)?, cell, ready)
        }
    }
}

/// Of one thread, ours and theirs alike: no number of threads was found to do better.
fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}
