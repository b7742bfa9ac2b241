//! The task that hands messages to lapin and collects the broker's verdicts, one for each channel.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use amqp_broker::{Confirms, is_direct_reply_address, kind_of_end};
use futures_util::future::{Either, select};
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation};
use rpc_core::{Address, ErrorKind, Message, TransportError, Verdict};
use tokio::sync::mpsc;
use tokio::time::Sleep;

use crate::convert;
use crate::error;
use crate::in_flight::InFlight;
use crate::intake::{Intake, Unwritten};
use crate::ledger::{Answer, Ledger, Mark, Open};
use crate::shared::{Shared, State};

/// How many messages may wait to be taken by the task.
pub(crate) const ROOM: usize = 512;
/// How many it keeps that cannot be handed over yet.
const MOST_WAITING: usize = 512;
/// What lapin and this task take for a message of no length, about.
const OVERHEAD: usize = 512;

/// A message on its way to the task.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) to: Address,
    pub(crate) message: Message,
    pub(crate) deadline: Instant,
    /// `None` when nobody is told.
    pub(crate) verdict: Option<Verdict>,
}

impl Outgoing {
    fn fail(self, error: &TransportError) {
        if let Some(verdict) = self.verdict {
            verdict.settle(Err(error.clone()));
        }
    }
}

/// Publishes what `receiver` yields, until nobody sends any more or the channel ends.
///
/// One task and one channel: lapin numbers a publish and puts it into its queue in two steps, so
/// that two threads could make it take the confirmation of one publish for that of another.
pub(crate) async fn run(
    shared: Arc<Shared>,
    channel: Channel,
    receiver: mpsc::Receiver<Outgoing>,
    intake: Arc<Intake>,
) {
    let mut publisher = Publisher {
        shared,
        channel: Arc::new(channel),
        receiver,
        intake,
        waiting: VecDeque::new(),
        in_flight: InFlight::new(),
        ledger: Ledger::default(),
        unwritten: Arc::default(),
        expiry: None,
    };
    let mut over = publisher.shared.over();
    let error = {
        let publishing = poll_fn(|context| publisher.poll(context));
        match select(pin!(publishing), pin!(over.wait_for(|over| *over))).await {
            Either::Left((Ok(()), _)) => return,
            Either::Left((Err(error), _)) => Some(error),
            Either::Right(_) => None,
        }
    };
    let error = error.unwrap_or_else(|| publisher.shared.end_of_publishes());
    publisher.fail(&error).await;
}

struct Publisher {
    shared: Arc<Shared>,
    channel: Arc<Channel>,
    receiver: mpsc::Receiver<Outgoing>,
    intake: Arc<Intake>,
    waiting: VecDeque<Outgoing>,
    in_flight: InFlight<lapin::Result<Confirmation>, Option<Open>>,
    ledger: Ledger,
    unwritten: Arc<Unwritten>,
    expiry: Option<Pin<Box<Sleep>>>,
}

impl Publisher {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        loop {
            if let Err(error) = self.collect(context) {
                return Poll::Ready(Err(error));
            }
            let senders_gone = self.receive(context);
            if senders_gone && self.waiting.is_empty() && self.unwritten.is_nothing() {
                self.intake.set_written();
            }
            if self.hand_over(context) {
                // The new ones are polled for the first time by collecting.
                continue;
            }
            if senders_gone && self.waiting.is_empty() && self.in_flight.len() == 0 {
                return Poll::Ready(Ok(()));
            }
            if self.poll_expiry(context).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Takes in what lapin knows by now, and decides what can be decided.
    fn collect(&mut self, context: &Context<'_>) -> Result<(), TransportError> {
        let mut failed = None;
        let ledger = &mut self.ledger;
        let mut failed_ones = Vec::new();
        self.in_flight.drain(context, |result, open| match result {
            Ok(confirmation) => {
                if let Some(open) = open {
                    note(ledger, open, confirmation);
                }
            }
            Err(error) => {
                failed.get_or_insert(error);
                failed_ones.extend(open);
            }
        });
        ledger.settle(self.in_flight.len() + failed_ones.len());
        let Some(failed) = failed else {
            return Ok(());
        };
        let error = self.verdict_of(&failed);
        // Before anybody is told: who then goes on to publish must find the transport ended.
        self.lose(&error);
        for open in failed_ones {
            open.verdict.settle(Err(error.clone()));
        }
        Err(error)
    }

    /// Fills the waiting line. Tells whether nobody can send any more.
    fn receive(&mut self, context: &mut Context<'_>) -> bool {
        if self.intake.poll_closed(context).is_ready() {
            return self.turn_away(context);
        }
        while self.waiting.len() < MOST_WAITING {
            match self.receiver.poll_recv(context) {
                Poll::Ready(Some(outgoing)) => self.waiting.push_back(outgoing),
                Poll::Ready(None) => return true,
                Poll::Pending => return false,
            }
        }
        false
    }

    /// Fails whatever lapin has not got. Tells whether that was the last.
    fn turn_away(&mut self, context: &mut Context<'_>) -> bool {
        self.receiver.close();
        for outgoing in self.waiting.drain(..) {
            outgoing.fail(&inbox_closed());
        }
        loop {
            match self.receiver.poll_recv(context) {
                Poll::Ready(Some(outgoing)) => outgoing.fail(&inbox_closed()),
                Poll::Ready(None) => return true,
                Poll::Pending => return false,
            }
        }
    }

