//! The transport itself: the verbs of the contract.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use amiquip::{AmqpValue, FieldTable};
use amqp_broker::{
    AmqpConfig, Confirms, DIRECT_REPLY_TO, DirectReplyTo, DirectReplyToRefused, QueueDeclaration,
    direct_reply_to_is_safe, is_direct_reply_address,
};
use crossbeam_channel::{SendTimeoutError, Sender, TrySendError};
use rpc_core::blocking::{self, Transport};
use rpc_core::{
    AckToken, Address, Confirm, ConsumeOptions, ConsumerId, ErrorKind, Fate, Inbox, Message,
    QueueSpec, Source, TransportError,
};

use crate::consumer::Consumer;
use crate::error;
use crate::feed::{CannotSettle, Feed, Settle};
use crate::life::{Known, Life};
use crate::link::{Link, Side, too_late};
use crate::owner::{Intake, Owner, declaration};
use crate::publisher::{Publisher, ROOM};
use crate::publishing::{Listeners, Publication, inbox_closed, overdue};

/// RabbitMQ through amiquip: blocking, over two connections.
///
/// See the [crate's documentation](crate) for what it does to contain a library that is no longer
/// maintained.
pub struct AmiquipTransport {
    life: Arc<Life>,
    confirms: Confirms,
    publications: Sender<Box<Publication>>,
    stop: Sender<Instant>,
    publisher: Mutex<Option<JoinHandle<()>>>,
    direct_reply_to: Result<(), DirectReplyToRefused>,
    /// The direct inbox, open or being opened, whose channel its requests must be published on.
    direct: RwLock<Option<(ConsumerId, Sender<Box<Publication>>)>>,
}

impl AmiquipTransport {
    /// Connects, with one connection to consume and one to publish, and starts the publisher.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unauthenticated`], after the three seconds that RabbitMQ takes to say so;
    /// [`ErrorKind::Denied`] for a virtual host that is not there; [`ErrorKind::Connect`] for
    /// whatever else keeps the broker from answering within the configured time;
    /// [`ErrorKind::Unsupported`] for `amqps`, which amiquip only speaks through OpenSSL.
    pub fn connect(config: AmqpConfig) -> Result<Self, TransportError> {
        if config.url.uses_tls() {
            return Err(error::new(ErrorKind::Unsupported, "connect")
                .with_detail("this transport is built without TLS: use the lapin one for amqps"));
        }
        let deadline = Instant::now() + config.timeouts.connect;
        let (consume, consume_notices, _) = Link::open(&config, Side::Consume, deadline)?;
        let (publish, notices, properties) = Link::open(&config, Side::Publish, deadline)?;
        let life = Arc::new(Life::new(consume, publish, config.url, config.timeouts));
        let guard = life.publish.cut_after(deadline, "connect")?;
        let opened = life.publish.open_channel().map(|channel| {
            let channel = channel?;
            let listeners = Listeners::open(&channel, config.confirms)?;
            Ok((channel, listeners))
        });
        let (channel, listeners) = match opened {
            Some(Ok(opened)) => opened,
            Some(Err(_)) if guard.has_fired() => return Err(too_late(&life.url)),
            Some(Err(error)) => return Err(error::of_handshake(&error, &life.url)),
            None => return Err(life.refusal("connect")),
        };
        drop(guard);
        let (publications, to_publish) = crossbeam_channel::bounded(ROOM);
        let (stop, stopped) = crossbeam_channel::bounded(1);
        let publisher = Publisher {
            channel,
            listeners,
            publications: to_publish,
            stop: stopped,
            notices,
            consume_notices,
            life: Arc::clone(&life),
        };
        let publisher = thread::Builder::new()
            .name("amq-publisher".to_owned())
            .spawn(move || publisher.run())
            .map_err(|error| no_thread("connect", error))?;
        Ok(Self {
            life,
            confirms: config.confirms,
            publications,
            stop,
            publisher: Mutex::new(Some(publisher)),
            direct_reply_to: match config.direct_reply_to {
                DirectReplyTo::Forced => Ok(()),
                DirectReplyTo::WhereSafe => direct_reply_to_is_safe(
                    text(&properties, "product"),
                    text(&properties, "version"),
                ),
            },
            direct: RwLock::new(None),
        })
    }

    /// Where a message is published: replies to the direct inbox come to the channel that asked.
    fn outlet(
        &self,
        message: &Message,
    ) -> Result<Option<Sender<Box<Publication>>>, TransportError> {
        if message.reply_to.as_ref() != Some(&DIRECT_REPLY_TO) {
            return Ok(None);
        }
        let direct = self.direct.read().unwrap_or_else(PoisonError::into_inner);
        match &*direct {
            Some((id, publications)) if self.is_open(*id) => Ok(Some(publications.clone())),
            // The broker would close the channel over it (406).
            _ => Err(error::new(ErrorKind::Misuse, "publish")
                .with_detail("no direct inbox is open to reply to")),
        }
    }

