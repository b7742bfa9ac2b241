//! What waits while publishers are blocked: it has been handed over, and can still be taken back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use rpc_core::{Address, Message, Verdict};

use crate::broker::ConnectionId;
use crate::effects::Effects;
use crate::refusal::Refusal;

/// Whether publishers are blocked, and what they have published meanwhile, in its order.
#[derive(Debug, Default)]
pub(crate) struct Held {
    blocked: bool,
    publishes: VecDeque<Publish>,
    /// Whether somebody has an eye on the deadlines.
    watched: bool,
}

/// A publish that waits.
#[derive(Debug)]
pub(crate) struct Publish {
    pub(crate) on: ConnectionId,
    pub(crate) to: Address,
    pub(crate) message: Arc<Message>,
    pub(crate) deadline: Instant,
    pub(crate) verdict: Verdict,
}

impl Held {
    pub(crate) const fn is_blocked(&self) -> bool {
        self.blocked
    }

    pub(crate) const fn block(&mut self) {
        self.blocked = true;
    }

    /// Lets publishers go on. Returns what has waited, to be published now.
    pub(crate) fn unblock(&mut self) -> VecDeque<Publish> {
        self.blocked = false;
        std::mem::take(&mut self.publishes)
    }

    /// Whether somebody has an eye on the deadlines.
    pub(crate) const fn is_watched(&self) -> bool {
        self.watched
    }

    /// Puts a publish at the end. Somebody must watch over it from now on, if nobody did.
    pub(crate) fn push(&mut self, publish: Publish) {
        self.publishes.push_back(publish);
        self.watched = true;
    }

    /// When to look again; `None` when nothing is left to be watched, which ends the watch.
    pub(crate) fn next(&mut self) -> Option<Instant> {
        let next = self.publishes.iter().map(|one| one.deadline).min();
        self.watched = next.is_some();
        next
    }

    /// Refuses what has waited too long.
    pub(crate) fn refuse_overdue<W>(&mut self, now: Instant, effects: &mut Effects<W>) {
        self.refuse(
            |one| (one.deadline <= now).then_some(Refusal::Overdue),
            effects,
        );
    }

    /// Refuses what waits on a connection that has ended.
    pub(crate) fn refuse_of<W>(
        &mut self,
        on: ConnectionId,
        cause: &Refusal,
        effects: &mut Effects<W>,
    ) {
        self.refuse(|one| (one.on == on).then(|| cause.clone()), effects);
    }

    fn refuse<W>(&mut self, why: impl Fn(&Publish) -> Option<Refusal>, effects: &mut Effects<W>) {
        for publish in std::mem::take(&mut self.publishes) {
            match why(&publish) {
                None => self.publishes.push_back(publish),
                Some(refusal) => {
                    effects.dropped.push(publish.message);
                    effects.verdicts.push((publish.verdict, Err(refusal)));
                }
            }
        }
    }
}
