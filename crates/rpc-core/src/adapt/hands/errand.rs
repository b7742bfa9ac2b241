//! Verbs that have a thread of their own, and what happens when it does not come back.

use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use futures_channel::oneshot;

use super::lane::{Look, unanswered};
use crate::adapt::lock;
use crate::{ErrorKind, TransportError};

/// Where the answer to an errand goes: that of its thread, or in its place that of the keeper.
pub(super) struct Errand<R> {
    transport: &'static str,
    operation: &'static str,
    deadline: Instant,
    reply: Mutex<Option<oneshot::Sender<Result<R, TransportError>>>>,
}

impl<R> Errand<R> {
    /// Answers, unless that was done. What comes too late is dropped here.
    pub(super) fn answer(&self, answer: Result<R, TransportError>) {
        let reply = lock(&self.reply).take();
        if let Some(reply) = reply {
            let _ = reply.send(answer);
        }
    }
}

/// Whatever its answer would be.
trait Overdue: Send + Sync {
    /// Until when its thread may take; `None` when it is answered.
    fn deadline(&self) -> Option<Instant>;

    fn operation(&self) -> &'static str;

    fn answer_for(&self, kind: ErrorKind);
}

impl<R: Send> Overdue for Errand<R> {
    fn deadline(&self) -> Option<Instant> {
        lock(&self.reply).is_some().then_some(self.deadline)
    }

    fn operation(&self) -> &'static str {
        self.operation
    }

    fn answer_for(&self, kind: ErrorKind) {
        self.answer(Err(match kind {
            ErrorKind::Timeout => unanswered(self.transport, self.operation),
            kind => TransportError::new(kind, self.transport, self.operation)
                .with_detail("the transport was closed, and has not answered"),
        }));
    }
}

/// The errands that are under way.
#[derive(Default)]
pub(super) struct Errands(Mutex<State>);

#[derive(Default)]
struct State {
    all: Vec<Weak<dyn Overdue>>,
    /// Set when nobody looks at deadlines any more.
    closed: bool,
}

impl Errands {
    /// A new one. It is under way as long as its thread holds it; after [`close`](Self::close) it is
    /// answered from the beginning.
    pub(super) fn begin<R: Send + 'static>(
        &self,
        transport: &'static str,
        operation: &'static str,
        deadline: Instant,
    ) -> (Arc<Errand<R>>, oneshot::Receiver<Result<R, TransportError>>) {
        let (reply, answer) = oneshot::channel();
        let errand = Arc::new(Errand {
            transport,
            operation,
            deadline,
            reply: Mutex::new(Some(reply)),
        });
        let as_any = Arc::downgrade(&errand);
        let mut state = lock(&self.0);
        state.all.retain(|one| one.strong_count() > 0);
        state.all.push(as_any);
        let closed = state.closed;
        drop(state);
        if closed {
            errand.answer_for(ErrorKind::Closed);
        }
        (errand, answer)
    }

    /// No more are begun.
    pub(super) fn close(&self) {
        lock(&self.0).closed = true;
    }

    /// Answers those that have taken too long, and says until when the rest may take.
    pub(super) fn look(&self, now: Instant) -> Look {
        let (mut next, mut stuck) = (None, None);
        for errand in self.all() {
            let Some(deadline) = errand.deadline() else {
                continue;
            };
            if deadline <= now {
                errand.answer_for(ErrorKind::Timeout);
                stuck = Some(errand.operation());
            } else {
                next = Some(next.map_or(deadline, |next: Instant| next.min(deadline)));
            }
        }
        Look { next, stuck }
    }

    /// Answers all of which the inner transport, now closed, has not let go.
    pub(super) fn abandon(&self) {
        for errand in self.all() {
            errand.answer_for(ErrorKind::Closed);
        }
    }

    /// Those under way, to be looked at without the lock.
    fn all(&self) -> Vec<Arc<dyn Overdue>> {
        lock(&self.0).all.iter().filter_map(Weak::upgrade).collect()
    }
}

impl fmt::Debug for Errands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Errands")
            .field(&lock(&self.0).all.len())
            .finish()
    }
}
