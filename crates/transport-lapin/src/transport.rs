//! The transport itself: each verb, and what becomes of it.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use amqp_broker::{
    AmqpConfig, Argument, Confirms, DIRECT_REPLY_TO, QueueDeclaration, is_direct_reply_address,
};
use async_trait::async_trait;
use futures_channel::oneshot;
use futures_util::FutureExt;
use lapin::Channel;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString as WireString};
use rpc_core::{
    AckToken, Address, Confirm, ConsumeOptions, Consumer, ConsumerId, ErrorKind, Fate, Inbox,
    Message, QueueSpec, ShortString, Source, Transport, TransportError,
};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::consumer::LapinConsumer;
use crate::convert;
use crate::direct;
use crate::error;
use crate::home::{self, Home};
use crate::intake::Intake;
use crate::line::{Line, Settling};
use crate::outlet::{Outgoing, Outlet, Sent};
use crate::publisher;
use crate::shared::{Shared, State};

/// The frame that our largest message header fits in any case.
const ROOMY_FRAME: u32 = 32 * 1024;

/// A transport to RabbitMQ through lapin. Dropped, it closes in the background.
pub struct LapinTransport {
    shared: Arc<Shared>,
    home: Home,
}

impl LapinTransport {
    /// Connects to the broker: two sockets, two logins, one channel to publish on.
    ///
    /// Works in any executor.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Connect`] when the broker cannot be reached or does not answer within
    /// [`Timeouts::connect`](amqp_broker::Timeouts::connect); [`ErrorKind::Unauthenticated`] for a
    /// wrong user or password; [`ErrorKind::Denied`] for a virtual host that is not there or not for
    /// this user; [`ErrorKind::Unsupported`] for `amqps` without the feature `tls`.
    pub async fn connect(config: AmqpConfig) -> Result<Self, TransportError> {
        let (home, shared) = Home::open(config).await?;
        Ok(Self { shared, home })
    }

    /// Waits for room in the line of outgoing messages.
    async fn wait_for_room(
        &self,
        line: mpsc::Sender<Sent>,
        outgoing: Outgoing,
    ) -> Result<(), TransportError> {
        // The caller's executor may have no timer, so ours waits.
        let (sender, receiver) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        self.shared.runtime.spawn(async move {
            let deadline = outgoing.deadline.into();
            let sending = line.send(Sent::Outgoing(outgoing));
            let result = match tokio::time::timeout_at(deadline, sending).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(shared.no_intake()),
                Err(_) => Err(publisher::too_late()),
            };
            let _ = sender.send(result);
        });
        match receiver.await {
            Ok(result) => result,
            Err(_) => Err(self.shared.gone("publish")),
        }
    }

    fn check_size(&self, message: &Message) -> Result<(), TransportError> {
        let frame_max = self
            .shared
            .publishing
            .connection
            .configuration()
            .frame_max();
        if frame_max >= ROOMY_FRAME {
            return Ok(());
        }
        let len = convert::header_len(message);
        if len < usize::try_from(frame_max).unwrap_or(usize::MAX) {
            return Ok(());
        }
        // The broker would close the whole connection (501).
        Err(error::new(ErrorKind::TooLarge, "publish")
            .with_detail(format!(
                "headers of {len} bytes do not fit a frame of {frame_max}"
            ))
            .unsent())
    }
}

#[async_trait]
impl Transport for LapinTransport {
    fn name(&self) -> &'static str {
        error::NAME
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<(), TransportError> {
        let declarations = QueueDeclaration::all_of(queue)
            .map_err(|why| error::new(why.error_kind(), "declare").with_detail(why.to_string()))?;
        let shared = Arc::clone(&self.shared);
        self.shared
            .verb("declare", async move {
                // A channel for this alone: the broker answers a refusal by closing it.
                let channel = shared.consuming.connection.create_channel().await;
                let declared = match channel {
                    Ok(channel) => declare_all(&channel, &declarations).await,
                    Err(error) => Err(error),
                };
                declared.map_err(|error| shared.failed("declare", &error))
            })
            .await
    }

    async fn publish(
        &self,
        to: &Address,
        message: Message,
        deadline: Instant,
    ) -> Result<Confirm, TransportError> {
        self.shared.ensure_open("publish")?;
        self.check_size(&message)?;
        if is_direct_reply_address(to) {
            let checked = direct::check(&self.shared, "publish", deadline).await;
            checked.map_err(TransportError::unsent)?;
        }
        let direct = if message.reply_to.as_ref() == Some(&DIRECT_REPLY_TO) {
            Some(self.shared.direct().ok_or_else(no_direct_inbox)?)
        } else {
            None
        };
        let (verdict, confirm) = match self.shared.config.confirms {
            Confirms::On => {
                let (verdict, confirm) = Confirm::open();
                (Some(verdict), confirm)
            }
            Confirms::Off => (None, Confirm::unrequested()),
        };
        let mut outgoing = Outgoing {
            to: to.clone(),
            message,
            deadline,
            verdict,
            queued: None,
        };
        let line = direct.as_ref().unwrap_or(&self.shared.outgoing);
        // A direct inbox that is closed turns away what lapin has not got, so that goes the long way.
        if direct.is_none()
            && let Some(outlet) = self.shared.outlet()
        {
            match outlet.try_hand_over(outgoing, &self.shared.gate, line) {
                Ok(()) => return Ok(confirm),
                Err(waits) => outgoing = *waits,
            }
            outgoing.queued = Some(outlet.queue());
        }
        match line.try_send(Sent::Outgoing(outgoing)) {
            Ok(()) => Ok(confirm),
            Err(TrySendError::Full(Sent::Outgoing(outgoing))) => {
                self.wait_for_room(line.clone(), outgoing).await?;
                Ok(confirm)
            }
            Err(_) => Err(self.shared.no_intake()),
        }
    }

