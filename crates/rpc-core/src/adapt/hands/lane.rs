//! A queue of commands for one thread, in which none outlives its deadline.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_channel::oneshot;

use crate::adapt::lock;
use crate::blocking::Transport;
use crate::{AckToken, Address, Confirm, ErrorKind, Fate, Message, TransportError};

/// How much later than a command's deadline its caller is answered in place of the inner transport:
/// that has the same deadline, and knows better what became of it.
const COURTESY: Duration = Duration::from_millis(30);

/// What a lane carries out.
pub(super) trait Command: Send + 'static {
    /// What the inner transport answers.
    type Answer: Send;

    /// Whether it is only worth doing as long as somebody waits for it.
    const FOR_ITS_CALLER: bool;

    /// How much later than the deadline the inner transport is given up that still has not answered.
    const PATIENCE: Duration;

    /// What it is.
    fn operation(&self) -> &'static str;

    /// Until when it may take.
    fn deadline(&self) -> Instant;

    /// Does it with the inner transport.
    fn carry_out<T: Transport>(self, inner: &T) -> Result<Self::Answer, TransportError>;
}

/// A publish that waits for its turn.
pub(super) struct Publish {
    pub(super) to: Address,
    pub(super) message: Message,
    pub(super) deadline: Instant,
}

impl Command for Publish {
    type Answer = Confirm;
    const FOR_ITS_CALLER: bool = true;
    // A deadline may be as short as one likes, so missing it a little proves nothing.
    const PATIENCE: Duration = Duration::from_secs(2);

    fn operation(&self) -> &'static str {
        "publish"
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn carry_out<T: Transport>(self, inner: &T) -> Result<Confirm, TransportError> {
        inner.publish(&self.to, self.message, self.deadline)
    }
}

/// What settles a delivery, and waits for its turn.
pub(super) struct Settle {
    pub(super) token: AckToken,
    pub(super) verdict: Verdict,
    pub(super) deadline: Instant,
}

/// How a delivery is settled.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    Done,
    NotDone(Fate),
}

impl Command for Settle {
    type Answer = ();
    // The token is in here: given up, the delivery would hold a place of the prefetch until the
    // transport closes. So it is settled even when the caller does not wait for it.
    const FOR_ITS_CALLER: bool = false;
    const PATIENCE: Duration = Duration::ZERO;

    fn operation(&self) -> &'static str {
        match self.verdict {
            Verdict::Done => "ack",
            Verdict::NotDone(_) => "reject",
        }
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn carry_out<T: Transport>(self, inner: &T) -> Result<(), TransportError> {
        match self.verdict {
            Verdict::Done => inner.ack(self.token),
            Verdict::NotDone(fate) => inner.reject(self.token, fate),
        }
    }
}

type Reply<C> = oneshot::Sender<Result<<C as Command>::Answer, TransportError>>;

/// A queue of commands, carried out one after the other.
///
/// It has no bound of its own: each command has a future that waits for it, or had one that was
/// dropped a moment ago, so there are never more than there are callers, and each of them holds
/// its message anyway. That is the back-pressure, and nothing has to block for it.
pub(super) struct Lane<C: Command> {
    transport: &'static str,
    state: Mutex<State<C>>,
    filled: Condvar,
}

struct State<C: Command> {
    queue: VecDeque<(C, Reply<C>)>,
    under_way: Option<UnderWay<C>>,
    open: bool,
    /// Whether the thread waits for a command: only then is it worth a system call to wake it.
    idle: bool,
}

/// The command that the inner transport has.
struct UnderWay<C: Command> {
    operation: &'static str,
    deadline: Instant,
    /// Taken by who answers first: the thread that has it, or the keeper.
    reply: Option<Reply<C>>,
}

/// What a look at a lane found.
pub(super) struct Look {
    /// When to look again.
    pub(super) next: Option<Instant>,
    /// What the inner transport does not answer.
    pub(super) stuck: Option<&'static str>,
}

impl<C: Command> Lane<C> {
    pub(super) fn new(transport: &'static str) -> Self {
        Self {
            transport,
            state: Mutex::new(State {
                queue: VecDeque::new(),
                under_way: None,
                open: true,
                idle: false,
            }),
            filled: Condvar::new(),
        }
    }

    /// Puts a command at the end of the queue, or refuses it when the lane is closed.
    pub(super) fn push(&self, command: C, reply: Reply<C>) {
        let mut state = lock(&self.state);
        if !state.open {
            drop(state);
            self.refuse(&command, reply, ErrorKind::Closed);
            return;
        }
        state.queue.push_back((command, reply));
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        if idle {
            self.filled.notify_one();
        }
    }

