//! How a publisher is stopped before its channel is, and how much it may hand over meanwhile.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::sync::watch;

use crate::outlet::Cost;

/// How many bytes lapin may hold that its socket has not taken. It would take any number.
const MOST_UNWRITTEN_BYTES: usize = 4 << 20;
/// How many messages, likewise.
const MOST_UNWRITTEN: usize = 4096;

/// Whether a publisher takes messages in: how to stop it, and how to wait until it has stopped.
#[derive(Debug)]
pub(crate) struct Intake {
    closed: AtomicBool,
    waker: AtomicWaker,
    /// Turns true when lapin's socket has taken all there was.
    written: watch::Sender<bool>,
}

impl Default for Intake {
    fn default() -> Self {
        Self {
            closed: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            written: watch::Sender::new(false),
        }
    }
}

impl Intake {
    /// One without a publisher, so that nobody waits for it.
    pub(crate) fn nobodys() -> Self {
        let intake = Self::default();
        intake.written.send_replace(true);
        intake
    }

    /// Lets the publisher hand nothing over any more; what lapin has not got is failed as unsent.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Waits until everything that was handed over before [`Intake::close`] is on the wire, or the
    /// publisher has ended.
    pub(crate) async fn written(&self) {
        // An error cannot be: the sender is here.
        let _ = self.written.subscribe().wait_for(|written| *written).await;
    }

    /// Says that nothing is left to wait for.
    pub(crate) fn set_written(&self) {
        self.written.send_replace(true);
    }

    /// Ready when nothing is to be handed over any more.
    pub(crate) fn poll_closed(&self, context: &Context<'_>) -> Poll<()> {
        self.waker.register(context.waker());
        if self.closed.load(Ordering::Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// What lapin holds that its socket has not taken.
#[derive(Debug, Default)]
pub(crate) struct Unwritten {
    bytes: AtomicUsize,
    messages: AtomicUsize,
}

impl Unwritten {
    pub(crate) fn add(&self, cost: Cost) {
        self.bytes.fetch_add(cost.bytes, Ordering::Relaxed);
        self.messages.fetch_add(cost.messages, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, cost: Cost) {
        self.bytes.fetch_sub(cost.bytes, Ordering::Relaxed);
        self.messages.fetch_sub(cost.messages, Ordering::Relaxed);
    }

    /// Whether lapin may have one more.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) < MOST_UNWRITTEN_BYTES
            && self.messages.load(Ordering::Relaxed) < MOST_UNWRITTEN
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.messages.load(Ordering::Relaxed) == 0
    }
}
