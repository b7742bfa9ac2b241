//! Whose turn it is in a worker, and what must not be in hand when one of its requests kills it.

use std::time::Instant;

use rpc_proto::server::{Forward, Job, Part};

use super::{AtWork, Drain, Origin, Sent, Worker};
use crate::ledger::Ledger;
use crate::rule::Rule;
use crate::setting::Setting;
use crate::time::{Micros, SECOND, span};
use crate::wire::Wire;

impl Worker {
    /// Does what has its turn, and gives free slots to those that wait.
    pub(super) fn begin_next(&mut self, wire: &mut Wire, ledger: &mut Ledger, setting: &Setting) {
        self.turn_at = None;
        loop {
            if let Some((forward, origin)) = self.next_forward(wire) {
                self.pass_on(wire, ledger, setting, forward, origin);
            } else if let Some((job, origin)) = self.next_job(wire) {
                self.begin(wire, ledger, setting, job, origin);
            } else {
                return;
            }
        }
    }

    fn next_forward(&mut self, wire: &Wire) -> Option<(Forward, Origin)> {
        // Whatever is passed on beside one that has lost its patience does not wait either.
        let forced = |sent: &Sent| sent.origin.part() == Part::Forward && sent.origin.forced;
        let forced = self.sent.values().any(forced);
        for place in 0..self.forwards.len() {
            let (_, until, origin) = &mut self.forwards[place];
            let wait = ask(origin, wire, *until);
            if self.has_turn(wait) {
                let (forward, _, mut origin) = self.forwards.remove(place)?;
                origin.forced |= forced;
                return Some((forward, origin));
            }
        }
        None
    }

    /// Those that may not begin any more need neither slot nor turn, and a suspect no slot.
    fn next_job(&mut self, wire: &Wire) -> Option<(Job, Origin)> {
        if self.drain == Drain::Stopped {
            return self.waiting.pop_front();
        }
        let mut free = self.concurrency.saturating_sub(self.busy());
        for place in 0..self.waiting.len() {
            let (job, origin) = &mut self.waiting[place];
            if origin.part() == Part::Work {
                if free == 0 {
                    continue;
                }
                free -= 1;
                if origin.turn.is_none() {
                    origin.turn = self.acceptor.work();
                }
            }
            let wait = ask(origin, wire, job.deadline());
            if self.has_turn(wait) {
                return self.waiting.remove(place);
            }
        }
        None
    }

    /// Whether something need not wait; else looks at it again then.
    fn has_turn(&mut self, wait: Option<Instant>) -> bool {
        self.turn_at = [self.turn_at, wait].into_iter().flatten().min();
        wait.is_none()
    }

    /// Slots that are taken: by handlers that run, and by those that were given up when too many
    /// were already.
    fn busy(&self) -> usize {
        let lost = self.away.values().filter(|given_up| given_up.is_none());
        let apart = |work: &&AtWork| work.origin.part() == Part::Suspect;
        let running = self.running.values().filter(|work| !apart(work));
        running.count() + lost.count()
    }

    /// A request kills the process. What was being passed on would lie in quarantine twice, and against
    /// a suspect that runs it would count: neither is in hand, unless somebody had waited for too long.
    pub(super) fn dies(&self, ledger: &mut Ledger, killer: &Origin) {
        let sent = self.sent.values().map(|sent| &sent.origin);
        let running = self.running.values().map(|work| &work.origin);
        let in_hand = |other: &&Origin| other.part() != Part::Work && !other.forced;
        let Some(other) = sent.chain(running).find(in_hand).filter(|_| !killer.forced) else {
            return;
        };
        let call = ledger.find(other.correlation_id.as_ref());
        let detail = format!("{:?} in hand when another request killed it", other.part());
        ledger.breach(Rule::Isolation, call.map(|(call, _)| call), detail);
    }
}

/// Asks for a turn, where one is needed, and notes whether it was had by waiting for long enough.
fn ask(origin: &mut Origin, wire: &Wire, until: Instant) -> Option<Instant> {
    let now = wire.instant();
    let half = span(until.saturating_duration_since(now)) / 2;
    let turn = origin.turn.as_mut()?;
    let (since, patience) = *origin
        .asked
        .get_or_insert_with(|| (wire.now, half.min(PATIENCE)));
    let wait = turn.poll_begin(now, until);
    origin.forced = wait.is_none() && wire.now + 1 >= since + patience;
    wait
}

/// How long a request waits for others.
const PATIENCE: Micros = SECOND;