    /// Carries out what comes, until the lane is closed.
    pub(super) fn work<T: Transport>(&self, inner: &T) {
        while let Some(command) = self.take() {
            let operation = command.operation();
            let answer = caught(self.transport, operation, || command.carry_out(inner));
            let under_way = lock(&self.state).under_way.take();
            // Outside the lock: a future that is woken, or dropped, runs foreign code.
            if let Some(reply) = under_way.and_then(|under_way| under_way.reply) {
                let _ = reply.send(answer);
            }
        }
    }

    /// Waits for the next command that is worth carrying out.
    fn take(&self) -> Option<C> {
        let mut state = lock(&self.state);
        loop {
            let Some((command, reply)) = state.queue.pop_front() else {
                if !state.open {
                    return None;
                }
                state.idle = true;
                state = self
                    .filled
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            if is_worthless::<C>(&reply) || command.deadline() <= Instant::now() {
                drop(state);
                self.refuse(&command, reply, ErrorKind::Timeout);
                state = lock(&self.state);
                continue;
            }
            state.under_way = Some(UnderWay {
                operation: command.operation(),
                deadline: command.deadline(),
                reply: Some(reply),
            });
            return Some(command);
        }
    }

    /// Answers what has taken too long, forgets what nobody waits for, and says until when the rest
    /// may take.
    ///
    /// The lane's own thread cannot do that: it may be held up in the inner transport.
    pub(super) fn look(&self, now: Instant) -> Look {
        let is_late = |(command, reply): &(C, Reply<C>)| {
            command.deadline() <= now || is_worthless::<C>(reply)
        };
        let mut late = VecDeque::new();
        let mut state = lock(&self.state);
        if state.queue.iter().any(is_late) {
            (late, state.queue) = std::mem::take(&mut state.queue)
                .into_iter()
                .partition(is_late);
        }
        let queued = state.queue.iter().map(|(command, _)| command.deadline());
        let mut next = queued.min();
        let (mut overdue, mut stuck) = (None, None);
        if let Some(under_way) = &mut state.under_way {
            let answer_at = under_way.deadline + COURTESY;
            let give_up_at = answer_at + C::PATIENCE;
            if answer_at <= now {
                overdue = under_way.reply.take().zip(Some(under_way.operation));
            }
            if give_up_at <= now {
                stuck = Some(under_way.operation);
            }
            let then = if answer_at <= now {
                give_up_at
            } else {
                answer_at
            };
            next = Some(next.map_or(then, |next| next.min(then)));
        }
        drop(state);
        for (command, reply) in late {
            self.refuse(&command, reply, ErrorKind::Timeout);
        }
        if let Some((reply, operation)) = overdue {
            let _ = reply.send(Err(unanswered(self.transport, operation)));
        }
        Look { next, stuck }
    }

    /// Refuses what waits and what comes, and lets the thread go.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.open = false;
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        self.filled.notify_all();
        for (command, reply) in queue {
            self.refuse(&command, reply, ErrorKind::Closed);
        }
    }

    /// Answers the command of which the inner transport, now closed, has not let go.
    pub(super) fn abandon(&self) {
        let mut state = lock(&self.state);
        let under_way = state.under_way.as_mut();
        let left = under_way.and_then(|one| one.reply.take().zip(Some(one.operation)));
        drop(state);
        if let Some((reply, operation)) = left {
            let closed = TransportError::new(ErrorKind::Closed, self.transport, operation)
                .with_detail("the transport was closed, and has not answered");
            let _ = reply.send(Err(closed));
        }
    }

    /// Answers that it was not carried out.
    fn refuse(&self, command: &C, reply: Reply<C>, kind: ErrorKind) {
        let error = TransportError::new(kind, self.transport, command.operation())
            .with_detail("not handed over")
            .unsent();
        let _ = reply.send(Err(error));
    }
}

/// Whether nobody wants it done any more.
fn is_worthless<C: Command>(reply: &Reply<C>) -> bool {
    C::FOR_ITS_CALLER && reply.is_canceled()
}

impl<C: Command> fmt::Debug for Lane<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("waiting", &lock(&self.state).queue.len())
            .finish_non_exhaustive()
    }
}

/// The error of a verb that the inner transport has not answered; what became of it is not known.
pub(super) fn unanswered(transport: &'static str, operation: &'static str) -> TransportError {
    TransportError::new(ErrorKind::Timeout, transport, operation)
        .with_detail("the transport has not answered in time")
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
