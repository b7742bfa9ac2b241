//! What waits in a worker: for a place to be done in, and then for its turn; and what waiting is for,
//! which a death shows.
//!
//! A place is a slot or a thread. On the async face what is to be passed on, and what came from
//! quarantine, need none; on the blocking face each of the two has one thread of its own. What has
//! got its place is in hand, and keeps it while it waits for its turn.

use std::time::Instant;

use rpc_proto::server::{Forward, Job, Part, Settlement};
use rpc_proto::{Expiration, LONGEST_WAIT, deadline_after};

use super::{Drain, Origin, Sent, Worker};
use crate::ledger::Ledger;
use crate::rule::Rule;
use crate::setting::Setting;
use crate::time::{Micros, SECOND, span};
use crate::wire::Wire;

/// What is to be done for a delivery.
#[derive(Debug)]
pub(super) enum Task {
    Forward(Box<Forward>),
    Run(Job),
    Settle(Settlement),
}

impl Task {
    /// How long its turn is waited for at most, from now on.
    fn until(&self, now: Instant) -> Instant {
        match self {
            Self::Forward(forward) => {
                let life = forward.message.expiration.map(Expiration::as_duration);
                deadline_after(now, life.unwrap_or(LONGEST_WAIT))
            }
            Self::Run(job) => job.deadline(),
            Self::Settle(_) => now,
        }
    }

    /// What is left to do where it does not begin.
    fn hand_back(self, now: Instant) -> Settlement {
        match self {
            Self::Forward(forward) => forward.hand_back(now),
            Self::Run(job) => job.hand_back(now),
            Self::Settle(settlement) => settlement,
        }
    }
}

/// Something that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    task: Task,
    origin: Origin,
    held: Option<Held>,
}

/// That something is in hand.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// When its turn comes in any case.
    until: Instant,
    /// Since then it has waited as long as it has to.
    forced: Micros,
}

impl Held {
    fn new(until: Instant, wire: &Wire) -> Self {
        let left = span(until.saturating_duration_since(wire.instant()));
        Self {
            until,
            forced: wire.now + PATIENCE.min(left / 2),
        }
    }
}

/// Places that are free.
#[derive(Debug)]
struct Free {
    slots: usize,
    suspects: usize,
    forwards: usize,
}

impl Free {
    fn take(&mut self, part: Part) -> bool {
        let free = match part {
            Part::Forward => &mut self.forwards,
            Part::Suspect => &mut self.suspects,
            Part::Work => &mut self.slots,
        };
        let any = *free > 0;
        *free -= usize::from(any);
        any
    }
}

impl Worker {
    /// Does something when it can be done.
    pub(super) fn wait(&mut self, task: Task, origin: Origin) {
        self.waiting.push_back(Waiting {
            task,
            origin,
            held: None,
        });
    }

    /// Does what has its place and its turn.
    pub(super) fn begin_next(&mut self, wire: &mut Wire, ledger: &mut Ledger, setting: &Setting) {
        self.turn_at = None;
        while let Some((task, origin)) = self.next(wire) {
            self.work(wire, ledger, setting, task, origin);
        }
    }

    /// Those that may not begin any more need neither place nor turn.
    fn next(&mut self, wire: &Wire) -> Option<(Task, Origin)> {
        let now = wire.instant();
        let mut free = self.free();
        for place in 0..self.waiting.len() {
            let Waiting { task, origin, held } = &mut self.waiting[place];
            let passing_on = held.is_some() && matches!(task, Task::Forward(_));
            let over = self.drain == Drain::Stopped && !passing_on;
            if !over {
                if !free.take(origin.part()) {
                    continue;
                }
                if origin.turn.is_none() && matches!(task, Task::Run(_)) {
                    origin.turn = self.acceptor.work();
                }
                let held = *held.get_or_insert_with(|| Held::new(task.until(now), wire));
                let turn = origin.turn.as_mut();
                if let Some(again) = turn.and_then(|turn| turn.poll_begin(now, held.until)) {
                    self.turn_at = Some(self.turn_at.map_or(again, |at| at.min(again)));
                    continue;
                }
                origin.forced = wire.now >= held.forced;
            }
            let Waiting {
                mut task,
                mut origin,
                ..
            } = self.waiting.remove(place)?;
            if origin.part() == Part::Forward {
                // What follows one that has waited long enough does not wait either.
                let forced =
                    |sent: &Sent| sent.origin.part() == Part::Forward && sent.origin.forced;
                origin.forced |= self.sent.values().any(forced);
                if over {
                    task = Task::Settle(task.hand_back(now));
                }
            }
            return Some((task, origin));
        }
        None
    }

    /// Places are taken by handlers that run, and by those that were given up when too many were
    /// already.
    fn free(&self) -> Free {
        let running = self.running.values().map(|work| work.origin.part());
        let lost = self
            .away
            .values()
            .filter(|(_, given_up)| given_up.is_none());
        let taken: Vec<_> = running.chain(lost.map(|&(part, _)| part)).collect();
        let free = |places: usize, part| {
            let taken = taken.iter().filter(|&&taken| taken == part).count();
            places.saturating_sub(taken)
        };
        let apart = if self.blocking { 1 } else { usize::MAX };
        Free {
            slots: free(self.concurrency, Part::Work),
            suspects: free(apart, Part::Suspect),
            forwards: apart,
        }
    }

    /// Does what is to be done for a delivery whose turn it is.
    pub(super) fn work(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        task: Task,
        origin: Origin,
    ) {
        match task {
            Task::Forward(forward) => self.pass_on(wire, ledger, setting, *forward, origin),
            Task::Run(job) => self.begin(wire, ledger, setting, job, origin),
            Task::Settle(settlement) => self.settle(wire, ledger, setting, settlement, origin),
        }
    }

    /// The transport has ended, and nothing that came by it begins any more. The blocking face hands
    /// back at once what is not in hand, the async one when it has its turn.
    pub(super) fn hand_back(&mut self, wire: &mut Wire, ledger: &mut Ledger, setting: &Setting) {
        let all = std::mem::take(&mut self.waiting);
        let keeps = |one: &Waiting| !self.blocking || one.held.is_some();
        let (kept, back): (Vec<_>, Vec<_>) = all.into_iter().partition(keeps);
        self.waiting = kept.into();
        for Waiting { task, origin, .. } in back {
            let settlement = task.hand_back(wire.instant());
            self.settle(wire, ledger, setting, settlement, origin);
        }
        self.begin_next(wire, ledger, setting);
    }

    /// A request kills the process. What is being passed on would lie in quarantine twice, and against
    /// a suspect that runs it would count.
    pub(super) fn dies(&self, ledger: &mut Ledger, killer: &Origin) {
        let sent = self.sent.values().map(|sent| &sent.origin);
        let running = self.running.values().map(|work| &work.origin);
        let apart = |other: &&Origin| other.part() != Part::Work && !other.forced;
        if let Some(other) = sent.chain(running).find(apart)
            && !killer.forced
        {
            let call = ledger.find(other.correlation_id.as_ref());
            let (part, by) = (other.part(), killer.part());
            let detail = format!("{part:?} in hand when it was killed by {by:?}");
            ledger.breach(Rule::Isolation, call.map(|(call, _)| call), detail);
        }
    }
}

/// How long a request has to wait for others at most, or half of the time that it has left.
const PATIENCE: Micros = SECOND;
