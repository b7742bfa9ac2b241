//! The thread that owns a consumer: amiquip's consumer borrows its channel and cannot leave it.

use std::sync::Arc;

use amiquip::{
    AmqpValue, Channel, Consumer, ConsumerMessage, ConsumerOptions, Delivery, FieldTable,
    QueueDeclareOptions,
};
use amqp_broker::{Argument, Confirms, DIRECT_REPLY_TO, QueueDeclaration, Reach, Settled};
use crossbeam_channel::{Receiver, RecvError, Sender, never, select};
use rpc_core::{ConsumerId, ShortString, TransportError};

use crate::feed::{Feed, Order, Settle};
use crate::life::Life;
use crate::link::Side;
use crate::publishing::{Listeners, Publication, Publishing, inbox_closed};

/// How many orders are taken before acknowledgements are written.
const BATCH: usize = 256;

/// What is consumed from.
#[derive(Debug)]
pub(crate) enum Intake {
    /// Direct reply-to, together with the messages that are to be published on the same channel:
    /// the broker links the two.
    Direct(Confirms, Receiver<Box<Publication>>),
    /// A queue of our own.
    Exclusive,
    /// A work queue.
    Work(ShortString, u16),
}

/// The name of the queue, and where the library puts deliveries.
pub(crate) type Ready = (ShortString, Receiver<ConsumerMessage>);

/// All that the thread needs.
pub(crate) struct Owner {
    pub(crate) id: ConsumerId,
    pub(crate) channel: Channel,
    pub(crate) intake: Intake,
    pub(crate) feed: Arc<Feed>,
    pub(crate) orders: Receiver<Order>,
    pub(crate) life: Arc<Life>,
}

impl Owner {
    /// Sets the consumer up, reports, and serves it until nothing is left to settle.
    pub(crate) fn run(self, report: &Sender<amiquip::Result<Ready>>) {
        let listeners = self.serve(report);
        self.feed.end();
        let Self {
            id,
            channel,
            intake,
            life,
            ..
        } = self;
        if let Intake::Direct(_, publications) = intake {
            for publication in publications.try_iter() {
                publication.refuse(|| end_of_inbox(&life));
            }
        }
        // Closing the channel gives back what is not settled.
        drop(channel);
        drop(listeners);
        life.forget_consumer(id);
    }

    fn serve(&self, report: &Sender<amiquip::Result<Ready>>) -> Option<Listeners> {
        let (consumer, queue, publishing) = match begin(&self.channel, &self.intake) {
            Ok(begun) => begun,
            Err(error) => {
                // Where nobody waits for the report, the watchdog has spoken.
                let _ = report.send(Err(error));
                return None;
            }
        };
        let ready = (queue, consumer.receiver().clone());
        let mut service = Service {
            channel: &self.channel,
            consumer: Some(consumer),
            gives_back: matches!(self.intake, Intake::Work(..)),
            settled: Settled::default(),
            acks: Vec::new(),
            feed: &self.feed,
            orders: &self.orders,
            life: &self.life,
        };
        // Where nobody waits for the report, nobody will receive.
        if report.send(Ok(ready)).is_err() {
            self.feed.abandon();
        }
        let listeners = match (&self.intake, publishing) {
            (Intake::Direct(_, publications), Some(mut publishing)) => {
                service.serve_direct(publications, &mut publishing);
                Some(publishing.into_listeners())
            }
            _ => {
                service.serve();
                None
            }
        };
        service.end_consumer();
        listeners
    }
}

type Begun<'c> = (Consumer<'c>, ShortString, Option<Publishing<'c>>);