    fn intake(&self, options: ConsumeOptions, id: ConsumerId) -> Result<Intake, TransportError> {
        match options.source {
            Source::Queue(queue) => Ok(Intake::Work(queue, options.prefetch.get())),
            Source::Inbox(Inbox::Exclusive) => Ok(Intake::Exclusive),
            Source::Inbox(Inbox::Direct) => {
                self.check_direct_reply_to("consume")?;
                let (publications, to_publish) = crossbeam_channel::bounded(ROOM);
                let mut direct = self.direct.write().unwrap_or_else(PoisonError::into_inner);
                if let Some((known, _)) = &*direct
                    // One that is not listed yet is being opened by another thread.
                    && (self.is_open(*known) || matches!(self.life.consumer(*known), Known::Foreign))
                {
                    return Err(error::new(ErrorKind::Unsupported, "consume").with_detail(
                        "a direct inbox is open: all have one name, so a second one would take \
                         its requests",
                    ));
                }
                *direct = Some((id, publications));
                Ok(Intake::Direct(self.confirms, to_publish))
            }
            _ => Err(error::new(ErrorKind::Unsupported, "consume")
                .with_detail("this source is not known here")),
        }
    }

    fn is_open(&self, id: ConsumerId) -> bool {
        matches!(self.life.consumer(id), Known::Here(feed) if !feed.is_cancelled())
    }

    fn check_direct_reply_to(&self, operation: &'static str) -> Result<(), TransportError> {
        self.direct_reply_to.as_ref().map_err(|refused| {
            error::new(ErrorKind::Unsupported, operation)
                .with_detail("direct reply-to is not safe with this broker")
                .with_source(refused.clone())
                .unsent()
        })?;
        Ok(())
    }

    fn forget_direct(&self, id: ConsumerId) {
        let mut direct = self.direct.write().unwrap_or_else(PoisonError::into_inner);
        if direct.as_ref().is_some_and(|(known, _)| *known == id) {
            *direct = None;
        }
    }

    fn settle(
        &self,
        token: &AckToken,
        how: Settle,
        operation: &'static str,
    ) -> Result<(), TransportError> {
        let foreign = || {
            error::new(ErrorKind::Misuse, operation)
                .with_detail("the token is not of an open delivery of this transport")
        };
        match self.life.consumer(token.consumer()) {
            Known::Foreign => Err(foreign()),
            Known::Over => Err(self.too_late(operation)),
            Known::Here(feed) => {
                self.life.check(operation)?;
                match feed.settle(token.tag(), how) {
                    Ok(()) => Ok(()),
                    Err(CannotSettle::Unknown) => Err(foreign()),
                    Err(CannotSettle::Over) => Err(self.too_late(operation)),
                }
            }
        }
    }

    fn too_late(&self, operation: &'static str) -> TransportError {
        match self.life.check(operation) {
            Err(ended) => ended,
            Ok(()) => error::new(ErrorKind::Closed, operation)
                .with_detail("the channel of its consumer is closed"),
        }
    }
}

