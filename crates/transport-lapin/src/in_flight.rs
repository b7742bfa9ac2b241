//! A set of futures that are polled when woken, and that can be drained to the last one ready.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Futures under way, each with what belongs to it.
///
/// Unlike `FuturesUnordered`, which may pause with futures still to be polled, [`InFlight::drain`]
/// returns only when no future is left that was woken. Attributing returned messages depends on
/// that; see [`Ledger`](crate::ledger::Ledger).
pub(crate) struct InFlight<O, T> {
    slots: Vec<Slot<O, T>>,
    free: Vec<usize>,
    woken: Arc<Woken>,
    /// The other half of the double buffer in `woken`.
    batch: Vec<usize>,
}

struct Slot<O, T> {
    occupant: Option<(Under<O>, T)>,
    waker: Waker,
    mark: Arc<Mark>,
}

type Under<O> = Pin<Box<dyn Future<Output = O> + Send>>;

struct Mark {
    index: usize,
    queued: AtomicBool,
    woken: Arc<Woken>,
}

#[derive(Default)]
struct Woken {
    queue: Mutex<Vec<usize>>,
    owner: AtomicWaker,
}

impl Woken {
    fn queue(&self) -> std::sync::MutexGuard<'_, Vec<usize>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Mark {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.woken.queue().push(self.index);
            self.woken.owner.wake();
        }
    }
}

impl<O, T> InFlight<O, T> {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            woken: Arc::default(),
            batch: Vec::new(),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes a future in. The next [`InFlight::drain`] polls it for the first time, in the order
    /// of insertion.
    pub(crate) fn insert(&mut self, future: Under<O>, with: T) {
        let index = self.free.pop().unwrap_or_else(|| self.grow());
        let slot = &mut self.slots[index];
        slot.occupant = Some((future, with));
        slot.mark.wake_by_ref();
    }

    /// Polls what was woken until nothing is left, and hands out what is ready.
    ///
    /// The task of `context` is woken when there is more.
    pub(crate) fn drain(&mut self, context: &Context<'_>, mut ready: impl FnMut(O, T)) {
        self.woken.owner.register(context.waker());
        loop {
            let mut batch = std::mem::take(&mut self.batch);
            std::mem::swap(&mut batch, &mut *self.woken.queue());
            if batch.is_empty() {
                self.batch = batch;
                return;
            }
            for index in batch.drain(..) {
                let Some(slot) = self.slots.get_mut(index) else {
                    // Abandoned.
                    continue;
                };
                // Before the poll: a wake during it must count.
                slot.mark.queued.store(false, Ordering::Release);
                let Some((future, _)) = &mut slot.occupant else {
                    // A late wake for an earlier occupant.
                    continue;
                };
                let mut context = Context::from_waker(&slot.waker);
                if let Poll::Ready(output) = future.as_mut().poll(&mut context)
                    && let Some((_, with)) = slot.occupant.take()
                {
                    self.free.push(index);
                    ready(output, with);
                }
            }
            self.batch = batch;
        }
    }

    /// Gives up on all of them.
    pub(crate) fn abandon(&mut self) -> impl Iterator<Item = T> {
        self.free.clear();
        let slots = std::mem::take(&mut self.slots);
        slots
            .into_iter()
            .filter_map(|slot| slot.occupant.map(|(_, with)| with))
    }

    fn grow(&mut self) -> usize {
        let index = self.slots.len();
        let mark = Arc::new(Mark {
            index,
            queued: AtomicBool::new(false),
            woken: Arc::clone(&self.woken),
        });
        self.slots.push(Slot {
            occupant: None,
            waker: Waker::from(Arc::clone(&mark)),
            mark,
        });
        index
    }
}

#[cfg(test)]
mod tests {
    use futures_channel::oneshot;

    use super::*;

    #[test]
    fn each_is_handed_out_once_however_often_it_is_woken() {
        let mut set = InFlight::new();
        let context = Context::from_waker(Waker::noop());
        let mut senders = Vec::new();
        for number in 0..100 {
            let (sender, receiver) = oneshot::channel::<()>();
            set.insert(Box::pin(receiver), number);
            senders.push(sender);
        }
        set.drain(&context, |_, _| panic!("nothing is ready"));
        for sender in senders.drain(50..) {
            sender.send(()).unwrap();
        }
        let mut got = Vec::new();
        set.drain(&context, |_, number| got.push(number));
        assert_eq!(got, (50..100).collect::<Vec<_>>());
        assert_eq!(set.len(), 50);
        set.drain(&context, |_, _| panic!("nothing is ready"));
        assert_eq!(set.abandon().count(), 50);
        assert_eq!(set.len(), 0);
    }

    #[test]
    fn a_late_wake_for_an_earlier_occupant_does_no_harm() {
        let mut set = InFlight::new();
        let context = Context::from_waker(Waker::noop());
        let (sender, receiver) = oneshot::channel::<()>();
        set.insert(Box::pin(receiver), 1);
        drop(sender);
        let mut got = 0;
        set.drain(&context, |_, number| got += number);
        assert_eq!(got, 1);
        let stale = set.slots[0].waker.clone();
        let (_sender, receiver) = oneshot::channel::<()>();
        set.insert(Box::pin(receiver), 2);
        stale.wake();
        set.drain(&context, |_, _| panic!("nothing is ready"));
        assert_eq!(set.len(), 1);
    }
}
