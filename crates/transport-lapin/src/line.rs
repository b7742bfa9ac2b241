//! A consumer as the transport knows it: its channel, its state, what it has not settled.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use amqp_broker::{Reach, Settled};

use futures_util::task::AtomicWaker;
use futures_util::{FutureExt, StreamExt};
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicNackOptions};
use rpc_core::{ConsumerId, ShortString};

use crate::intake::Intake;

/// One consumer and its channel, which outlives it until everything it delivered is settled.
pub(crate) struct Line {
    pub(crate) id: ConsumerId,
    /// What goes into `reply_to`, of an inbox.
    pub(crate) queue: ShortString,
    pub(crate) settling: Settling,
    pub(crate) channel: Channel,
    /// Of the publisher on that channel, which only a direct inbox has.
    pub(crate) intake: Arc<Intake>,
    /// A clone of the consumer's stream, to empty it when the consumer is cancelled.
    stream: lapin::Consumer,
    state: AtomicU8,
    /// Deliveries handed out and not settled, and the one that is perhaps being handed out.
    unsettled: AtomicUsize,
    acks: Mutex<Acks>,
    /// So many acknowledgements go out in any case.
    most_held: usize,
    pub(crate) waker: AtomicWaker,
}

/// Acknowledgements on their way to lapin, which costs the same for one as for many, to us and to the
/// broker. So they wait until their consumer finds nothing more to receive, or a millisecond.
///
/// Locked while lapin gets one: one for many must not overtake what it takes for settled.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    held: Vec<u64>,
    settled: Settled,
}

impl Acks {
    /// One was settled in a way of its own, and lapin has got that.
    pub(crate) fn note(&mut self, tag: u64) {
        self.settled.note(tag);
    }
}

/// Whether deliveries are settled one by one, or by being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settling {
    BySending,
    OneByOne,
}

const OPEN: u8 = 0;
const ENDED: u8 = 1;

impl Line {
    pub(crate) fn new(
        queue: ShortString,
        settling: Settling,
        channel: Channel,
        stream: lapin::Consumer,
        prefetch: u16,
    ) -> Self {
        Self {
            id: ConsumerId::unique(),
            queue,
            settling,
            channel,
            intake: Arc::new(Intake::nobodys()),
            stream,
            state: AtomicU8::new(OPEN),
            unsettled: AtomicUsize::new(0),
            acks: Mutex::default(),
            most_held: usize::from(prefetch / 2).max(1),
            waker: AtomicWaker::new(),
        }
    }

    /// With a publisher that is to hand nothing over any more before it is cancelled.
    pub(crate) fn with_intake(mut self, intake: Arc<Intake>) -> Self {
        self.intake = intake;
        self
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) == OPEN
    }

    /// No delivery comes out any more. Tells whether this call was the one that ended it.
    pub(crate) fn end(&self) -> bool {
        let ended = self.state.swap(ENDED, Ordering::AcqRel) == OPEN;
        // Nothing is held from now on.
        self.send_acks();
        self.waker.wake();
        ended
    }

    /// Before a delivery is looked for, so that nobody takes the line for settled meanwhile.
    pub(crate) fn begin(&self) {
        self.unsettled.fetch_add(1, Ordering::AcqRel);
    }

    /// One less to settle.
    pub(crate) fn settled(&self) {
        self.unsettled.fetch_sub(1, Ordering::AcqRel);
    }

    /// Holds an acknowledgement back for a moment. Tells whether it is the first to be held; none where
    /// nothing is held any more, since the consumer has ended.
    pub(crate) fn hold_ack(&self, tag: u64) -> Option<bool> {
        let mut acks = self.acks();
        if !self.is_open() {
            return None;
        }
        acks.held.push(tag);
        let first = acks.held.len() == 1;
        if acks.held.len() >= self.most_held {
            self.send(&mut acks);
        }
        Some(first)
    }

    /// Gives lapin the acknowledgements that are held. Tells whether there were any.
    pub(crate) fn send_acks(&self) -> bool {
        let mut acks = self.acks();
        let any = !acks.held.is_empty();
        if any {
            self.send(&mut acks);
        }
        any
    }

    fn send(&self, acks: &mut Acks) {
        let Acks { held, settled } = acks;
        held.sort_unstable();
        let run = match settled.acknowledge(held.iter().copied()) {
            Reach::Run(run) => run,
            Reach::Apart => 0,
        };
        let last = held[..run].last().map(|&last| (last, run > 1));
        let alone = held[run..].iter().map(|&tag| (tag, false));
        for (tag, multiple) in last.into_iter().chain(alone) {
            // One poll puts it into lapin's queue. An error is that of a channel that is gone, and then
            // what it delivered comes again.
            let options = BasicAckOptions { multiple };
            let _ = self.channel.basic_ack(tag, options).now_or_never();
        }
        self.unsettled.fetch_sub(held.len(), Ordering::AcqRel);
        held.clear();
    }

    pub(crate) fn acks(&self) -> MutexGuard<'_, Acks> {
        self.acks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the channel has no use left.
    pub(crate) fn is_done(&self) -> bool {
        !self.is_open() && self.unsettled.load(Ordering::Acquire) == 0
    }

    /// Tells the broker to send no more, and puts back what it has sent and nobody has taken.
    pub(crate) async fn cancel(&self) {
        // lapin sends a cancel ahead of the publishes that it still holds, and without the consumer
        // such a publish would cost the channel (406) and thereby the transport.
        self.intake.written().await;
        let tag = self.stream.tag();
        // On a channel that is gone the broker has put everything back itself.
        let _ = self
            .channel
            .basic_cancel(tag, BasicCancelOptions::default())
            .await;
        // Everything that was on its way came before the broker's answer.
        let mut stream = self.stream.clone();
        while let Some(Some(Ok(delivery))) = stream.next().now_or_never() {
            if self.settling == Settling::OneByOne {
                let options = BasicNackOptions {
                    multiple: false,
                    requeue: true,
                };
                // One poll sends it; what it would wait for is only that the socket takes it.
                let _ = self
                    .channel
                    .basic_nack(delivery.delivery_tag, options)
                    .now_or_never();
            }
        }
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line")
            .field("id", &self.id)
            .field("queue", &self.queue)
            .field("is_open", &self.is_open())
            .finish_non_exhaustive()
    }
}
