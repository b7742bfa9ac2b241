//! lapin by hand, all that is at hand together: the best shape known.
//!
//! One thread on each side, and deliveries drained in batches, with one acknowledgement for each.
//! With confirms all publishes are handed over at once, and looked at again when lapin says so.
//! Without, nothing is awaited: lapin has a message when its future was first polled, that it was
//! written a moment later is no promise, and an error of the connection ends the consumer too.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Instant;

use amqp_broker::AmqpUrl;
use anyhow::{Context, Result, ensure};
use futures_util::future::FutureExt;
use futures_util::stream::{FuturesOrdered, FuturesUnordered, StreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};

use crate::arrivals::Arrivals;
use crate::cell::Cell;
use crate::meter::Tally;
use crate::open::OpenCalls;

/// Makes calls until it is told to stop.
pub(crate) async fn call(url: &AmqpUrl, cell: &Cell, share: usize, tally: &Tally) -> Result<()> {
    let body = cell.body();
    let (_connection, channel) = connect(url, cell).await?;
    let (inbox, consumer) = open_inbox(&channel).await?;
    let queue = ShortString::from(&*cell.queue);
    let mut calls = OpenCalls::default();
    let mut unconfirmed = FuturesUnordered::new();
    let request = |calls: &mut OpenCalls, since: Instant| {
        let properties = BasicProperties::default()
            .with_correlation_id(calls.open(since).to_string().into())
            .with_reply_to(inbox.clone());
        publish(&channel, queue.clone(), &body, properties, cell.confirms)
    };
    let mut batches = consumer.ready_chunks(BATCH);
    let mut arrivals = Arrivals::new(cell, share, tally);
    let mut due = Vec::new();
    while arrivals.go_on() || calls.len() > 0 {
        let batch = poll_fn(|context| {
            while let Poll::Ready(Some(confirmed)) = unconfirmed.poll_next_unpin(context) {
                confirmed?;
            }
            arrivals.poll(context, &mut due);
            match batches.poll_next_unpin(context) {
                Poll::Ready(batch) => Poll::Ready(batch.context("the inbox ended")),
                Poll::Pending if due.is_empty() && (arrivals.go_on() || calls.len() > 0) => {
                    Poll::Pending
                }
                Poll::Pending => Poll::Ready(Ok(Vec::new())),
            }
        });
        for reply in batch.await? {
            let reply = reply?;
            ensure!(reply.data == body, "an answer is not what was asked");
            if let Some(since) = calls.close(correlation_id(&reply).as_bytes()) {
                tally.answered(since);
                arrivals.answered(&mut due);
            }
        }
        for since in due.drain(..) {
            let request = request(&mut calls, since);
            if cell.confirms {
                unconfirmed.push(request);
            } else {
                request.now_or_never().transpose()?;
            }
        }
    }
    Ok(())
}

/// Answers requests until the connection ends.
pub(crate) async fn work(url: &AmqpUrl, cell: &Cell, ready: impl FnOnce()) -> Result<()> {
    let (_connection, channel) = connect(url, cell).await?;
    let mut batches = open_queue(&channel, cell).await?.ready_chunks(BATCH);
    ready();
    let mut unconfirmed = FuturesOrdered::new();
    loop {
        let mut done = None;
        let batch = poll_fn(|context| {
            while let Poll::Ready(Some(confirmed)) = unconfirmed.poll_next_unpin(context) {
                done = Some(confirmed?);
            }
            match batches.poll_next_unpin(context) {
                Poll::Ready(batch) => Poll::Ready(batch.context("the consumer ended")),
                Poll::Pending if done.is_none() => Poll::Pending,
                Poll::Pending => Poll::Ready(Ok(Vec::new())),
            }
        });
        for request in batch.await? {
            let request = request?;
            let tag = request.delivery_tag;
            let reply = answer(&channel, request, cell.confirms);
            if cell.confirms {
                unconfirmed.push_back(reply);
            } else {
                reply.now_or_never().transpose()?;
                done = Some(tag);
            }
        }
        if let Some(done) = done {
            let ack = channel.basic_ack(done, BasicAckOptions { multiple: true });
            ack.now_or_never().transpose()?;
        }
    }
}

/// Replies, and tells which delivery can be acknowledged then.
async fn answer(channel: &Channel, request: Delivery, confirms: bool) -> Result<u64> {
    let inbox = request.properties.reply_to().clone().unwrap_or_default();
    let properties =
        BasicProperties::default().with_correlation_id(correlation_id(&request).into());
    publish(channel, inbox, &request.data, properties, confirms).await?;
    Ok(request.delivery_tag)
}

/// Publishes, and ends when the message is written, or, where the broker confirms, confirmed.
pub(crate) async fn publish(
    channel: &Channel,
    queue: ShortString,
    body: &[u8],
    properties: BasicProperties,
    mandatory: bool,
) -> Result<()> {
    let options = BasicPublishOptions {
        mandatory,
        immediate: false,
    };
    let written = channel.basic_publish(ShortString::default(), queue, options, body, properties);
    let confirmation = written.await?.await?;
    ensure!(
        matches!(
            confirmation,
            Confirmation::Ack(None) | Confirmation::NotRequested
        ),
        "the broker refused or returned a message"
    );
    Ok(())
}

pub(crate) async fn connect(url: &AmqpUrl, cell: &Cell) -> Result<(Connection, Channel)> {
    let uri = format!(
        "amqp://{}:{}@{}:{}/{}",
        url.username(),
        url.expose_password(),
        url.host(),
        url.port(),
        percent_encoding::utf8_percent_encode(url.vhost(), percent_encoding::NON_ALPHANUMERIC)
    );
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    if cell.confirms {
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
    }
    Ok((connection, channel))
}

pub(crate) async fn open_inbox(channel: &Channel) -> Result<(ShortString, Consumer)> {
    let options = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare(ShortString::default(), options, FieldTable::default())
        .await?;
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let inbox = queue.name().clone();
    let consumer = channel
        .basic_consume(
            inbox.clone(),
            ShortString::default(),
            options,
            FieldTable::default(),
        )
        .await?;
    Ok((inbox, consumer))
}

pub(crate) async fn open_queue(channel: &Channel, cell: &Cell) -> Result<Consumer> {
    let queue = ShortString::from(&*cell.queue);
    let options = QueueDeclareOptions {
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(queue.clone(), options, FieldTable::default())
        .await?;
    channel
        .basic_qos(cell.prefetch.get(), BasicQosOptions::default())
        .await?;
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(
        queue,
        ShortString::default(),
        options,
        FieldTable::default(),
    );
    Ok(consumer.await?)
}

pub(crate) fn correlation_id(delivery: &Delivery) -> &str {
    delivery
        .properties
        .correlation_id()
        .as_ref()
        .map_or("", ShortString::as_str)
}

/// The most deliveries that are taken together.
const BATCH: usize = 256;
