//! What a verb of the broker leaves to be done once the lock is released.

use std::sync::Arc;
use std::task::Waker;

use rpc_core::{Message, Verdict};

use crate::broker::DeadLetter;
use crate::refusal::Refusal;

/// Whom to wake, whom to answer and what to drop, outside the lock.
///
/// All of these can run foreign code: a waker may be the last hold on a task, and a task may own a
/// consumer whose drop takes the lock.
#[derive(Debug)]
pub(crate) struct Effects<W> {
    pub(crate) wakes: Few<W>,
    pub(crate) dropped: Few<Arc<Message>>,
    /// Until they are buried.
    pub(crate) dead: Few<DeadLetter>,
    pub(crate) verdicts: Few<(Verdict, Result<(), Refusal>)>,
}

impl<W> Default for Effects<W> {
    fn default() -> Self {
        Self {
            wakes: Few::default(),
            dropped: Few::default(),
            dead: Few::default(),
            verdicts: Few::default(),
        }
    }
}

impl Effects<Waker> {
    /// Does it all. Not to be called under the lock.
    pub(crate) fn run(self) {
        self.wakes.into_iter().for_each(Waker::wake);
        for (verdict, told) in self.verdicts.into_iter() {
            verdict.settle(told.map_err(|refusal| refusal.into_error("publish")));
        }
    }
}

/// A list that is empty or of one item most of the time, and then costs no allocation.
#[derive(Debug)]
pub(crate) struct Few<T> {
    first: Option<T>,
    rest: Vec<T>,
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self {
            first: None,
            rest: Vec::new(),
        }
    }
}

impl<T> Few<T> {
    pub(crate) fn push(&mut self, item: T) {
        if self.first.is_none() {
            self.first = Some(item);
        } else {
            self.rest.push(item);
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(crate) fn into_iter(self) -> impl Iterator<Item = T> {
        self.first.into_iter().chain(self.rest)
    }
}

impl<T> Extend<T> for Few<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        items.into_iter().for_each(|item| self.push(item));
    }
}
