//! What was handed over and is not confirmed yet, and the one thread or task that waits for all of it.
//!
//! A broker confirms about in order, but one confirm that never comes must not hold up those behind
//! it: their requests would not be acknowledged for as long. So the settler looks at all that is open
//! whenever something has happened to any. All share one waker, which is registered by whoever hands
//! over: the settler sleeps on until there is something to settle.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use rpc_proto::{TransportError, deadline_after};

use crate::Confirm;

/// A verdict on a message.
type Verdict = Result<(), TransportError>;

/// Messages that wait for their confirm, each with what comes after it.
pub(crate) struct Unconfirmed<I> {
    state: Mutex<State<I>>,
    bell: Arc<Bell>,
    waker: Waker,
    /// The longest that the settler sleeps. Who hands over need not wake it for a deadline that is
    /// further away than that.
    nap: Duration,
}

struct State<I> {
    /// What has come since the settler looked last.
    come: Vec<Open<I>>,
    closed: bool,
    /// When the settler looks again by itself.
    looks_at: Option<Instant>,
}

/// What the settler has taken over and still waits for.
pub(crate) struct Waiting<I>(VecDeque<Open<I>>);

struct Open<I> {
    confirm: Confirm,
    until: Instant,
    item: I,
}

impl<I> Unconfirmed<I> {
    /// For messages that as a rule have so long for their confirm.
    pub(crate) fn new(limit: Duration) -> Self {
        let bell = Arc::new(Bell::default());
        let state = State {
            come: Vec::new(),
            closed: false,
            looks_at: None,
        };
        Self {
            state: Mutex::new(state),
            waker: Waker::from(Arc::clone(&bell)),
            bell,
            nap: limit.max(SHORTEST_NAP),
        }
    }

    /// A message was handed over. What is known already is given back with its verdict; so is
    /// everything once this is closed, after a wait.
    pub(crate) fn push(
        &self,
        mut confirm: Confirm,
        until: Instant,
        item: I,
    ) -> Option<(Verdict, I)> {
        if let Some(verdict) = confirm.try_take() {
            return Some((verdict, item));
        }
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return Some((confirm.wait(until), item));
        }
        // Under the lock, so that the settler finds in here whatever it is woken for.
        let mut context = Context::from_waker(&self.waker);
        if let Poll::Ready(verdict) = Pin::new(&mut confirm).poll(&mut context) {
            return Some((verdict, item));
        }
        let sooner = state.looks_at.is_none_or(|looks_at| until < looks_at);
        state.come.push(Open {
            confirm,
            until,
            item,
        });
        drop(state);
        if sooner {
            self.waker.wake_by_ref();
        }
        None
    }

    /// Hands each on whose verdict has come or whose time is up. Returns until when there is nothing
    /// more to do, unless [`rung`](Self::rung) says otherwise; nothing when this is closed and none is
    /// left. For one settler only.
    pub(crate) fn look(
        &self,
        Waiting(open): &mut Waiting<I>,
        mut settle: impl FnMut(Verdict, I),
    ) -> Option<Instant> {
        let now = Instant::now();
        let mut state = self.lock();
        open.extend(state.come.drain(..));
        if open.is_empty() && state.closed {
            return None;
        }
        let first = open.iter().map(|one| one.until).min();
        let nap = deadline_after(now, self.nap);
        let looks_at = first.map_or(nap, |first| first.min(nap));
        state.looks_at = Some(looks_at);
        drop(state);
        let mut place = 0;
        while let Some(one) = open.get_mut(place) {
            match one.verdict(now) {
                Some(verdict) => {
                    if let Some(one) = open.remove(place) {
                        settle(verdict, one.item);
                    }
                }
                None => place += 1,
            }
        }
        Some(looks_at)
    }

    /// Waits until something has happened since the last look. Cancel safe, and needs no runtime.
    pub(crate) async fn rung(&self) {
        poll_fn(|context| self.bell.poll(context)).await;
    }

    /// Lets nothing further in.
    #[cfg(feature = "blocking")]
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.waker.wake_by_ref();
    }

    fn lock(&self) -> MutexGuard<'_, State<I>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I> Default for Waiting<I> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<I> Open<I> {
    fn verdict(&mut self, now: Instant) -> Option<Verdict> {
        let late = self.until <= now;
        self.confirm
            .try_take()
            .or_else(|| late.then(|| Err(Confirm::late())))
    }
}

/// Wakes the settler, and not again before that has looked.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    settler: Mutex<Option<Waker>>,
}

impl Bell {
    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        if self.rung.load(Ordering::Relaxed) {
            // Acquire, to see what whoever rang has done.
            self.rung.swap(false, Ordering::Acquire);
            return Poll::Ready(());
        }
        // Before the second look: either that sees that it was rung, or the ringer sees the waker.
        *self.settler() = Some(context.waker().clone());
        if self.rung.swap(false, Ordering::AcqRel) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn settler(&self) -> MutexGuard<'_, Option<Waker>> {
        self.settler.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        // Not under the lock: to wake a task may run it.
        let settler = self.settler().take();
        settler.into_iter().for_each(Waker::wake);
    }
}

