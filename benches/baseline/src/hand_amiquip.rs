//! amiquip by hand, in the best shape known: one thread on each side, all deliveries at hand
//! answered together, one acknowledgement for all of them, and the socket our own, for amiquip
//! leaves Nagle's algorithm on, with which a single call takes 44 ms.

use std::time::{Duration, Instant};

use amiquip::{
    AmqpProperties, Auth, Channel, Confirm, Connection, ConnectionOptions, ConnectionTuning,
    ConsumerMessage, ConsumerOptions, Delivery, Publish, QueueDeclareOptions,
};
use amqp_broker::{AmqpUrl, dial};
use anyhow::{Result, bail, ensure};
use crossbeam_channel::{Receiver, never, select};
use mio::net::TcpStream;

use crate::cell::Cell;
use crate::meter::Tally;
use crate::open::{OpenCalls, Unconfirmed};

/// Makes calls until it is told to stop.
pub(crate) fn call(url: &AmqpUrl, cell: &Cell, share: usize, tally: &Tally) -> Result<()> {
    let body = cell.body();
    let mut connection = connect(url)?;
    let channel = connection.open_channel(None)?;
    let confirms = confirms(&channel, cell)?;
    let returns = channel.listen_for_returns()?;
    let inbox = channel.queue_declare(
        "",
        QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        },
    )?;
    let consumer = inbox.consume(ConsumerOptions {
        no_ack: true,
        ..ConsumerOptions::default()
    })?;
    let mut calls = OpenCalls::default();
    let send = |calls: &mut OpenCalls| {
        let id = calls.open(Instant::now());
        let properties = AmqpProperties::default()
            .with_correlation_id(id.to_string())
            .with_reply_to(inbox.name().to_owned());
        publish(&channel, &cell.queue, &body, properties, cell.confirms)
    };
    for _ in 0..share {
        send(&mut calls)?;
    }
    while calls.len() > 0 {
        let first = select! {
            recv(consumer.receiver()) -> message => delivery(message?)?,
            recv(confirms) -> confirm => {
                // A reply says more than a confirm does; but the broker's "no" ends the run.
                for confirm in std::iter::once(confirm?).chain(confirms.try_iter()) {
                    ensure!(matches!(confirm, Confirm::Ack(_)), "the broker refused a request");
                }
                ensure!(returns.is_empty(), "a request reached no queue");
                continue;
            }
        };
        let mut next = Some(first);
        while let Some(reply) = next {
            ensure!(reply.body == body, "an answer is not what was asked");
            let id = reply.properties.correlation_id().as_deref();
            if let Some(since) = calls.close(id.unwrap_or_default().as_bytes()) {
                tally.answered(since);
                if tally.goes_on() {
                    send(&mut calls)?;
                }
            }
            next = consumer
                .receiver()
                .try_recv()
                .ok()
                .map(delivery)
                .transpose()?;
        }
    }
    Ok(())
}

/// Answers requests until the connection ends.
pub(crate) fn work(url: &AmqpUrl, cell: &Cell, ready: impl FnOnce()) -> Result<()> {
    let mut connection = connect(url)?;
    let channel = connection.open_channel(None)?;
    let confirms = confirms(&channel, cell)?;
    let queue = channel.queue_declare(
        &cell.queue,
        QueueDeclareOptions {
            auto_delete: true,
            ..QueueDeclareOptions::default()
        },
    )?;
    channel.qos(0, cell.prefetch.get(), false)?;
    let consumer = queue.consume(ConsumerOptions::default())?;
    ready();
    let mut worker = Worker {
        channel: &channel,
        cell,
        unacknowledged: Vec::new(),
        replies: Unconfirmed::default(),
        acknowledged: 0,
    };
    loop {
        select! {
            recv(consumer.receiver()) -> message => {
                let mut next = Some(delivery(message?)?);
                while let Some(request) = next {
                    worker.answer(request)?;
                    next = consumer.receiver().try_recv().ok().map(delivery).transpose()?;
                }
            }
            recv(confirms) -> confirm => {
                for confirm in std::iter::once(confirm?).chain(confirms.try_iter()) {
                    let Confirm::Ack(confirm) = confirm else {
                        bail!("the broker refused a reply");
                    };
                    worker.replies.confirm(confirm.delivery_tag, confirm.multiple);
                }
            }
        }
        worker.acknowledge()?;
    }
}

struct Worker<'c> {
    channel: &'c Channel,
    cell: &'c Cell,
    /// amiquip acknowledges by the delivery itself, not by its number.
    unacknowledged: Vec<Delivery>,
    replies: Unconfirmed,
    acknowledged: u64,
}

impl Worker<'_> {
    fn answer(&mut self, mut request: Delivery) -> Result<()> {
        let id = request.properties.correlation_id().clone();
        let inbox = request.properties.reply_to().clone().unwrap_or_default();
        let properties = AmqpProperties::default().with_correlation_id(id.unwrap_or_default());
        let body = std::mem::take(&mut request.body);
        publish(self.channel, &inbox, &body, properties, self.cell.confirms)?;
        if self.cell.confirms {
            self.replies.published();
        } else {
            // Only the last of them will be acknowledged.
            self.unacknowledged.clear();
        }
        self.unacknowledged.push(request);
        Ok(())
    }

    /// Acknowledges all that may be, at once.
    fn acknowledge(&mut self) -> Result<()> {
        let last = if self.cell.confirms {
            let count = (self.replies.done() - self.acknowledged) as usize;
            self.acknowledged += count as u64;
            self.unacknowledged.drain(..count).next_back()
        } else {
            self.unacknowledged.pop()
        };
        if let Some(last) = last {
            last.ack_multiple(self.channel)?;
        }
        Ok(())
    }
}

fn publish(
    channel: &Channel,
    queue: &str,
    body: &[u8],
    properties: AmqpProperties,
    mandatory: bool,
) -> Result<()> {
    let publish = Publish {
        body,
        routing_key: queue.to_owned(),
        mandatory,
        immediate: false,
        properties,
    };
    Ok(channel.basic_publish("", publish)?)
}

/// What the broker confirms; nothing when it is not asked to.
fn confirms(channel: &Channel, cell: &Cell) -> Result<Receiver<Confirm>> {
    if !cell.confirms {
        return Ok(never());
    }
    let confirms = channel.listen_for_publisher_confirms()?;
    channel.enable_publisher_confirms()?;
    Ok(confirms)
}

fn delivery(message: ConsumerMessage) -> Result<Delivery> {
    match message {
        ConsumerMessage::Delivery(delivery) => Ok(delivery),
        other => bail!("the consumer ended: {other:?}"),
    }
}

fn connect(url: &AmqpUrl) -> Result<Connection> {
    let stream = dial(url, Instant::now() + Duration::from_secs(20))?;
    let options = ConnectionOptions::<Auth>::default()
        .auth(Auth::Plain {
            username: url.username().to_owned(),
            password: url.expose_password().to_owned(),
        })
        .virtual_host(url.vhost())
        .heartbeat(url.heartbeat());
    // A small publish is three messages to the I/O thread, and there is room for 16 unless told.
    let tuning = ConnectionTuning::default().mem_channel_bound(1024);
    Ok(Connection::insecure_open_stream(
        TcpStream::from_stream(stream)?,
        options,
        tuning,
    )?)
}
