//! The task that hands messages to lapin and collects the broker's verdicts, one for each channel.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use amqp_broker::kind_of_end;
use futures_util::future::{Either, select};
use lapin::Confirmation;
use rpc_core::{ErrorKind, TransportError};
use tokio::sync::mpsc;
use tokio::time::Sleep;

use crate::convert;
use crate::error;
use crate::in_flight::InFlight;
use crate::intake::Intake;
use crate::ledger::{Answer, Ledger, Mark, Open};
use crate::outlet::{Handed, Outgoing, Outlet, Sent};
use crate::shared::{Shared, State};

/// How many messages may wait to be taken by the task.
pub(crate) const ROOM: usize = 512;
/// How many it keeps that cannot be handed over yet.
const MOST_WAITING: usize = 512;
/// Publishes what `receiver` yields, and learns what becomes of that and of what callers have handed
/// over themselves, until nobody sends any more or the channel ends.
pub(crate) async fn run(
    shared: Arc<Shared>,
    outlet: Arc<Outlet>,
    receiver: mpsc::Receiver<Sent>,
    intake: Arc<Intake>,
) {
    let mut publisher = Publisher {
        shared,
        outlet,
        receiver,
        intake,
        waiting: VecDeque::new(),
        in_flight: InFlight::new(),
        ledger: Ledger::default(),
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
    outlet: Arc<Outlet>,
    receiver: mpsc::Receiver<Sent>,
    intake: Arc<Intake>,
    waiting: VecDeque<Outgoing>,
    in_flight: InFlight<lapin::Result<Confirmation>, Option<Open>>,
    ledger: Ledger,
    expiry: Option<Pin<Box<Sleep>>>,
}

impl Publisher {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        loop {
            if let Err(error) = self.collect(context) {
                return Poll::Ready(Err(error));
            }
            let known = self.in_flight.len();
            let senders_gone = self.receive(context);
            if senders_gone && self.waiting.is_empty() && self.outlet.unwritten().is_nothing() {
                self.intake.set_written();
            }
            if self.hand_over(context) || self.in_flight.len() > known {
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
        let mut failed_ones = Vec::new();
        loop {
            let ledger = &mut self.ledger;
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
            // What was completed by now was handed over before. When nothing of that is left to be
            // taken in, no completion was passed over, which the ledger depends on.
            if !self.take_in_handed() {
                break;
            }
        }
        self.ledger.settle(self.in_flight.len() + failed_ones.len());
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

    /// Takes in what callers have handed over. Tells whether that was anything.
    fn take_in_handed(&mut self) -> bool {
        let outlet = Arc::clone(&self.outlet);
        // So that none is with lapin and not in the line. What is on the long way comes behind them.
        let _order = outlet.order();
        let mut any = false;
        while let Ok(sent) = self.receiver.try_recv() {
            match sent {
                Sent::Handed(handed) => self.watch(handed),
                Sent::Outgoing(outgoing) => {
                    self.waiting.push_back(outgoing);
                    break;
                }
            }
            any = true;
        }
        any
    }

    /// Fills the waiting line. Tells whether nobody can send any more.
    fn receive(&mut self, context: &mut Context<'_>) -> bool {
        if self.intake.poll_closed(context).is_ready() {
            return self.turn_away(context);
        }
        while self.waiting.len() < MOST_WAITING {
            match self.receiver.poll_recv(context) {
                Poll::Ready(Some(Sent::Outgoing(outgoing))) => self.waiting.push_back(outgoing),
                Poll::Ready(Some(Sent::Handed(handed))) => self.watch(handed),
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
                Poll::Ready(Some(Sent::Outgoing(outgoing))) => outgoing.fail(&inbox_closed()),
                Poll::Ready(Some(Sent::Handed(handed))) => self.watch(handed),
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
        while self.outlet.unwritten().has_room() {
            let Some(outgoing) = self.waiting.pop_front() else {
                break;
            };
            if outgoing.deadline <= Instant::now() {
                outgoing.fail(&too_late());
                continue;
            }
            if let Some(handed) = self.outlet.hand_over(outgoing) {
                self.watch(handed);
            }
            any = true;
        }
        any
    }

    fn watch(&mut self, Handed { publish, open }: Handed) {
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
        while let Some(sent) = self.receiver.recv().await {
            match sent {
                Sent::Outgoing(outgoing) => outgoing.fail(&gone),
                Sent::Handed(Handed { open, .. }) => {
                    open.into_iter()
                        .for_each(|open| open.verdict.settle(Err(error.clone())));
                }
            }
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
