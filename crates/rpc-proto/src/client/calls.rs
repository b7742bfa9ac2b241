//! The table of open calls.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::notices::{ById, Notices};
use super::{Attempt, CallError, Ended, Limits, Request, Stats};
use crate::link::Generation;
use crate::mutants::{Mutant, is};
use crate::wire::{self, Reply, is_reserved};
use crate::{
    Address, CallId, Certainty, ErrorKind, Expiration, HeaderValue, Headers, Message, ShortString,
    TransportError, deadline_after,
};

/// The open calls of a client, over all its connections.
///
/// Each connection is a [`Generation`] with a reply address of its own. A call belongs to the
/// generation it began in, and ends with it at the latest; so all open calls are of the present one,
/// and what comes from an earlier one is too late.
///
/// `W` is whatever the driver needs to wake the caller; the machine carries it and hands it back.
///
/// Commands: [`start`](Self::start), [`cancel`](Self::cancel), [`give_up`](Self::give_up),
/// [`close`](Self::close). What happened: [`handle_connect`](Self::handle_connect), [`handle_publish`](Self::handle_publish),
/// [`handle_reply`](Self::handle_reply), [`handle_timeout`](Self::handle_timeout),
/// [`handle_disconnect`](Self::handle_disconnect), [`handle_end`](Self::handle_end). To do:
/// [`poll_ended`](Self::poll_ended) and [`poll_cancel`](Self::poll_cancel) after each of them, and
/// [`poll_timeout`](Self::poll_timeout).
#[derive(Debug)]
pub struct Calls<W> {
    limits: Limits,
    standing: Standing,
    pending: HashMap<CallId, Pending<W>, ById>,
    /// The same calls by deadline. An entry leaves with its call, so that calls given up early do
    /// not pile up here until their deadlines.
    deadlines: BTreeSet<(Instant, CallId)>,
    ended: VecDeque<Ended<W>>,
    notices: Notices,
    stats: Stats,
}

#[derive(Debug)]
struct Pending<W> {
    deadline: Instant,
    confirmed: bool,
    /// Where the worker that runs it listens, once it has said so.
    worker: Option<ShortString>,
    waiter: W,
}

/// Whether calls can start.
#[derive(Debug)]
enum Standing {
    /// Never again, as the caller wished.
    Closed,
    /// Not now; and why, unless that is the very beginning.
    Down(Option<TransportError>),
    /// Never again: there will be no other connection.
    Lost(TransportError),
    Up {
        generation: Generation,
        reply_to: ShortString,
    },
}