    fn is_blocked(&self) -> bool {
        self.shared.state() == State::Open && self.shared.gate.is_shut()
    }

    async fn consume(&self, options: ConsumeOptions) -> Result<Box<dyn Consumer>, TransportError> {
        if let Source::Queue(queue) = &options.source {
            ensure_named(queue, "consume")?;
        }
        let shared = Arc::clone(&self.shared);
        let consumer = self
            .shared
            .verb("consume", async move {
                let (line, stream) = match options.source {
                    Source::Queue(queue) => {
                        let opened = consume_queue(&shared, queue, options.prefetch.get()).await;
                        opened.map_err(|error| shared.failed("consume", &error))?
                    }
                    Source::Inbox(Inbox::Exclusive) => {
                        let opened = consume_inbox(&shared).await;
                        opened.map_err(|error| shared.failed("consume", &error))?
                    }
                    Source::Inbox(Inbox::Direct) => consume_direct(&shared).await?,
                    _ => {
                        return Err(error::new(ErrorKind::Unsupported, "consume")
                            .with_detail("this kind of source"));
                    }
                };
                let line = Arc::new(line);
                shared.add_line(&line);
                Ok(LapinConsumer::new(Arc::clone(&shared), line, stream))
            })
            .await?;
        Ok(Box::new(consumer))
    }

    async fn ack(&self, token: AckToken) -> Result<(), TransportError> {
        let Some(line) = self.shared.line(token.consumer(), "ack")? else {
            return Err(self.shared.gone("ack"));
        };
        self.shared.ensure_open("ack")?;
        if let Some(first) = line.hold_ack(token.tag()) {
            if first {
                // It sends what is held when there is nothing more to receive. Should it not look, there
                // is somebody who does.
                line.waker.wake();
                self.shared.sweep.arm();
            }
            return Ok(());
        }
        let ack = line
            .channel
            .basic_ack(token.tag(), BasicAckOptions::default());
        self.hand_over(&line, "ack", ack).await
    }

    async fn reject(&self, token: AckToken, fate: Fate) -> Result<(), TransportError> {
        let Some(line) = self.shared.line(token.consumer(), "reject")? else {
            return Err(self.shared.gone("reject"));
        };
        self.shared.ensure_open("reject")?;
        // Not `nack`: RabbitMQ counts only rejected deliveries against a queue's delivery limit.
        let options = BasicRejectOptions {
            requeue: fate == Fate::Requeue,
        };
        let mut reject = pin!(line.channel.basic_reject(token.tag(), options));
        let sent = {
            let mut acks = line.acks();
            let sent = reject.as_mut().now_or_never();
            acks.note(token.tag());
            sent
        };
        let reject = async {
            match sent {
                Some(sent) => sent,
                None => reject.await,
            }
        };
        self.hand_over(&line, "reject", reject).await
    }

    async fn cancel(&self, consumer: ConsumerId) -> Result<(), TransportError> {
        let Some(line) = self.shared.line(consumer, "cancel")? else {
            return Ok(());
        };
        if !line.end() {
            return Ok(());
        }
        self.shared.retire(&line);
        let shared = Arc::clone(&self.shared);
        let cancelled = self.shared.verb("cancel", async move {
            shared.cancel(&line).await;
            Ok(())
        });
        match cancelled.await {
            // A transport that has ended has no consumer any more.
            Err(error) if error.kind() == ErrorKind::Closed => Ok(()),
            result => result,
        }
    }

    async fn close(&self) -> Result<(), TransportError> {
        self.shared.shut();
        self.home.stop();
        self.home.stopped().await;
        Ok(())
    }
}

impl LapinTransport {
    /// Puts an acknowledgement on its way. That of a consumer that has ended is waited for until it is
    /// written: with the last of them the channel is closed, and lapin drops what a channel that
    /// closes has not written.
    async fn hand_over(
        &self,
        line: &Line,
        operation: &'static str,
        settling: impl Future<Output = lapin::Result<()>>,
    ) -> Result<(), TransportError> {
        // However this ends, also by being dropped: lapin has got it.
        let _settled = Settles {
            shared: &self.shared,
            line,
        };
        let mut settling = pin!(settling);
        let sent = match settling.as_mut().now_or_never() {
            Some(sent) => Ok(sent),
            None if line.is_open() => Ok(Ok(())),
            None => self.shared.in_time(operation, settling).await,
        };
        sent?.map_err(|error| self.shared.failed(operation, &error))
    }
}

