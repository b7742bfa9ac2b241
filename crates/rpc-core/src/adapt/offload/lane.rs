//! A queue of commands for one thread, in which none outwaits its deadline.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use futures_channel::oneshot;

use crate::adapt::lock;
use crate::blocking::Transport;
use crate::{AckToken, Address, Confirm, ErrorKind, Fate, Message, TransportError};

/// What a lane carries out.
pub(super) trait Command: Send + 'static {
    /// Until when it may wait for its turn.
    fn deadline(&self) -> Instant;

    /// Whether nobody wants it done any more.
    fn is_abandoned(&self) -> bool;

    /// Answers that it was not carried out.
    fn refuse(self, transport: &'static str, kind: ErrorKind);

    /// Does it with the inner transport and answers.
    fn carry_out<T: Transport>(self, transport: &'static str, inner: &T);
}

/// A publish that waits for its turn.
pub(super) struct Publish {
    pub(super) to: Address,
    pub(super) message: Message,
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Result<Confirm, TransportError>>,
}

impl Command for Publish {
    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_canceled()
    }

    fn refuse(self, transport: &'static str, kind: ErrorKind) {
        let error = TransportError::new(kind, transport, "publish")
            .with_detail("not handed over")
            .unsent();
        let _ = self.reply.send(Err(error));
    }

    fn carry_out<T: Transport>(self, transport: &'static str, inner: &T) {
        let answer = caught(transport, "publish", || {
            inner.publish(&self.to, self.message, self.deadline)
        });
        let _ = self.reply.send(answer);
    }
}

/// What settles a delivery, and waits for its turn.
pub(super) struct Settle {
    pub(super) token: AckToken,
    pub(super) verdict: Verdict,
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Result<(), TransportError>>,
}

/// How a delivery is settled.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    Done,
    NotDone(Fate),
}

impl Verdict {
    const fn operation(self) -> &'static str {
        match self {
            Self::Done => "ack",
            Self::NotDone(_) => "reject",
        }
    }
}

impl Command for Settle {
    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn is_abandoned(&self) -> bool {
        // The token is in here: given up, the delivery would hold a place of the prefetch until the
        // transport closes. So it is settled even when the caller does not wait for it.
        false
    }

    fn refuse(self, transport: &'static str, kind: ErrorKind) {
        let error = TransportError::new(kind, transport, self.verdict.operation())
            .with_detail("not handed over");
        let _ = self.reply.send(Err(error));
    }

    fn carry_out<T: Transport>(self, transport: &'static str, inner: &T) {
        let operation = self.verdict.operation();
        let answer = caught(transport, operation, || match self.verdict {
            Verdict::Done => inner.ack(self.token),
            Verdict::NotDone(fate) => inner.reject(self.token, fate),
        });
        let _ = self.reply.send(answer);
    }
}

/// A queue of commands, carried out one after the other.
///
/// It has no bound of its own: each command has a future that waits for it, or had one that was
/// dropped a moment ago, so there are never more than there are callers, and each of them holds
/// its message anyway. That is the back-pressure, and nothing has to block for it.
pub(super) struct Lane<C> {
    transport: &'static str,
    state: Mutex<State<C>>,
    filled: Condvar,
}

struct State<C> {
    queue: VecDeque<C>,
    open: bool,
    /// Whether the thread waits for a command: only then is it worth a system call to wake it.
    idle: bool,
}

impl<C: Command> Lane<C> {
    pub(super) fn new(transport: &'static str) -> Self {
        Self {
            transport,
            state: Mutex::new(State {
                queue: VecDeque::new(),
                open: true,
                idle: false,
            }),
            filled: Condvar::new(),
        }
    }

    /// Puts a command at the end of the queue, or refuses it when the lane is closed.
    pub(super) fn push(&self, command: C) {
        let mut state = lock(&self.state);
        if !state.open {
            drop(state);
            command.refuse(self.transport, ErrorKind::Closed);
            return;
        }
        state.queue.push_back(command);
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        if idle {
            self.filled.notify_one();
        }
    }

    /// Carries out what comes, until the lane is closed.
    pub(super) fn work<T: Transport>(&self, inner: &T) {
        while let Some(command) = self.take() {
            if command.is_abandoned() {
                continue;
            }
            if command.deadline() <= Instant::now() {
                command.refuse(self.transport, ErrorKind::Timeout);
                continue;
            }
            command.carry_out(self.transport, inner);
        }
    }

    fn take(&self) -> Option<C> {
        let mut state = lock(&self.state);
        loop {
            if let Some(command) = state.queue.pop_front() {
                return Some(command);
            }
            if !state.open {
                return None;
            }
            state.idle = true;
            state = self
                .filled
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Refuses what has waited too long, forgets what nobody waits for, and says until when the
    /// rest may wait.
    ///
    /// The lane's own thread cannot do that: it may be held up in a command that has more time.
    pub(super) fn sweep(&self, now: Instant) -> Option<Instant> {
        let is_late = |command: &C| command.deadline() <= now || command.is_abandoned();
        let mut late = VecDeque::new();
        let mut state = lock(&self.state);
        if state.queue.iter().any(is_late) {
            (late, state.queue) = std::mem::take(&mut state.queue)
                .into_iter()
                .partition(is_late);
        }
        let next = state.queue.iter().map(Command::deadline).min();
        drop(state);
        for command in late {
            command.refuse(self.transport, ErrorKind::Timeout);
        }
        next
    }

    /// Refuses what waits and what comes, and lets the thread go.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.open = false;
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        self.filled.notify_all();
        for command in queue {
            command.refuse(self.transport, ErrorKind::Closed);
        }
    }
}

impl<C> fmt::Debug for Lane<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("waiting", &lock(&self.state).queue.len())
            .finish_non_exhaustive()
    }
}

/// Makes an error of a panic in the inner transport, so that it costs one caller an error and not
/// every caller the thread.
pub(super) fn caught<R>(
    transport: &'static str,
    operation: &'static str,
    work: impl FnOnce() -> Result<R, TransportError>,
) -> Result<R, TransportError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(TransportError::new(ErrorKind::Other, transport, operation)
            .with_detail("the transport panicked"))
    })
}