impl<W> Calls<W> {
    /// An empty table, with no connection yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            standing: Standing::Down(None),
            pending: HashMap::default(),
            deadlines: BTreeSet::new(),
            ended: VecDeque::new(),
            notices: Notices::default(),
            stats: Stats::default(),
        }
    }

    /// There is a connection, and replies come to this address.
    pub fn handle_connect(&mut self, generation: Generation, reply_to: ShortString) {
        match self.standing {
            Standing::Closed | Standing::Lost(_) => return,
            Standing::Down(Some(_)) if is(Mutant::NeverUpAgain) => return,
            Standing::Down(_) => {}
            // Nobody said that the one before is gone; it is.
            Standing::Up { .. } => self.lose(&superseded()),
        }
        self.standing = Standing::Up {
            generation,
            reply_to,
        };
    }

    /// Opens a call and returns the message to publish, on the present connection.
    ///
    /// The message carries the time left as its expiration, so that neither broker nor service works
    /// for a caller that has gone.
    ///
    /// # Errors
    ///
    /// All of them certain that nothing ran: the method is a word of the framework, the request is
    /// over the limit, too many calls are open, the deadline has passed, there is no connection, or
    /// the table is closed. Then nothing was opened.
    pub fn start(
        &mut self,
        now: Instant,
        request: Request,
        attempt: Attempt,
        waiter: W,
    ) -> Result<Message, CallError> {
        if let Some(method) = request.method.as_ref().filter(|name| is_reserved(name)) {
            // Servers drop these unanswered, and no wait for a connection would change that.
            let why = format!("{method:?} is a word of the framework and names no method");
            return Err(CallError::RequestUnencodable(why));
        }
        let reply_to = match &self.standing {
            Standing::Up { reply_to, .. } => reply_to.clone(),
            Standing::Closed => {
                return Err(CallError::Closed {
                    certainty: Certainty::NotExecuted,
                });
            }
            Standing::Down(cause) => {
                return Err(CallError::BrokerDown(
                    cause.clone().unwrap_or_else(not_connected),
                ));
            }
            Standing::Lost(cause) => return Err(CallError::NotSent(cause.clone())),
        };
        let Request {
            body,
            content_type,
            delivery_mode,
            mut headers,
            method,
        } = request;
        if body.len() > self.limits.max_request {
            let limit = self.limits.max_request;
            return Err(CallError::RequestTooLarge {
                len: body.len(),
                limit,
            });
        }
        if self.pending.len() >= self.limits.max_in_flight {
            return Err(CallError::TooManyInFlight {
                limit: self.limits.max_in_flight,
            });
        }
        let id = attempt.id;
        let deadline = attempt
            .deadline
            .min(deadline_after(now, self.limits.max_timeout));
        let left = deadline.saturating_duration_since(now);
        if left.is_zero() {
            return Err(CallError::DeadlineExceeded {
                certainty: Certainty::NotExecuted,
                confirmed: false,
            });
        }
        annotate(&mut headers, &attempt, left);
        self.stats.started += 1;
        if !is(Mutant::ForgottenTimer) || attempt.message_id.is_none() {
            self.deadlines.insert((deadline, id));
        }
        let known = self.pending.insert(
            id,
            Pending {
                deadline,
                confirmed: false,
                worker: None,
                waiter,
            },
        );
        debug_assert!(known.is_none(), "a call id was used twice");
        let correlation_id = id.to_correlation_id();
        Ok(Message {
            body,
            content_type,
            message_id: attempt.message_id.or_else(|| Some(correlation_id.clone())),
            correlation_id: Some(correlation_id),
            delivery_mode,
            expiration: Some(Expiration::after(left)),
            headers,
            kind: method,
            reply_to: Some(reply_to),
        })
    }

    /// Takes back a call whose caller has gone, and has its worker told. Returns whether it was
    /// still open.
    pub fn cancel(&mut self, id: CallId) -> bool {
        if is(Mutant::CancelLeaks) {
            return self.pending.contains_key(&id);
        }
        let Some(pending) = self.remove(id) else {
            return false;
        };
        self.notices.give_up(id, pending.worker);
        self.stats.cancelled += 1;
        true
    }

    /// Ends a call that nobody needs any more, and has its worker told. Whoever waits for it learns
    /// that.
    pub fn give_up(&mut self, id: CallId) {
        let error = CallError::GivenUp {
            certainty: unknown(Mutant::GivenUpIsNotExecuted),
        };
        if let Some(worker) = self.end(id, Err(error)) {
            self.notices.give_up(id, worker);
        }
    }

    /// Ends all calls and lets no further one start, at the caller's own wish.
    pub fn close(&mut self) {
        self.standing = Standing::Closed;
        for (id, pending) in &mut self.pending {
            // Nobody will hear of those that are not known yet.
            if let Some(worker) = pending.worker.take() {
                self.notices.give_up(*id, Some(worker));
            }
        }
        self.end_all(|| CallError::Closed {
            certainty: unknown(Mutant::ClosedIsNotExecuted),
        });
    }

    /// The broker has confirmed the request of a call, or the publish has failed.
    pub fn handle_publish(&mut self, id: CallId, result: Result<(), TransportError>) {
        match result {
            Ok(()) if is(Mutant::ConfirmIsReply) => {
                let reply = wire::decode_reply(Message::default());
                self.end(id, reply.map_err(CallError::Remote));
            }
            Ok(()) => {
                if let Some(pending) = self.pending.get_mut(&id) {
                    pending.confirmed = true;
                }
            }
            // The transport ends a publish at the deadline of its call, so this is that deadline.
            Err(error) if error.kind() == ErrorKind::Timeout => {
                self.expire(id, error.certainty());
            }
            Err(error) => {
                self.end(id, Err(CallError::Publish(error)));
            }
        }
    }

    /// A message has come to the reply address of this generation.
    ///
    /// It ends the call it names, or tells which worker runs it. One that names none is counted and
    /// dropped: it is late, a duplicate, or forged.
    pub fn handle_reply(&mut self, generation: Generation, message: Message) {
        let present = matches!(self.standing, Standing::Up { generation: present, .. } if present == generation);
        let id = message
            .correlation_id
            .as_ref()
            .filter(|_| present)
            .and_then(|id| CallId::from_correlation_id(id.as_str()));
        let kind = message.kind.as_ref();
        let taken = match id {
            Some(id) if kind == Some(&wire::STARTED_TYPE) => self.handle_started(id, message),
            Some(id) if self.pending.contains_key(&id) => self.answer(id, message),
            _ if is(Mutant::LateReplyEndsAnother) && !self.deadlines.is_empty() => {
                let oldest = self.deadlines.first().map(|&(_, id)| id);
                oldest.is_some_and(|id| self.answer(id, message))
            }
            Some(id) if is(Mutant::StrayReplyPanics) => self.pending[&id].confirmed,
            // One of our own, to ourselves, that took its time.
            _ => kind == Some(&wire::CHECK_TYPE),
        };
        self.stats.unmatched_replies += u64::from(!taken);
    }

    /// Ends every call whose deadline has passed, and has their workers told.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            let unconfirmed = self.pending.get(&id).is_some_and(|call| !call.confirmed);
            let certainty = if unconfirmed {
                unknown(Mutant::UnconfirmedIsNotExecuted)
            } else {
                Certainty::MaybeExecuted
            };
            self.expire(id, certainty);
        }
    }

    /// The connection of this generation is gone, and its reply address with it: ends every call of
    /// it. None can start until there is another. Nothing happens if there is already.
    pub fn handle_disconnect(&mut self, generation: Generation, cause: TransportError) {
        let present = matches!(self.standing, Standing::Up { generation: present, .. } if present == generation);
        if present || is(Mutant::DisconnectOfAnyGeneration) {
            self.lose(&cause);
            self.standing = Standing::Down(Some(cause));
        }
    }

    /// There is no connection, and there will be none any more: ends every call, and lets no further
    /// one start.
    pub fn handle_end(&mut self, cause: TransportError) {
        // The first reason stays: what follows it is its consequence.
        if matches!(self.standing, Standing::Up { .. } | Standing::Down(_)) {
            self.lose(&cause);
            self.standing = Standing::Lost(cause);
        }
    }

    /// The next call that has ended.
    pub fn poll_ended(&mut self) -> Option<Ended<W>> {
        self.ended.pop_front()
    }

    /// The next notice to a worker that nobody awaits its reply any more, and where to send it. It
    /// does no harm when it is lost.
    pub fn poll_cancel(&mut self) -> Option<(Address, Message)> {
        self.notices.poll()
    }

    /// Whether [`poll_cancel`](Self::poll_cancel) has one.
    #[must_use]
    pub fn has_cancel(&self) -> bool {
        !self.notices.is_empty()
    }

    /// When [`handle_timeout`](Self::handle_timeout) next has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Calls that are open.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// What became of all calls so far.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// A worker has been running this call for a while, and says where it can be told to stop.
    fn handle_started(&mut self, id: CallId, message: Message) -> bool {
        let Some(worker) = message.reply_to else {
            return false;
        };
        match self.pending.get_mut(&id) {
            Some(pending) => {
                pending.worker = Some(worker);
                true
            }
            None => self.notices.handle_started(id, worker),
        }
    }

    fn answer(&mut self, id: CallId, message: Message) -> bool {
        let (len, limit) = (message.body.len(), self.limits.max_reply);
        let result = if len > limit {
            Err(CallError::ReplyTooLarge { len, limit })
        } else {
            wire::decode_reply(message).map_err(CallError::Remote)
        };
        self.end(id, result).is_some()
    }

    /// The deadline of a call has passed; and what is known of whether it ran.
    fn expire(&mut self, id: CallId, certainty: Certainty) {
        let confirmed = self.pending.get(&id).is_some_and(|call| call.confirmed);
        let error = CallError::DeadlineExceeded {
            certainty,
            confirmed,
        };
        if let Some(worker) = self.end(id, Err(error))
            && certainty != Certainty::NotExecuted
        {
            self.notices.give_up(id, worker);
        }
    }

    /// Ends a call if it is open, and returns its worker as far as that is known.
    fn end(&mut self, id: CallId, result: Result<Reply, CallError>) -> Option<Option<ShortString>> {
        let Pending { waiter, worker, .. } = self.remove(id)?;
        match result {
            Ok(_) => self.stats.ok += 1,
            Err(_) => self.stats.failed += 1,
        }
        self.ended.push_back(Ended { result, waiter });
        Some(worker)
    }

    fn lose(&mut self, cause: &TransportError) {
        self.notices.forget();
        self.end_all(|| CallError::ConnectionLost(cause.clone()));
    }

    fn end_all(&mut self, error: impl Fn() -> CallError) {
        self.deadlines.clear();
        self.stats.failed += self.pending.len() as u64;
        let waiters = self.pending.drain().map(|(_, pending)| pending.waiter);
        self.ended.extend(waiters.map(|waiter| Ended {
            result: Err(error()),
            waiter,
        }));
    }

    fn remove(&mut self, id: CallId) -> Option<Pending<W>> {
        let pending = self.pending.remove(&id)?;
        self.deadlines.remove(&(pending.deadline, id));
        Some(pending)
    }
}