    /// Gives lapin what it may have. Tells whether that was anything.
    fn hand_over(&mut self, context: &Context<'_>) -> bool {
        if self.waiting.is_empty() || self.shared.gate.poll_open(context).is_pending() {
            return false;
        }
        let mut any = false;
        while self.unwritten.has_room() {
            let Some(outgoing) = self.waiting.pop_front() else {
                break;
            };
            if outgoing.deadline <= Instant::now() {
                outgoing.fail(&too_late());
                continue;
            }
            self.send(outgoing);
            any = true;
        }
        any
    }

    fn send(&mut self, outgoing: Outgoing) {
        let Outgoing {
            to,
            message,
            verdict,
            ..
        } = outgoing;
        let properties = convert::properties(&message);
        let header_len = convert::header_len(&message);
        let options = BasicPublishOptions {
            mandatory: self.shared.config.confirms == Confirms::On && !is_direct_reply_address(&to),
            immediate: false,
        };
        let exchange = convert::short(to.exchange_name());
        let routing_key = convert::short(to.routing_key());
        let open = verdict.map(|verdict| Open {
            mark: Mark {
                exchange: to.exchange_name().clone(),
                routing_key: to.routing_key().clone(),
                correlation_id: message.correlation_id,
                message_id: message.message_id,
            },
            verdict,
        });
        let cost = OVERHEAD + header_len + message.body.len();
        let body = message.body;
        let channel = Arc::clone(&self.channel);
        let unwritten = Arc::clone(&self.unwritten);
        unwritten.add(cost);
        let publish = async move {
            let written = channel
                .basic_publish(exchange, routing_key, options, &body, properties)
                .await;
            unwritten.remove(cost);
            // What waits for its confirmation needs the body no longer.
            drop(body);
            written?.await
        };
        self.in_flight.insert(publish, open);
    }

    /// Fails what has waited too long, and is ready when there is something to look at again.
    fn poll_expiry(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let mut earliest: Option<Instant> = None;
        for outgoing in std::mem::take(&mut self.waiting) {
            if outgoing.deadline <= now {
                outgoing.fail(&too_late());
                continue;
            }
            earliest = Some(earliest.map_or(outgoing.deadline, |at| at.min(outgoing.deadline)));
            self.waiting.push_back(outgoing);
        }
        let Some(earliest) = earliest else {
            self.expiry = None;
            return Poll::Pending;
        };
        let at = tokio::time::Instant::from_std(earliest);
        let expiry = self
            .expiry
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        expiry.as_mut().reset(at);
        expiry.as_mut().poll(context)
    }

    fn verdict_of(&self, error: &lapin::Error) -> TransportError {
        match (self.shared.state(), self.shared.cause()) {
            (State::Open, None) => error::of_publish(error, &self.shared.config.url),
            _ => self.shared.end_of_publishes(),
        }
    }

    /// Without this channel the transport is of no use.
    fn lose(&self, error: &TransportError) {
        self.shared.lose(match kind_of_end(error.kind()) {
            kind if kind == error.kind() => error.clone(),
            kind => error::new(kind, "publish").with_source(error.clone()),
        });
    }

    /// Tells everybody who waits that the channel is gone.
    async fn fail(&mut self, error: &TransportError) {
        self.ledger.fail(error);
        for open in self.in_flight.abandon().flatten() {
            open.verdict.settle(Err(error.clone()));
        }
        let gone = self.shared.gone("publish");
        self.receiver.close();
        for outgoing in self.waiting.drain(..) {
            outgoing.fail(&gone);
        }
        // Not `try_recv`, which passes over one that is just being put in.
        while let Some(outgoing) = self.receiver.recv().await {
            outgoing.fail(&gone);
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // However it ended, nothing is left to wait for.
        self.intake.set_written();
    }
}

fn note(ledger: &mut Ledger, open: Open, confirmation: Confirmation) {
    let (answer, returned) = match confirmation {
        Confirmation::Ack(returned) => (Answer::Ack, returned),
        Confirmation::Nack(returned) => (Answer::Nack, returned),
        Confirmation::NotRequested => (Answer::Ack, None),
    };
    let returned = returned.map(|message| {
        let name =
            |text: &Option<lapin::types::ShortString>| text.as_ref().and_then(convert::from_short);
        Mark {
            exchange: convert::from_short(&message.exchange).unwrap_or_default(),
            routing_key: convert::from_short(&message.routing_key).unwrap_or_default(),
            correlation_id: name(message.properties.correlation_id()),
            message_id: name(message.properties.message_id()),
        }
    });
    ledger.note(open, answer, returned);
}

/// A request whose direct inbox was closed before lapin got it.
pub(crate) fn inbox_closed() -> TransportError {
    error::new(ErrorKind::Closed, "publish")
        .with_detail("the direct inbox was closed")
        .unsent()
}

/// A message whose time ran out before lapin got it.
pub(crate) fn too_late() -> TransportError {
    error::new(ErrorKind::Timeout, "publish")
        .with_detail("no room to hand the message over in time")
        .unsent()
}