fn begin<'c>(channel: &'c Channel, intake: &Intake) -> amiquip::Result<Begun<'c>> {
    let in_acks = |no_ack| ConsumerOptions {
        no_ack,
        ..ConsumerOptions::default()
    };
    match intake {
        Intake::Work(queue, prefetch) => {
            channel.qos(0, *prefetch, false)?;
            let consumer = channel.basic_consume(queue.as_str(), in_acks(false))?;
            Ok((consumer, queue.clone(), None))
        }
        Intake::Exclusive => {
            let options = declaration(&QueueDeclaration::INBOX);
            let queue = channel.queue_declare("", options)?;
            let consumer = queue.consume(in_acks(true))?;
            // The broker's names are short strings, or it could not have sent them.
            let name = ShortString::new(queue.name()).unwrap_or_default();
            Ok((consumer, name, None))
        }
        Intake::Direct(confirms, _) => {
            let listeners = Listeners::open(channel, *confirms)?;
            let consumer = channel.basic_consume(DIRECT_REPLY_TO.as_str(), in_acks(true))?;
            let publishing = Publishing::new(channel, listeners);
            Ok((consumer, DIRECT_REPLY_TO, Some(publishing)))
        }
    }
}

/// A declaration in amiquip's words.
pub(crate) fn declaration(queue: &QueueDeclaration) -> QueueDeclareOptions {
    let arguments: FieldTable = queue
        .arguments
        .iter()
        .map(|(name, value)| {
            let value = match value {
                Argument::Text(text) => AmqpValue::LongString(text.clone()),
                Argument::Integer(number) => AmqpValue::LongLongInt(*number),
            };
            ((*name).to_owned(), value)
        })
        .collect();
    QueueDeclareOptions {
        durable: queue.durable,
        exclusive: queue.exclusive,
        auto_delete: queue.auto_delete,
        arguments,
    }
}

/// Why the service ends before all is settled.
enum Broken {
    Library(amiquip::Error),
    Silent(Option<amiquip::Error>),
    Stopped,
}

struct Service<'c> {
    channel: &'c Channel,
    consumer: Option<Consumer<'c>>,
    /// Whether deliveries await to be settled.
    gives_back: bool,
    settled: Settled,
    /// Acknowledgements that wait to be written together.
    #[expect(
        clippy::vec_box,
        reason = "they come boxed, and half a kilobyte each is too much to be sorted"
    )]
    acks: Vec<Box<Delivery>>,
    feed: &'c Feed,
    orders: &'c Receiver<Order>,
    life: &'c Life,
}