/// Writes what a service of ours can use. All of it is optional: where the caller's own headers leave
/// no room, it stays out.
fn annotate(headers: &mut Headers, attempt: &Attempt, left: Duration) {
    const ATTEMPT: ShortString = ShortString::from_static(wire::ATTEMPT);
    const DEADLINE_MS: ShortString = ShortString::from_static(wire::DEADLINE_MS);
    const HOPS: ShortString = ShortString::from_static(wire::HOPS);
    const NOTICES: ShortString = ShortString::from_static(wire::NOTICES);
    const TIMEOUT_MS: ShortString = ShortString::from_static(wire::TIMEOUT_MS);

    headers.reserve(4);
    let left = i64::from(Expiration::after(left).as_millis());
    let _ = headers.put(TIMEOUT_MS, HeaderValue::Int(left));
    if let Some(now) = attempt.unix_ms.and_then(|now| i64::try_from(now).ok()) {
        let _ = headers.put(DEADLINE_MS, HeaderValue::Int(now.saturating_add(left)));
    }
    if attempt.number > 1 {
        let _ = headers.put(ATTEMPT, HeaderValue::Int(attempt.number.into()));
    }
    if attempt.hops > 0 {
        let _ = headers.put(HOPS, HeaderValue::Int(attempt.hops.into()));
    }
    let _ = headers.put(NOTICES, HeaderValue::Flag(true));
}

/// What is known of a call that nobody answered.
fn unknown(otherwise: Mutant) -> Certainty {
    if is(otherwise) {
        Certainty::NotExecuted
    } else {
        Certainty::MaybeExecuted
    }
}

fn not_connected() -> TransportError {
    TransportError::new(ErrorKind::Connect, "rpc", "call")
        .with_detail("the first attempt is under way")
}

fn superseded() -> TransportError {
    TransportError::new(ErrorKind::Closed, "rpc", "receive")
        .with_detail("another connection took its place")
}
