//! amqprs by hand: one task on each side, all deliveries at hand answered together, and one
//! acknowledgement for all of them. amqprs writes each message by itself.

use std::time::Instant;

use amqp_broker::AmqpUrl;
use amqprs::callbacks::ChannelCallback;
use amqprs::channel::{
    BasicAckArguments, BasicConsumeArguments, BasicPublishArguments, BasicQosArguments, Channel,
    ConfirmSelectArguments, ConsumerMessage, QueueDeclareArguments,
};
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::error::Error;
use amqprs::{Ack, BasicProperties, Cancel, CloseChannel, Nack, Return};
use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::cell::Cell;
use crate::meter::Tally;
use crate::open::{OpenCalls, Unconfirmed};

/// Makes calls until it is told to stop.
pub(crate) async fn call(url: &AmqpUrl, cell: &Cell, share: usize, tally: &Tally) -> Result<()> {
    let body = cell.body();
    let Opened {
        _connection,
        channel,
        mut confirms,
    } = Opened::open(url, cell).await?;
    let inbox = QueueDeclareArguments::exclusive_server_named();
    let declared = channel.queue_declare(inbox).await?;
    let (inbox, ..) = declared.context("the broker did not name the inbox")?;
    let consume = BasicConsumeArguments::new(&inbox, "")
        .manual_ack(false)
        .finish();
    let (_tag, mut replies) = channel.basic_consume_rx(consume).await?;
    let mut calls = OpenCalls::default();
    let mut batch = Vec::new();
    let mut due = share;
    loop {
        for _ in 0..std::mem::take(&mut due) {
            let id = calls.open(Instant::now()).to_string();
            let mut properties = BasicProperties::default();
            properties.with_correlation_id(&id).with_reply_to(&inbox);
            publish(
                &channel,
                &cell.queue,
                properties,
                body.clone(),
                cell.confirms,
            )
            .await?;
        }
        if calls.len() == 0 {
            return Ok(());
        }
        // A reply says more than a confirm does; but the broker's "no" ends the run.
        while let Ok(confirm) = confirms.try_recv() {
            ensure!(
                confirm != Confirm::Refused,
                "the broker refused or returned a request"
            );
        }
        ensure!(
            replies.recv_many(&mut batch, BATCH).await > 0,
            "the inbox ended"
        );
        for reply in batch.drain(..) {
            ensure!(
                reply.content.as_ref() == Some(&body),
                "an answer is not what was asked"
            );
            if let Some(since) = calls.close(correlation_id(&reply).as_bytes()) {
                tally.answered(since);
                due += usize::from(tally.goes_on());
            }
        }
    }
}

/// Answers requests until the connection ends.
pub(crate) async fn work(url: &AmqpUrl, cell: &Cell, ready: impl FnOnce()) -> Result<()> {
    let Opened {
        _connection,
        channel,
        mut confirms,
    } = Opened::open(url, cell).await?;
    let queue = QueueDeclareArguments::transient_autodelete(&cell.queue);
    channel.queue_declare(queue).await?;
    channel
        .basic_qos(BasicQosArguments::new(0, cell.prefetch.get(), false))
        .await?;
    let consume = BasicConsumeArguments::new(&cell.queue, "")
        .manual_ack(true)
        .finish();
    let (_tag, mut requests) = channel.basic_consume_rx(consume).await?;
    ready();
    let mut replies = Unconfirmed::default();
    let mut acknowledged = 0;
    let mut batch = Vec::new();
    loop {
        let mut done = acknowledged;
        tokio::select! {
            biased;
            confirm = confirms.recv(), if cell.confirms => {
                let mut next = Some(confirm.context("the channel ended")?);
                while let Some(confirm) = next {
                    let Confirm::Published { number, multiple } = confirm else {
                        bail!("the broker refused or returned a reply");
                    };
                    replies.confirm(number, multiple);
                    next = confirms.try_recv().ok();
                }
                done = replies.done();
            }
            received = requests.recv_many(&mut batch, BATCH) => {
                ensure!(received > 0, "the consumer ended");
                for request in batch.drain(..) {
                    let tag = request.deliver.as_ref().map(|deliver| deliver.delivery_tag());
                    answer(&channel, request, cell.confirms).await?;
                    if cell.confirms {
                        replies.published();
                    } else {
                        done = tag.unwrap_or(done);
                    }
                }
            }
        }
        if done > acknowledged {
            channel
                .basic_ack(BasicAckArguments::new(done, true))
                .await?;
            acknowledged = done;
        }
    }
}

async fn answer(channel: &Channel, request: ConsumerMessage, mandatory: bool) -> Result<()> {
    let asked = request.basic_properties.unwrap_or_default();
    let inbox = asked.reply_to().context("a request without an address")?;
    let mut properties = BasicProperties::default();
    properties.with_correlation_id(asked.correlation_id().map_or("", |id| id));
    publish(
        channel,
        inbox,
        properties,
        request.content.unwrap_or_default(),
        mandatory,
    )
    .await
}

async fn publish(
    channel: &Channel,
    queue: &str,
    properties: BasicProperties,
    body: Vec<u8>,
    mandatory: bool,
) -> Result<()> {
    let mut to = BasicPublishArguments::new("", queue);
    to.mandatory(mandatory);
    Ok(channel.basic_publish(properties, body, to).await?)
}

fn correlation_id(message: &ConsumerMessage) -> &str {
    let properties = message.basic_properties.as_ref();
    properties
        .and_then(BasicProperties::correlation_id)
        .map_or("", |id| id)
}

struct Opened {
    _connection: Connection,
    channel: Channel,
    confirms: UnboundedReceiver<Confirm>,
}

impl Opened {
    async fn open(url: &AmqpUrl, cell: &Cell) -> Result<Self> {
        let (user, password) = (url.username(), url.expose_password());
        let mut arguments = OpenConnectionArguments::new(url.host(), url.port(), user, password);
        arguments.virtual_host(url.vhost());
        let connection = Connection::open(&arguments).await?;
        let channel = connection.open_channel(None).await?;
        let (sender, confirms) = unbounded_channel();
        channel.register_callback(Told(sender)).await?;
        if cell.confirms {
            channel
                .confirm_select(ConfirmSelectArguments::default())
                .await?;
        }
        Ok(Self {
            _connection: connection,
            channel,
            confirms,
        })
    }
}

/// What the broker says to publishes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Confirm {
    Published { number: u64, multiple: bool },
    Refused,
}

struct Told(UnboundedSender<Confirm>);

impl Told {
    fn tell(&self, confirm: Confirm) {
        // At the end nobody listens any more.
        let _ = self.0.send(confirm);
    }
}

#[async_trait]
impl ChannelCallback for Told {
    async fn close(&mut self, _: &Channel, _: CloseChannel) -> Result<(), Error> {
        Ok(())
    }

    async fn cancel(&mut self, _: &Channel, _: Cancel) -> Result<(), Error> {
        Ok(())
    }

    async fn flow(&mut self, _: &Channel, active: bool) -> Result<bool, Error> {
        Ok(active)
    }

    async fn publish_ack(&mut self, _: &Channel, ack: Ack) {
        self.tell(Confirm::Published {
            number: ack.delivery_tag(),
            multiple: ack.mutiple(),
        });
    }

    async fn publish_nack(&mut self, _: &Channel, _: Nack) {
        self.tell(Confirm::Refused);
    }

    async fn publish_return(&mut self, _: &Channel, _: Return, _: BasicProperties, _: Vec<u8>) {
        self.tell(Confirm::Refused);
    }
}

/// The most deliveries that are taken together.
const BATCH: usize = 256;
