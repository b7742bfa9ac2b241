//! Who runs beside whom in a process, so that its death tells as much as it can.
//!
//! A request that kills takes along all that its process has in hand. What is being passed on to
//! quarantine then lies there twice, and each copy is counted by itself; against a suspect from
//! quarantine a death counts that it has not caused. So while either is in hand nothing begins that
//! may kill, and neither begins while such things run. That is a matter of milliseconds as a rule;
//! where handlers take their time nobody waits for them longer than [`PATIENCE`], and goes on anyway.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::deadline_after;
use crate::mutants::{Mutant, is};

/// What is done with a request, as far as it matters to others in the same process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a driver tells them apart")]
pub enum Part {
    /// It is passed on to quarantine.
    Forward,
    /// It came from quarantine, and runs alone.
    Suspect,
    /// It runs among others.
    Work,
}

/// The part of one request: it is in hand from the beginning of its turn, or from its arrival where
/// it is a suspect or to be passed on, until this is dropped.
#[must_use = "dropped, the request counts as settled"]
pub struct Turn {
    isolation: Arc<Isolation>,
    part: Part,
    begun: bool,
    /// Since when it is waited for, and how long at most.
    waits: Option<(Instant, Duration)>,
    /// It has waited for half of that, and nothing is let in before it.
    insists: bool,
    /// How often things had changed when it was polled last.
    seen: u64,
}

/// What all turns of a server share.
#[derive(Debug)]
pub(super) struct Isolation {
    /// Handlers at once.
    limit: AtomicUsize,
    /// Work that runs, times [`ONE`], and [`WATCHED`] where it is to look at the state first. So
    /// ordinary work takes no lock.
    word: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    forwards: Held,
    suspects: Held,
    /// Work that lets nothing in before it.
    insisting: usize,
    /// Nothing begins any more, so nobody waits to.
    draining: bool,
    changes: u64,
    wakers: Vec<Waker>,
}

/// The turns of one part.
#[derive(Debug, Default)]
struct Held {
    waiting: usize,
    begun: usize,
    last: Last,
}

/// The acknowledgement of the last one that was settled.
#[derive(Clone, Copy, Debug, Default)]
enum Last {
    #[default]
    Out,
    /// Just now: whoever looks next knows what time it is.
    Now,
    Until(Instant),
}

impl Isolation {
    pub(super) const fn new() -> Self {
        Self {
            limit: AtomicUsize::new(usize::MAX),
            word: AtomicUsize::new(0),
            state: Mutex::new(State {
                forwards: Held::NONE,
                suspects: Held::NONE,
                insisting: 0,
                draining: false,
                changes: 0,
                wakers: Vec::new(),
            }),
        }
    }

    /// So many handlers run at once, suspects included, whatever the patience.
    pub(super) fn limit(&self, handlers: usize) {
        self.limit.store(handlers, Ordering::Relaxed);
    }

    pub(super) fn drain(&self) {
        self.change(|state| state.draining = true);
    }

    pub(super) fn arrive(self: &Arc<Self>, part: Part) -> Turn {
        if part != Part::Work {
            let mut state = self.lock();
            if let Some(held) = state.held(part) {
                held.waiting += 1;
            }
            self.word.fetch_or(WATCHED, Ordering::AcqRel);
        }
        Turn {
            isolation: Arc::clone(self),
            part,
            begun: false,
            waits: None,
            insists: false,
            seen: 0,
        }
    }

    /// Work that has nobody to look out for begins at once.
    fn begin_unwatched(&self) -> bool {
        let begin = |word| (word & WATCHED == 0).then_some(word + ONE);
        self.word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, begin)
            .is_ok()
    }

    fn running(&self) -> usize {
        self.word.load(Ordering::Acquire) / ONE
    }

    fn change(&self, how: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        how(&mut state);
        state.changes += 1;
        let wakers = std::mem::take(&mut state.wakers);
        // Not under the lock: to wake a task may run it.
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    const fn held(&mut self, part: Part) -> Option<&mut Held> {
        match part {
            Part::Forward => Some(&mut self.forwards),
            Part::Suspect => Some(&mut self.suspects),
            Part::Work => None,
        }
    }

    /// Whether there is nothing for work to look out for, nor anything that looks out for work.
    const fn is_quiet(&self) -> bool {
        self.forwards.is_quiet() && self.suspects.is_quiet() && self.insisting == 0
    }

    /// Whether a turn has nobody to wait for while so much work runs; else when it is worth looking
    /// again though nothing has changed, if ever.
    fn is_free(
        &mut self,
        turn: &Turn,
        running: usize,
        now: Instant,
    ) -> Result<(), Option<Instant>> {
        let passed_on = self.forwards.out(now);
        let settled = self.suspects.out(now);
        let (forwards, suspects) = (&self.forwards, &self.suspects);
        let alone = running == 0 && suspects.begun == 0;
        let (free, out) = match turn.part {
            // Where one is under way already, nothing is won by waiting with the next.
            Part::Forward => (self.insisting == 0 && (alone || forwards.begun > 0), None),
            // The broker sends the next suspect when it has the acknowledgement of the last.
            Part::Suspect => (
                self.insisting == 0 && alone && forwards.waiting + forwards.begun == 0,
                passed_on,
            ),
            Part::Work => {
                let begun = forwards.begun + suspects.begun;
                let waiting = forwards.waiting + suspects.waiting;
                (
                    begun == 0 && (waiting == 0 || turn.insists),
                    passed_on.max(settled),
                )
            }
        };
        if free && out.is_none() {
            Ok(())
        } else {
            Err(out)
        }
    }
}