/// Short limits need not keep an idle settler busy: they wake it.
const SHORTEST_NAP: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;
    use std::thread;

    use rpc_proto::ErrorKind;

    use super::*;
    use crate::park;

    const PATIENCE: Duration = Duration::from_secs(10);

    type Settled = mpsc::Receiver<(&'static str, Option<ErrorKind>)>;

    /// Runs `work` beside the thread that settles, and closes in the end.
    fn beside(limit: Duration, work: impl FnOnce(&Unconfirmed<&'static str>, &Settled)) {
        let unconfirmed = Unconfirmed::new(limit);
        let (sender, settled) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut waiting = Waiting::default();
                let settle = |verdict: Verdict, item| {
                    let _ = sender.send((item, verdict.err().map(|error| error.kind())));
                };
                while let Some(until) = unconfirmed.look(&mut waiting, settle) {
                    park::block_on_until(pin!(unconfirmed.rung()), until);
                }
            });
            work(&unconfirmed, &settled);
            unconfirmed.close();
        });
    }

    fn next(settled: &Settled) -> (&'static str, Option<ErrorKind>) {
        settled.recv_timeout(PATIENCE).unwrap()
    }

    #[test]
    fn a_confirm_that_does_not_come_holds_up_no_other() {
        beside(PATIENCE, |unconfirmed, settled| {
            let later = Instant::now() + 10 * PATIENCE;
            let mut verdicts = Vec::new();
            for item in ["never", "b", "c", "d"] {
                let (verdict, confirm) = Confirm::open();
                assert!(unconfirmed.push(confirm, later, item).is_none());
                verdicts.push(verdict);
            }
            let mut verdicts = verdicts.into_iter();
            let first = verdicts.next().unwrap();
            for (verdict, item) in verdicts.zip(["b", "c", "d"]) {
                verdict.settle(Ok(()));
                assert_eq!(next(settled), (item, None));
            }
            // The transport ends.
            drop(first);
            assert_eq!(next(settled), ("never", Some(ErrorKind::Closed)));
        });
    }

    #[test]
    fn each_has_its_own_deadline_whatever_the_thread_sleeps_for() {
        beside(PATIENCE, |unconfirmed, settled| {
            let (kept, confirm) = Confirm::open();
            let later = Instant::now() + 10 * PATIENCE;
            assert!(unconfirmed.push(confirm, later, "long").is_none());
            // It has begun to sleep, or is about to: both are told of a deadline that is sooner.
            let until = Instant::now() + Duration::from_millis(20);
            let (silent, confirm) = Confirm::open();
            assert!(unconfirmed.push(confirm, until, "short").is_none());
            assert_eq!(next(settled), ("short", Some(ErrorKind::Timeout)));
            let now = Instant::now();
            assert!(until <= now && now < until + PATIENCE / 2);
            kept.settle(Ok(()));
            assert_eq!(next(settled), ("long", None));
            silent.settle(Ok(()));
        });
    }

    #[test]
    fn what_is_known_already_wakes_nobody() {
        let unconfirmed = Unconfirmed::new(PATIENCE);
        let until = Instant::now() + PATIENCE;
        let (verdict, item) = unconfirmed.push(Confirm::unrequested(), until, 1).unwrap();
        assert_eq!((verdict.is_ok(), item), (true, 1));
        assert!(!unconfirmed.bell.rung.load(Ordering::SeqCst));
        // After the end whoever comes waits for himself.
        unconfirmed.close();
        let (verdict, confirm) = Confirm::open();
        drop(verdict);
        let (verdict, item) = unconfirmed.push(confirm, until, 2).unwrap();
        assert_eq!((verdict.unwrap_err().kind(), item), (ErrorKind::Closed, 2));
    }

    #[test]
    fn nothing_is_forgotten_that_many_threads_hand_over_and_confirm() {
        const EACH: usize = 500;
        beside(PATIENCE, |unconfirmed, settled| {
            let known = AtomicUsize::new(0);
            let (sender, verdicts) = mpsc::channel();
            thread::scope(|scope| {
                for _ in 0..4 {
                    let (sender, known) = (sender.clone(), &known);
                    scope.spawn(move || {
                        for _ in 0..EACH {
                            let (verdict, confirm) = Confirm::open();
                            let _ = sender.send(verdict);
                            let until = Instant::now() + 10 * PATIENCE;
                            // The verdict may be there already.
                            if let Some((verdict, _)) = unconfirmed.push(confirm, until, "late") {
                                assert!(verdict.is_ok());
                                known.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    });
                }
                drop(sender);
                for verdict in verdicts {
                    verdict.settle(Ok(()));
                }
            });
            for _ in known.into_inner()..4 * EACH {
                assert_eq!(next(settled), ("late", None));
            }
        });
    }
}