/// One less to settle, when it is dropped.
struct Settles<'a> {
    shared: &'a Shared,
    line: &'a Line,
}

impl Drop for Settles<'_> {
    fn drop(&mut self) {
        self.line.settled();
        self.shared.forget_if_done(self.line);
    }
}

impl Drop for LapinTransport {
    fn drop(&mut self) {
        self.shared.shut();
        self.home.stop();
    }
}

impl fmt::Debug for LapinTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LapinTransport")
            .field("url", &self.shared.config.url)
            .field("state", &self.shared.state())
            .finish_non_exhaustive()
    }
}

async fn declare_all(channel: &Channel, declarations: &[QueueDeclaration]) -> lapin::Result<()> {
    for declaration in declarations {
        declare(channel, declaration).await?;
    }
    Ok(())
}

async fn declare(channel: &Channel, declaration: &QueueDeclaration) -> lapin::Result<lapin::Queue> {
    let options = QueueDeclareOptions {
        passive: declaration.passive,
        durable: declaration.durable,
        exclusive: declaration.exclusive,
        auto_delete: declaration.auto_delete,
        nowait: false,
    };
    let mut arguments = FieldTable::default();
    for (key, value) in &declaration.arguments {
        let value = match value {
            Argument::Text(text) => AMQPValue::LongString(text.as_str().into()),
            Argument::Integer(number) => AMQPValue::LongLongInt(*number),
        };
        arguments.insert((*key).into(), value);
    }
    let name = convert::short(&declaration.name);
    channel.queue_declare(name, options, arguments).await
}

async fn consume_queue(
    shared: &Shared,
    queue: ShortString,
    prefetch: u16,
) -> lapin::Result<(Line, lapin::Consumer)> {
    let channel = shared.consuming.connection.create_channel().await?;
    channel
        .basic_qos(prefetch, BasicQosOptions::default())
        .await?;
    let name = convert::short(&queue);
    let stream = subscribe(&channel, name, Settling::OneByOne).await?;
    let line = Line::new(queue, Settling::OneByOne, channel, stream.clone(), prefetch);
    Ok((line, stream))
}

async fn consume_inbox(shared: &Shared) -> lapin::Result<(Line, lapin::Consumer)> {
    let channel = shared.consuming.connection.create_channel().await?;
    let queue = declare(&channel, &QueueDeclaration::INBOX).await?;
    let name = convert::from_short(queue.name()).unwrap_or_default();
    let stream = subscribe(&channel, queue.name().clone(), Settling::BySending).await?;
    let line = Line::new(name, Settling::BySending, channel, stream.clone(), 0);
    Ok((line, stream))
}

/// Direct replies come on the channel that published the request, so this one is on the
/// publishing connection and has a publisher of its own.
async fn consume_direct(shared: &Arc<Shared>) -> Result<(Line, lapin::Consumer), TransportError> {
    let deadline = Instant::now() + shared.config.timeouts.verb;
    direct::check(shared, "consume", deadline).await?;
    let slot = shared.reserve_direct().ok_or_else(|| {
        error::new(ErrorKind::Unsupported, "consume").with_detail(
            "a direct inbox is open: all have one name, so a second one would take its requests",
        )
    })?;
    let failed = |error: lapin::Error| shared.failed("consume", &error);
    let channel = home::publish_channel(shared).await.map_err(failed)?;
    let name = convert::short(&DIRECT_REPLY_TO);
    let stream = subscribe(&channel, name, Settling::BySending).await;
    let stream = stream.map_err(failed)?;
    let intake = Arc::<Intake>::default();
    let line = Line::new(
        DIRECT_REPLY_TO,
        Settling::BySending,
        channel.clone(),
        stream.clone(),
        0,
    )
    .with_intake(Arc::clone(&intake));
    let (outgoing, receiver) = mpsc::channel(publisher::ROOM);
    let outlet = Arc::new(Outlet::new(channel, shared.config.confirms));
    let task = publisher::run(Arc::clone(shared), outlet, receiver, intake);
    shared.add_publisher(tokio::spawn(task));
    slot.take(line.id, outgoing);
    Ok((line, stream))
}

async fn subscribe(
    channel: &Channel,
    queue: WireString,
    settling: Settling,
) -> lapin::Result<lapin::Consumer> {
    let options = BasicConsumeOptions {
        no_ack: settling == Settling::BySending,
        ..BasicConsumeOptions::default()
    };
    channel
        .basic_consume(queue, "".into(), options, FieldTable::default())
        .await
}

fn no_direct_inbox() -> TransportError {
    error::new(ErrorKind::Misuse, "publish")
        .with_detail("no direct inbox is open")
        .unsent()
}

/// To the broker an empty name is one of its own choice, or that of the last declaration.
fn ensure_named(queue: &ShortString, operation: &'static str) -> Result<(), TransportError> {
    if queue.is_empty() {
        return Err(
            error::new(ErrorKind::Misuse, operation).with_detail("the name of the queue is empty")
        );
    }
    Ok(())
}