impl Held {
    const NONE: Self = Self {
        waiting: 0,
        begun: 0,
        last: Last::Out,
    };

    const fn is_quiet(&self) -> bool {
        self.waiting == 0 && self.begun == 0 && matches!(self.last, Last::Out)
    }

    /// When the last acknowledgement is out, if it is not yet.
    fn out(&mut self, now: Instant) -> Option<Instant> {
        if matches!(self.last, Last::Now) {
            self.last = Last::Until(deadline_after(now, SETTLING));
        }
        match self.last {
            Last::Until(out) if now < out => Some(out),
            _ => {
                self.last = Last::Out;
                None
            }
        }
    }
}

impl Turn {
    /// What is done with the request.
    #[must_use]
    pub const fn part(&self) -> Part {
        self.part
    }

    /// Whether it is this one's turn now; else when to ask again, unless something
    /// [changes](Self::changed) before. At the deadline of the request it is in any case: then the
    /// request is refused.
    pub fn poll_begin(&mut self, now: Instant, deadline: Instant) -> Option<Instant> {
        let unwatched = self.part == Part::Work && !self.insists;
        if self.begun || (unwatched && self.isolation.begin_unwatched()) {
            self.begun = true;
            return None;
        }
        let left = deadline.saturating_duration_since(now);
        let (since, patience) = *self
            .waits
            .get_or_insert_with(|| (now, PATIENCE.min(left / 2)));
        let (half, over) = (
            deadline_after(since, patience / 2),
            deadline_after(since, patience),
        );
        let isolation = Arc::clone(&self.isolation);
        let mut state = isolation.lock();
        if self.part == Part::Work && now >= half && !self.insists {
            self.insists = true;
            state.insisting += 1;
        }
        self.seen = state.changes;
        let running = isolation.running();
        let free = state.is_free(self, running, now);
        let room = running + state.suspects.begun < isolation.limit.load(Ordering::Relaxed);
        let forced = match self.part {
            Part::Forward => now >= over,
            Part::Suspect | Part::Work => {
                state.draining || now >= deadline || (now >= over && room)
            }
        } || is(Mutant::TurnsIgnored);
        if let Err(out) = free
            && !forced
        {
            let next = [half, over].into_iter().find(|next| now < *next);
            let next = next.unwrap_or(deadline);
            return Some(out.map_or(next, |out| out.min(next)));
        }
        self.begun = true;
        if std::mem::take(&mut self.insists) {
            state.insisting -= 1;
        }
        match state.held(self.part) {
            Some(held) => {
                held.waiting -= 1;
                held.begun += 1;
            }
            None => {
                if state.is_quiet() {
                    isolation.word.fetch_and(!WATCHED, Ordering::AcqRel);
                }
                isolation.word.fetch_add(ONE, Ordering::AcqRel);
            }
        }
        None
    }

    /// Waits until something has changed since [`poll_begin`](Self::poll_begin). Cancel safe, and needs
    /// no runtime.
    pub const fn changed(&self) -> Changed<'_> {
        Changed(self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Self {
            part,
            begun,
            insists,
            ..
        } = *self;
        if part == Part::Work && !insists {
            let one = if begun { ONE } else { 0 };
            let before = self.isolation.word.fetch_sub(one, Ordering::AcqRel);
            if before & WATCHED == 0 {
                return;
            }
        }
        self.isolation.change(|state| match state.held(part) {
            Some(held) if begun => {
                held.begun -= 1;
                held.last = Last::Now;
            }
            Some(held) => held.waiting -= 1,
            None => state.insisting -= usize::from(insists),
        });
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn")
            .field("part", &self.part)
            .field("begun", &self.begun)
            .finish_non_exhaustive()
    }
}

/// The future of [`Turn::changed`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Changed<'a>(&'a Turn);

impl Future for Changed<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.isolation.lock();
        if state.changes != self.0.seen {
            return Poll::Ready(());
        }
        let known = |waker: &Waker| waker.will_wake(context.waker());
        if !state.wakers.iter().any(known) {
            state.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }
}

/// How long a request waits for others at most, or half the time that it has left. Work that has waited
/// for half of this lets nothing in before it, or it would never run beside a stream of suspects.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long an acknowledgement that was handed over may still be in this process: client libraries
/// write from a thread of their own, and the broker does not answer it.
const SETTLING: Duration = Duration::from_millis(50);

/// Something is in hand, or was, that work must look out for.
const WATCHED: usize = 1;
/// What one handler that runs adds.
const ONE: usize = 2;