impl Service<'_> {
    fn serve(&mut self) {
        loop {
            let step = match self.orders.recv() {
                Ok(order) => self.obey_all(order),
                Err(RecvError) => Err(Broken::Stopped),
            };
            if !self.goes_on(step) {
                return;
            }
        }
    }

    fn serve_direct(
        &mut self,
        publications: &Receiver<Box<Publication>>,
        publishing: &mut Publishing<'_>,
    ) {
        let nothing = never();
        let mut inlet = publications;
        loop {
            let step = select! {
                recv(self.orders) -> order => match order {
                    Ok(order) => self.obey_all(order),
                    Err(RecvError) => Err(Broken::Stopped),
                },
                recv(inlet) -> publication => match publication {
                    // Without its consumer, the broker closes a channel that asks for direct
                    // replies (406).
                    Ok(publication) if self.consumer.is_none() => {
                        publication.refuse(|| end_of_inbox(self.life));
                        Ok(())
                    }
                    Ok(publication) => std::iter::once(publication)
                        .chain(publications.try_iter().take(BATCH))
                        .try_for_each(|publication| publishing.send(*publication))
                        .map_err(|error| Broken::Silent(Some(error))),
                    // The transport hands out no more of them; replies may still come.
                    Err(RecvError) => {
                        inlet = &nothing;
                        Ok(())
                    }
                },
                recv(publishing.listeners.confirms) -> confirm => match confirm {
                    Ok(confirm) => {
                        publishing.confirmed(confirm);
                        Ok(())
                    }
                    Err(RecvError) => Err(Broken::Silent(publishing.last_words())),
                },
                recv(publishing.listeners.returns) -> returned => match returned {
                    Ok(returned) => {
                        publishing.returned(&returned);
                        Ok(())
                    }
                    Err(RecvError) => Err(Broken::Silent(publishing.last_words())),
                },
            };
            publishing.settle();
            if !self.goes_on(step) {
                break;
            }
        }
        publishing.end(&end_of_inbox(self.life));
    }

    fn goes_on(&self, step: Result<(), Broken>) -> bool {
        match step {
            Ok(()) => self.consumer.is_some() || !self.feed.can_end(self.orders),
            // The channel of this consumer alone: its receiving end has been told by the library.
            Err(Broken::Library(error @ amiquip::Error::ServerClosedChannel { .. })) => {
                tracing::warn!(%error, "the broker closed the channel of a consumer");
                false
            }
            Err(Broken::Library(error)) => {
                self.life.lose(Side::Consume, Some(error));
                false
            }
            // A channel that publishes: its errors end the transport.
            Err(Broken::Silent(evidence)) => {
                self.life.lose(Side::Consume, evidence);
                false
            }
            Err(Broken::Stopped) => false,
        }
    }

    fn obey_all(&mut self, first: Order) -> Result<(), Broken> {
        let orders = self.orders;
        for order in std::iter::once(first).chain(orders.try_iter().take(BATCH)) {
            match order {
                Order::Settle(delivery, Settle::Ack) => self.acks.push(delivery),
                Order::Settle(delivery, how) => {
                    self.settled.note(delivery.delivery_tag());
                    delivery
                        .reject(self.channel, how == Settle::Requeue)
                        .map_err(Broken::Library)?;
                }
                Order::Cancel(done) => {
                    self.end_consumer();
                    drop(done);
                }
                Order::Idle => self.end_consumer(),
                Order::Stop => {
                    self.acknowledge()?;
                    return Err(Broken::Stopped);
                }
            }
        }
        self.acknowledge()
    }

    /// Writes the acknowledgements at hand, those of a run without a gap as one.
    fn acknowledge(&mut self) -> Result<(), Broken> {
        if self.acks.is_empty() {
            return Ok(());
        }
        let mut acks = std::mem::take(&mut self.acks);
        acks.sort_unstable_by_key(|delivery| delivery.delivery_tag());
        let tags = acks.iter().map(|delivery| delivery.delivery_tag());
        let run = match self.settled.acknowledge(tags) {
            Reach::Run(run) => run,
            Reach::Apart => 0,
        };
        for (place, delivery) in acks.drain(..).enumerate().skip(run.saturating_sub(1)) {
            let acknowledged = if place + 1 == run {
                delivery.ack_multiple(self.channel)
            } else {
                delivery.ack(self.channel)
            };
            acknowledged.map_err(Broken::Library)?;
        }
        self.acks = acks;
        Ok(())
    }

    /// Ends the consumer, and gives back what it has received and nobody has taken.
    ///
    /// After the broker's answer amiquip's I/O thread sends one more message to the consumer, and
    /// when it finds the receiver dropped it ends the whole connection. So the receiver is read until
    /// the I/O thread has dropped its own end. Where the connection is lost anyway, an inbox keeps
    /// what it has received: its receiving end still takes the replies that came before.
    fn end_consumer(&mut self) {
        let Some(consumer) = self.consumer.take() else {
            return;
        };
        let deliveries = consumer.receiver().clone();
        if let Err(error) = consumer.cancel() {
            tracing::debug!(%error, "consumer was not cancelled in order");
        }
        drop(consumer);
        if !self.gives_back && self.life.is_lost() {
            return;
        }
        while let Ok(message) = deliveries.recv() {
            let ConsumerMessage::Delivery(delivery) = message else {
                continue;
            };
            self.settled.note(delivery.delivery_tag());
            // An inbox has nothing to give back: its deliveries are settled as they are sent, and a
            // refusal of one would be an error of the channel.
            if self.gives_back {
                // Not a rejection, which a quorum queue counts as a failed attempt.
                if let Err(error) = delivery.nack(self.channel, true) {
                    tracing::debug!(%error, "the broker takes back what was not given back");
                }
            }
        }
    }
}

/// What the messages get that are open when a direct inbox ends.
fn end_of_inbox(life: &Life) -> TransportError {
    life.cause().cloned().unwrap_or_else(inbox_closed)
}
