//! Publishing on one channel: what is sent, and what the broker says to it.

use std::time::Instant;

use amiquip::{AmqpProperties, Channel, Publish, Return};
use amqp_broker::{Confirms, is_direct_reply_address};
use bytes::Bytes;
use crossbeam_channel::Receiver;
use rpc_core::{Address, Confirm, ErrorKind, Message, ShortString, TransportError, Verdict};

use crate::convert::properties_of;
use crate::error;
use crate::ledger::{Entry, Ledger};

/// A message on its way to a channel.
#[derive(Debug)]
pub(crate) struct Publication {
    to: Address,
    properties: AmqpProperties,
    body: Bytes,
    correlation_id: Option<ShortString>,
    message_id: Option<ShortString>,
    deadline: Instant,
    verdict: Option<Verdict>,
}

impl Publication {
    /// Everything that can be made ready in the caller's thread is.
    pub(crate) fn new(
        to: &Address,
        message: Message,
        deadline: Instant,
        confirms: Confirms,
    ) -> (Box<Self>, Confirm) {
        let (verdict, confirm) = match confirms {
            Confirms::On => {
                let (verdict, confirm) = Confirm::open();
                (Some(verdict), confirm)
            }
            Confirms::Off => (None, Confirm::unrequested()),
        };
        let publication = Box::new(Self {
            properties: properties_of(&message),
            to: to.clone(),
            body: message.body,
            correlation_id: message.correlation_id,
            message_id: message.message_id,
            deadline,
            verdict,
        });
        (publication, confirm)
    }

    /// Until when it may be handed over.
    pub(crate) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Settles it with an error instead of sending it.
    pub(crate) fn refuse(self, why: impl FnOnce() -> TransportError) {
        if let Some(verdict) = self.verdict {
            verdict.settle(Err(why().unsent()));
        }
    }

    /// Without confirms nobody would learn of a return. And RabbitMQ 3.10 returns a message to a
    /// direct reply address although it has delivered it.
    fn is_mandatory(&self) -> bool {
        self.verdict.is_some() && !is_direct_reply_address(&self.to)
    }
}

/// What the broker says on a publishing channel.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) confirms: Receiver<amiquip::Confirm>,
    pub(crate) returns: Receiver<Return>,
}

impl Listeners {
    /// Begins to listen. Blocks until the broker has answered.
    pub(crate) fn open(channel: &Channel, confirms: Confirms) -> amiquip::Result<Self> {
        let listeners = Self {
            confirms: channel.listen_for_publisher_confirms()?,
            returns: channel.listen_for_returns()?,
        };
        if confirms == Confirms::On {
            channel.enable_publisher_confirms()?;
        }
        Ok(listeners)
    }
}

/// A channel that publishes.
pub(crate) struct Publishing<'c> {
    channel: &'c Channel,
    pub(crate) listeners: Listeners,
    ledger: Ledger,
}

impl<'c> Publishing<'c> {
    pub(crate) const fn new(channel: &'c Channel, listeners: Listeners) -> Self {
        Self {
            channel,
            listeners,
            ledger: Ledger::new(),
        }
    }

    /// Hands a message to the library, which may block while its buffers are full.
    pub(crate) fn send(&mut self, publication: Publication) -> amiquip::Result<()> {
        if publication.deadline <= Instant::now() {
            publication.refuse(overdue);
            return Ok(());
        }
        let mandatory = publication.is_mandatory();
        let Publication {
            to,
            properties,
            body,
            correlation_id,
            message_id,
            verdict,
            ..
        } = publication;
        let exchange = to.exchange_name().as_str().to_owned();
        let routing_key = to.routing_key().as_str().to_owned();
        // Entered first: when the library fails half-way, the message may have been sent.
        if let Some(verdict) = verdict {
            self.ledger.push(Entry {
                to,
                correlation_id,
                message_id,
                verdict,
            });
        }
        let publish = Publish {
            body: &body,
            routing_key,
            mandatory,
            immediate: false,
            properties,
        };
        self.channel.basic_publish(exchange, publish)
    }

    /// Takes in what one confirm says. On the wire a return comes before the confirm of its message,
    /// and the library's one I/O thread has queued it before; so what is returned is known now.
    pub(crate) fn confirmed(&mut self, confirm: amiquip::Confirm) {
        self.take_returns();
        self.ledger.confirmed(confirm);
    }

    /// Takes in what one return says.
    pub(crate) fn returned(&mut self, returned: &Return) {
        self.ledger.returned(returned);
    }

    /// Takes in all that the broker has said.
    pub(crate) fn settle(&mut self) {
        while let Ok(confirm) = self.listeners.confirms.try_recv() {
            self.confirmed(confirm);
        }
        self.take_returns();
    }

    /// Whether the broker has decided everything.
    pub(crate) fn is_settled(&self) -> bool {
        self.ledger.is_empty()
    }

    /// Settles all that is open with the cause of the end, after what the broker has said.
    pub(crate) fn end(&mut self, cause: &TransportError) {
        self.settle();
        self.ledger.end(cause);
    }

    /// What must outlive the channel: where nobody listens, amiquip writes what is returned into the
    /// log, body and all.
    pub(crate) fn into_listeners(self) -> Listeners {
        self.listeners
    }

    /// What a channel died of that no longer speaks. Any request tells, and this one would change
    /// nothing if it could still be sent: nothing is acknowledged on this channel.
    pub(crate) fn last_words(&self) -> Option<amiquip::Error> {
        self.channel.ack_all().err()
    }

    fn take_returns(&mut self) {
        while let Ok(returned) = self.listeners.returns.try_recv() {
            self.ledger.returned(&returned);
        }
    }
}

/// What a publish gets whose replies would have come to a direct inbox that is closed.
pub(crate) fn inbox_closed() -> TransportError {
    error::new(ErrorKind::Closed, "publish").with_detail("the direct inbox was closed")
}

/// What a publish gets that could not be handed over in time.
pub(crate) fn overdue() -> TransportError {
    error::new(ErrorKind::Timeout, "publish").with_detail("it could not be handed over in time")
}
