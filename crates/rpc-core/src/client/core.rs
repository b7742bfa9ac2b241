//! What both faces of the client share: how it calls, its table, its link, and what ends when.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rpc_proto::client::{Budget, Stats};
use rpc_proto::link::{Generation, Link, LinkState};
use rpc_proto::wire::CHECK_TYPE;
use rpc_proto::{Address, ConsumerId, ErrorKind, Expiration, Message, ShortString, TransportError};

use super::latch::Latch;
use super::open_call::new_id;
use super::table::{Seat, Table, given_up};
use super::{ClientOptions, Stub};
use crate::link::LinkCell;

/// How long a message to oneself may take.
pub(crate) const CHECK_LIMIT: Duration = Duration::from_secs(5);

/// A client without the I/O.
#[derive(Debug)]
pub(crate) struct Core<T> {
    pub(crate) stub: Stub,
    pub(crate) table: Table<T>,
    pub(crate) cell: Arc<LinkCell>,
    /// Whether the transports were made for this client, and are its to close.
    pub(crate) owned: bool,
    pub(super) budget: Budget,
    /// Calls between two attempts.
    waiting: AtomicUsize,
    /// Opened when the courier has no more to carry, and when nobody receives any more.
    pub(crate) told: Latch,
    pub(crate) left: Latch,
}

impl<T> Core<T> {
    pub(crate) fn new(options: ClientOptions, link: Link, owned: bool) -> Arc<Self> {
        Arc::new(Self {
            table: Table::new(options.limits),
            cell: LinkCell::new(link, options.observer.0.clone()),
            owned,
            budget: Budget::new(&options.retry),
            waiting: AtomicUsize::new(0),
            told: Latch::default(),
            left: Latch::default(),
            stub: Stub::new(options),
        })
    }

    /// Of a client that connects by itself.
    pub(crate) fn connecting(options: ClientOptions, endpoints: usize) -> Arc<Self> {
        #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
        let seed = new_id().bits() as u64;
        let link = Link::new(endpoints, options.backoff, seed, std::time::Instant::now());
        Self::new(options, link, true)
    }

    pub(crate) fn arrive(
        &self,
        generation: Generation,
        transport: &Arc<T>,
        inbox: ConsumerId,
        reply_to: ShortString,
    ) {
        let seat = Seat {
            generation,
            transport: Arc::clone(transport),
            inbox,
        };
        self.table.arrive(seat, reply_to);
    }

    pub(crate) fn depart(&self, generation: Generation, cause: TransportError) {
        let for_good = matches!(self.cell.state(), LinkState::Lost(_));
        self.table.depart(generation, cause, for_good);
    }

    /// The message to itself by which a client sees that its inbox can be reached; none where it is
    /// not to, or cannot.
    pub(crate) fn check(&self, inbox: &ShortString, blocked: bool) -> Option<(Address, Message)> {
        let options = &self.stub.options;
        let can = !blocked && options.service.exchange_name().is_empty();
        if !self.owned || !options.self_check || !can {
            return None;
        }
        let message = Message {
            correlation_id: Some(new_id().to_correlation_id()),
            expiration: Some(Expiration::after(CHECK_LIMIT)),
            kind: Some(CHECK_TYPE),
            ..Message::default()
        };
        Some((Address::queue(inbox.clone()), message))
    }

    /// Calls that are open, between two attempts or in one.
    pub(crate) fn in_flight(&self) -> usize {
        self.table.in_flight() + self.waiting.load(Ordering::Relaxed)
    }

    pub(crate) fn stats(&self) -> Stats {
        self.table.stats()
    }

    /// A call wants to wait for its next attempt. Returns whether there is room.
    pub(super) fn begin_to_wait(&self) -> bool {
        let most = self.stub.options.limits.max_in_flight;
        let room = self.waiting.fetch_add(1, Ordering::Relaxed) < most;
        if !room {
            self.end_wait();
        }
        room
    }

    pub(super) fn end_wait(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Held by whoever receives replies. When it is gone, however it went, none can come any more.
pub(crate) struct Receiving<T>(pub(crate) Arc<Core<T>>);

impl<T> Drop for Receiving<T> {
    fn drop(&mut self) {
        self.0.table.abandon();
        if !matches!(self.0.cell.state(), LinkState::Closed | LinkState::Lost(_)) {
            self.0.cell.close();
        }
        self.0.left.open();
    }
}

/// Held by whoever carries notices to workers.
pub(crate) struct Carrying<T>(pub(crate) Arc<Core<T>>);

impl<T> Drop for Carrying<T> {
    fn drop(&mut self) {
        self.0.told.open();
    }
}

/// The error of an inbox that has ended without a cause of its own.
pub(crate) fn ended() -> TransportError {
    given_up()
}

/// What is wrong with a path on which a message to oneself does not come back.
pub(crate) const SILENCE: &str = "a message to ourselves did not come back in time";

/// The error of a client whose messages to itself do not come back.
pub(crate) fn deaf(detail: &str) -> TransportError {
    TransportError::new(ErrorKind::Connect, "rpc", "check").with_detail(detail)
}
