//! What the receiving end of a consumer and its owner thread share: orders, and unsettled deliveries.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender};

/// Between the receiving end, the transport's verbs, and the owner thread.
#[derive(Debug)]
pub(crate) struct Feed {
    /// Unbounded, so that nobody waits for the owner; it holds no more orders than there are
    /// unsettled deliveries, and a few.
    orders: Sender<Order>,
    open: Mutex<Open>,
    cancelled: AtomicBool,
}

/// What the owner thread is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// End the consumer, go on settling, and drop the sender when nothing more will be delivered.
    Cancel(Option<Sender<()>>),
    /// The receiving end has nothing more to receive.
    Idle,
    /// Settle a delivery.
    Settle(Box<amiquip::Delivery>, Settle),
    /// End everything.
    Stop,
}

/// How a delivery is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settle {
    Ack,
    Discard,
    Requeue,
}

/// Why a delivery cannot be settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CannotSettle {
    /// The owner thread is gone.
    Over,
    /// There is no such delivery, or it is settled.
    Unknown,
}

#[derive(Debug)]
struct Open {
    /// amiquip has no acknowledgement by number, only one by the delivery itself. Its body and
    /// properties are taken out and the rest waits here.
    shells: HashMap<u64, Box<amiquip::Delivery>>,
    /// Whether the receiving end may still add some.
    receiving: bool,
    /// Whether the owner has stopped to take orders.
    over: bool,
}

impl Feed {
    pub(crate) fn new() -> (Self, Receiver<Order>) {
        let (orders, receiver) = crossbeam_channel::unbounded();
        let feed = Self {
            orders,
            open: Mutex::new(Open {
                shells: HashMap::new(),
                receiving: true,
                over: false,
            }),
            cancelled: AtomicBool::new(false),
        };
        (feed, receiver)
    }

    /// Keeps what settles a delivery.
    pub(crate) fn keep(&self, shell: amiquip::Delivery) {
        let shell = Box::new(shell);
        self.open().shells.insert(shell.delivery_tag(), shell);
    }

    /// Orders that a delivery be settled.
    pub(crate) fn settle(&self, tag: u64, how: Settle) -> Result<(), CannotSettle> {
        // The order goes out under the lock: seen by the owner, "nothing unsettled" then means that
        // no order is on its way either.
        let mut open = self.open();
        if open.over {
            return Err(CannotSettle::Over);
        }
        let shell = open.shells.remove(&tag).ok_or(CannotSettle::Unknown)?;
        self.orders
            .send(Order::Settle(shell, how))
            .map_err(|_| CannotSettle::Over)
    }

    /// Orders that the consumer be ended; the receiver is disconnected when it is.
    pub(crate) fn cancel(&self) -> Receiver<()> {
        let (done, when_done) = crossbeam_channel::bounded(0);
        self.cancelled.store(true, Ordering::Release);
        self.order(Order::Cancel(Some(done)));
        when_done
    }

    /// Orders that the consumer be ended, in the background.
    pub(crate) fn abandon(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.open().receiving = false;
        self.order(Order::Cancel(None));
    }

    /// Whether it was ended on this side.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Says that the receiving end is at its end.
    pub(crate) fn finish(&self) {
        self.open().receiving = false;
        self.order(Order::Idle);
    }

    /// Orders the end of the owner.
    pub(crate) fn stop(&self) {
        self.order(Order::Stop);
    }

    /// For the owner: whether it can go, since nothing is left to settle. It takes no order after
    /// that.
    pub(crate) fn can_end(&self, orders: &Receiver<Order>) -> bool {
        let mut open = self.open();
        open.over = !open.receiving && open.shells.is_empty() && orders.is_empty();
        open.over
    }

    /// For the owner: takes no order any more.
    pub(crate) fn end(&self) {
        let mut open = self.open();
        open.over = true;
        open.shells.clear();
    }

    fn order(&self, order: Order) {
        // Where nobody takes the order, the owner has ended, and with it all that could be ordered.
        let _ = self.orders.send(order);
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
