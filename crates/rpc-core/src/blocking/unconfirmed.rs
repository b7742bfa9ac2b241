//! What was handed over and is not confirmed yet, and the one thread that waits for all of it.
//!
//! A broker confirms about in order, but one confirm that never comes must not hold up those behind
//! it: their requests would not be acknowledged for as long. So the thread looks at all that is open
//! whenever something has happened to any. All share one waker, which is registered by whoever hands
//! over: the thread sleeps on until there is something to settle.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rpc_proto::{TransportError, deadline_after};

use crate::Confirm;

/// A verdict on a message.
type Verdict = Result<(), TransportError>;

/// Messages that wait for their confirm, each with what comes after it.
pub(super) struct Unconfirmed<I> {
    state: Mutex<State<I>>,
    bell: Arc<Bell>,
    waker: Waker,
    /// The longest that the thread sleeps. Who hands over need not wake it for a deadline that is
    /// further away than that.
    nap: Duration,
}

struct State<I> {
    /// What has come since the thread looked last.
    come: Vec<Open<I>>,
    closed: bool,
    /// When the thread looks again by itself.
    looks_at: Option<Instant>,
}

struct Open<I> {
    confirm: Confirm,
    until: Instant,
    item: I,
}

impl<I> Unconfirmed<I> {
    /// For messages that as a rule have so long for their confirm.
    pub(super) fn new(limit: Duration) -> Self {
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
    pub(super) fn push(
        &self,
        mut confirm: Confirm,
        until: Instant,
        item: I,
    ) -> Option<(Verdict, I)> {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return Some((confirm.wait(until), item));
        }
        // Under the lock, so that the thread finds in here whatever it is woken for.
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

    /// Hands each on as soon as its verdict has come or its time is up, until this is closed and none
    /// is left.
    pub(super) fn settle_all(&self, mut settle: impl FnMut(Verdict, I)) {
        self.bell.is_for(thread::current());
        let mut open = VecDeque::new();
        loop {
            let now = Instant::now();
            let mut state = self.lock();
            open.extend(state.come.drain(..));
            if open.is_empty() && state.closed {
                return;
            }
            let first = open.iter().map(|one: &Open<I>| one.until).min();
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
            self.bell.wait(looks_at);
        }
    }

    /// Lets nothing further in.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.waker.wake_by_ref();
    }

    fn lock(&self) -> MutexGuard<'_, State<I>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Wakes one thread, and not again before that has looked.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    /// A lock, so that either the thread sees that it was rung for, or the ringer sees the thread.
    thread: Mutex<Option<Thread>>,
}

impl Bell {
    fn is_for(&self, thread: Thread) {
        *self.thread() = Some(thread);
    }

    /// Waits until it is rung, or until then.
    fn wait(&self, until: Instant) {
        // Acquire, to see what whoever rang has done.
        while !self.rung.swap(false, Ordering::Acquire) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left);
        }
    }

    fn thread(&self) -> MutexGuard<'_, Option<Thread>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
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
        if let Some(thread) = &*self.thread() {
            thread.unpark();
        }
    }
}

/// Short limits need not keep an idle thread busy: they wake it.
const SHORTEST_NAP: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    use rpc_proto::ErrorKind;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    type Settled = mpsc::Receiver<(&'static str, Option<ErrorKind>)>;

    /// Runs `work` beside the thread that settles, and closes in the end.
    fn beside(limit: Duration, work: impl FnOnce(&Unconfirmed<&'static str>, &Settled)) {
        let unconfirmed = Unconfirmed::new(limit);
        let (sender, settled) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                unconfirmed.settle_all(|verdict, item| {
                    let _ = sender.send((item, verdict.err().map(|error| error.kind())));
                });
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