impl Transport for AmiquipTransport {
    fn name(&self) -> &'static str {
        error::NAME
    }

    fn declare(&self, queue: &QueueSpec) -> Result<(), TransportError> {
        self.life.check("declare")?;
        let declarations = QueueDeclaration::all_of(queue)
            .map_err(|why| error::new(why.error_kind(), "declare").with_detail(why.to_string()))?;
        let deadline = Instant::now() + self.life.timeouts.verb;
        let guard = self.life.consume.cut_after(deadline, "declare")?;
        // A refusal closes the channel, so each declaration gets one of its own.
        let answer = self.life.consume.open_channel().map(|channel| {
            let channel = channel?;
            for wanted in &declarations {
                let name = wanted.name.as_str();
                if wanted.passive {
                    channel.queue_declare_passive(name)?;
                } else {
                    channel.queue_declare(name, declaration(wanted))?;
                }
            }
            channel.close()
        });
        match answer {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(self.life.judge(error, guard, "declare")),
            None => Err(self.life.refusal("declare")),
        }
    }

    fn publish(
        &self,
        to: &Address,
        message: Message,
        deadline: Instant,
    ) -> Result<Confirm, TransportError> {
        self.life.check("publish")?;
        if is_direct_reply_address(to) {
            // If the requester is gone, the broker would close the connection over it.
            self.check_direct_reply_to("publish")?;
        }
        let direct = self.outlet(&message)?;
        let gone = || match &direct {
            Some(_) if self.life.check("publish").is_ok() => inbox_closed().unsent(),
            _ => self.life.refusal("publish"),
        };
        let outlet = direct.as_ref().unwrap_or(&self.publications);
        let (publication, confirm) = Publication::new(to, message, deadline, self.confirms);
        match outlet.try_send(publication) {
            Ok(()) => Ok(confirm),
            Err(TrySendError::Disconnected(_)) => Err(gone()),
            Err(TrySendError::Full(publication)) => {
                match outlet.send_deadline(publication, deadline) {
                    Ok(()) => Ok(confirm),
                    Err(SendTimeoutError::Timeout(_)) => Err(overdue().unsent()),
                    Err(SendTimeoutError::Disconnected(_)) => Err(gone()),
                }
            }
        }
    }

    fn is_blocked(&self) -> bool {
        self.life.is_blocked()
    }

    fn consume(
        &self,
        options: ConsumeOptions,
    ) -> Result<Box<dyn blocking::Consumer>, TransportError> {
        self.life.check("consume")?;
        let id = ConsumerId::unique();
        let intake = self.intake(options, id)?;
        let acknowledged = matches!(intake, Intake::Work(..));
        let consumer = self.start(id, intake, acknowledged);
        if consumer.is_err() {
            self.forget_direct(id);
        }
        Ok(Box::new(consumer?))
    }

    fn ack(&self, token: AckToken) -> Result<(), TransportError> {
        self.settle(&token, Settle::Ack, "ack")
    }

    fn reject(&self, token: AckToken, fate: Fate) -> Result<(), TransportError> {
        let how = match fate {
            Fate::Discard => Settle::Discard,
            Fate::Requeue => Settle::Requeue,
            _ => {
                return Err(error::new(ErrorKind::Unsupported, "reject")
                    .with_detail("this fate is not known here"));
            }
        };
        self.settle(&token, how, "reject")
    }

    fn cancel(&self, consumer: ConsumerId) -> Result<(), TransportError> {
        let feed = match self.life.consumer(consumer) {
            Known::Foreign => {
                return Err(error::new(ErrorKind::Misuse, "cancel")
                    .with_detail("the consumer is not of this transport"));
            }
            Known::Over => return Ok(()),
            Known::Here(feed) => feed,
        };
        self.forget_direct(consumer);
        let deadline = Instant::now() + self.life.timeouts.verb;
        let guard = self.life.consume.cut_after(deadline, "cancel")?;
        // Disconnected when it is done, or when the owner is gone, which is as good. Bounded by the
        // guard: cut off, the owner ends.
        let _ = feed.cancel().recv();
        drop(guard);
        Ok(())
    }

    fn close(&self) -> Result<(), TransportError> {
        // Who comes second waits here for the first.
        let mut publisher = self
            .publisher
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let started = Instant::now();
        let deadline = started + self.life.timeouts.close;
        self.life.begin_to_close();
        let guards = (
            self.life.consume.cut_after(deadline, "close"),
            self.life.publish.cut_after(deadline, "close"),
        );
        if guards.0.is_err() || guards.1.is_err() {
            // No orderly end without a watchdog for it.
            self.life.cut();
        }
        self.life.stop_consumers();
        for thread in self.life.take_consumer_threads() {
            join(thread);
        }
        if let Some(thread) = publisher.take() {
            // Half of the time for open confirms, the rest for the goodbye.
            let until = started + self.life.timeouts.close / 2;
            let _ = self.stop.try_send(until);
            join(thread);
        }
        self.life.reap();
        Ok(())
    }
}

impl AmiquipTransport {
    fn start(
        &self,
        id: ConsumerId,
        intake: Intake,
        acknowledged: bool,
    ) -> Result<Consumer, TransportError> {
        let life = &self.life;
        let deadline = Instant::now() + life.timeouts.verb;
        let guard = life.consume.cut_after(deadline, "consume")?;
        let channel = match life.consume.open_channel() {
            Some(Ok(channel)) => channel,
            Some(Err(error)) => return Err(life.judge(error, guard, "consume")),
            None => return Err(life.refusal("consume")),
        };
        let (feed, orders) = Feed::new();
        let feed = Arc::new(feed);
        let (report, reported) = crossbeam_channel::bounded(1);
        let owner = Owner {
            id,
            channel,
            intake,
            feed: Arc::clone(&feed),
            orders,
            life: Arc::clone(life),
        };
        let spawn = || {
            thread::Builder::new()
                .name("amq-consumer".to_owned())
                .spawn(move || owner.run(&report))
        };
        life.add_consumer(id, Arc::clone(&feed), spawn)
            .map_err(|error| no_thread("consume", error))?;
        // Bounded by the guard.
        match reported.recv() {
            Ok(Ok((queue, deliveries))) => Ok(Consumer::new(
                id,
                queue,
                deliveries,
                acknowledged,
                feed,
                Arc::clone(life),
            )),
            Ok(Err(error)) => Err(life.judge(error, guard, "consume")),
            Err(_) => Err(error::new(ErrorKind::Other, "consume")
                .with_detail("the thread of the consumer did not start")),
        }
    }
}

impl Drop for AmiquipTransport {
    fn drop(&mut self) {
        // Not closed: nothing here may block, so the sockets are cut. All threads find their ends
        // then, and the publisher joins amiquip's.
        self.life.begin_to_close();
        self.life.cut();
        self.life.stop_consumers();
    }
}

impl fmt::Debug for AmiquipTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmiquipTransport")
            .field("url", &self.life.url)
            .finish_non_exhaustive()
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread of the transport panicked");
    }
}

fn no_thread(operation: &'static str, error: std::io::Error) -> TransportError {
    error::new(ErrorKind::Other, operation)
        .with_detail("no thread")
        .with_source(error)
        .unsent()
}

fn text<'p>(properties: &'p FieldTable, name: &str) -> &'p str {
    match properties.get(name) {
        Some(AmqpValue::LongString(text)) => text,
        _ => "",
    }
}
