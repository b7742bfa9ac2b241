//! lapin by hand with a task for each call and each delivery, or with each step of a delivery
//! awaited before the next: what one writes first. Here to tell what the best shape is worth.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use amqp_broker::AmqpUrl;
use anyhow::{Context, Result, bail, ensure};
use futures_util::future::{Either, select, try_join};
use futures_util::stream::StreamExt;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Consumer};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::cell::{Cell, What};
use crate::hand_lapin::{connect, correlation_id, open_inbox, open_queue, publish};
use crate::meter::Tally;

/// Makes calls until it is told to stop.
pub(crate) async fn call(url: &AmqpUrl, cell: &Cell, share: usize, tally: &Tally) -> Result<()> {
    let (_connection, channel) = connect(url, cell).await?;
    let (inbox, consumer) = open_inbox(&channel).await?;
    let client = Arc::new(Client {
        channel,
        queue: ShortString::from(&*cell.queue),
        inbox,
        body: cell.body(),
        confirms: cell.confirms,
        waiting: Mutex::default(),
        tally: tally.clone(),
    });
    let mut callers = JoinSet::new();
    for caller in 0..share {
        callers.spawn(Arc::clone(&client).call(caller));
    }
    let finish = async {
        while let Some(ended) = callers.join_next().await {
            ended??;
        }
        Ok(())
    };
    match select(
        std::pin::pin!(finish),
        std::pin::pin!(client.receive(consumer)),
    )
    .await
    {
        Either::Left((finished, _)) => finished,
        Either::Right((Ok(()), _)) => bail!("the inbox ended"),
        Either::Right((Err(error), _)) => Err(error),
    }
}

struct Client {
    channel: Channel,
    queue: ShortString,
    inbox: ShortString,
    body: Vec<u8>,
    confirms: bool,
    waiting: Mutex<HashMap<String, oneshot::Sender<Vec<u8>>>>,
    tally: Tally,
}

impl Client {
    async fn call(self: Arc<Self>, caller: usize) -> Result<()> {
        for call in 0_u64.. {
            let since = Instant::now();
            let id = format!("{caller}.{call}");
            let (sender, answer) = oneshot::channel();
            self.waiting().insert(id.clone(), sender);
            let properties = BasicProperties::default()
                .with_correlation_id(id.into())
                .with_reply_to(self.inbox.clone());
            let (body, confirms) = (&self.body, self.confirms);
            publish(
                &self.channel,
                self.queue.clone(),
                body,
                properties,
                confirms,
            )
            .await?;
            let answer = answer.await.context("no answer will come")?;
            ensure!(answer == self.body, "an answer is not what was asked");
            self.tally.answered(since);
            if !self.tally.goes_on() {
                break;
            }
        }
        Ok(())
    }

    async fn receive(&self, mut consumer: Consumer) -> Result<()> {
        while let Some(reply) = consumer.next().await {
            let reply = reply?;
            let waiter = self.waiting().remove(correlation_id(&reply));
            if let Some(waiter) = waiter {
                // Who went away wants no answer.
                let _ = waiter.send(reply.data);
            }
        }
        Ok(())
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<String, oneshot::Sender<Vec<u8>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers requests until the connection ends.
pub(crate) async fn work(url: &AmqpUrl, cell: &Cell, ready: impl FnOnce()) -> Result<()> {
    let (_connection, channel) = connect(url, cell).await?;
    let mut consumer = open_queue(&channel, cell).await?;
    ready();
    let mut tasks = JoinSet::new();
    while let Some(request) = consumer.next().await {
        let request = request?;
        if cell.what == What::LapinSteps {
            reply(&channel, &request, cell.confirms).await?;
            request.ack(BasicAckOptions::default()).await?;
            continue;
        }
        while let Some(ended) = tasks.try_join_next() {
            ended??;
        }
        tasks.spawn(answer(channel.clone(), request, cell.confirms));
    }
    Ok(())
}

async fn answer(channel: Channel, request: Delivery, confirms: bool) -> Result<()> {
    let acknowledge = async {
        let options = BasicAckOptions::default();
        Ok(channel.basic_ack(request.delivery_tag, options).await?)
    };
    if confirms {
        reply(&channel, &request, confirms).await?;
        acknowledge.await
    } else {
        try_join(reply(&channel, &request, confirms), acknowledge)
            .await
            .map(|_| ())
    }
}

async fn reply(channel: &Channel, request: &Delivery, confirms: bool) -> Result<()> {
    let inbox = request.properties.reply_to().clone().unwrap_or_default();
    let properties = BasicProperties::default().with_correlation_id(correlation_id(request).into());
    publish(channel, inbox, &request.data, properties, confirms).await
}
