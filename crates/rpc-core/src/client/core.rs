//! What both faces of the client share: how it calls, its table, its link, and what ends when.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rpc_proto::client::{Budget, Check};
use rpc_proto::link::{Generation, Link, LinkState};
use rpc_proto::{Address, ConsumerId, Message, ShortString, TransportError};

use super::latch::Latch;
use super::open_call::new_id;
use super::stats::{ClientStats, Tally};
use super::table::{Seat, Table, given_up};
use super::{ClientOptions, GIVE_UP, Stub};
use crate::Inbox;
use crate::link::{CLOSE_LIMIT, LinkCell, Whose};

/// A client without the I/O.
#[derive(Debug)]
pub(crate) struct Core<T> {
    pub(crate) stub: Stub,
    pub(crate) table: Table<T>,
    pub(crate) cell: Arc<LinkCell>,
    /// Whether the transports were made for this client, and are its to close.
    pub(crate) owned: bool,
    pub(super) budget: Budget,
    pub(super) tally: Tally,
    /// Calls between two attempts.
    waiting: AtomicUsize,
    /// Opened when the courier has no more to carry, and when nobody receives any more.
    pub(crate) told: Latch,
    pub(crate) left: Latch,
}

impl<T> Core<T> {
    pub(crate) fn new(options: ClientOptions, link: Link, owned: bool) -> Arc<Self> {
        let whose = Whose {
            role: "client",
            queue: options.service.routing_key().clone(),
        };
        Arc::new(Self {
            table: Table::new(options.limits),
            cell: LinkCell::new(link, options.observer.0.clone(), whose),
            owned,
            budget: Budget::new(&options.retry),
            tally: Tally::default(),
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
        let link = Link::new(endpoints, options.backoff, seed, Instant::now());
        Self::new(options, link, true)
    }

    /// Nobody could be found to drive it: ends all that it would ever do, for this reason.
    #[cfg(feature = "blocking")]
    pub(crate) fn abandon(&self, cause: TransportError) {
        self.table.abandon(cause.clone());
        self.cell.abandon(cause);
        self.left.open();
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

    /// Begins to check a new connection by a message to this inbox of it; nothing where that is not
    /// wanted, or cannot be.
    pub(crate) fn check(
        &self,
        inbox: &ShortString,
        blocked: bool,
    ) -> Option<(Check, Address, Message)> {
        let options = &self.stub.options;
        // Who is held to an exchange may not write to the default one.
        if !options.self_check || !options.service.exchange_name().is_empty() {
            return None;
        }
        let direct = matches!(options.inbox, Inbox::Direct);
        Check::begin(Instant::now(), new_id(), inbox, direct, blocked)
    }

    /// How long its owner waits at most for it to leave its transport.
    pub(crate) fn leave_limit(&self) -> Duration {
        GIVE_UP
            + if self.owned {
                CLOSE_LIMIT
            } else {
                Duration::ZERO
            }
    }

    /// Calls that are open, between two attempts or in one.
    pub(crate) fn in_flight(&self) -> usize {
        self.table.in_flight() + self.waiting.load(Ordering::Relaxed)
    }

    pub(crate) fn stats(&self) -> ClientStats {
        ClientStats {
            attempts: self.table.stats(),
            calls: self.tally.now(),
        }
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
        self.0.table.abandon(given_up());
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

#[cfg(all(test, feature = "blocking"))]
mod tests {
    use std::error::Error;
    use std::pin::pin;

    use rpc_proto::client::Request;
    use rpc_proto::{CallError, Certainty, ErrorKind};

    use super::*;
    use crate::client::{CallOptions, Run};
    use crate::park;

    #[test]
    fn a_client_that_nobody_can_drive_says_why_and_keeps_nobody_waiting() {
        let options = ClientOptions::new(ShortString::from_static("q"));
        let core: Arc<Core<()>> = Core::connecting(options, 1);
        let cause = TransportError::new(ErrorKind::Other, "rpc", "start").with_detail("no thread");
        core.abandon(cause);
        let LinkState::Lost(cause) = core.cell.state() else {
            panic!("{:?}", core.cell);
        };
        let mut run = Run::new(&core, CallOptions::default(), Request::default());
        let error = run.attempt().map(drop).unwrap_err();
        assert!(matches!(error, CallError::NotSent(_)), "{error:?}");
        assert_eq!(error.certainty(), Certainty::NotExecuted);
        assert_eq!(error.source().unwrap().to_string(), cause.to_string());
        let now = Instant::now();
        park::block_on_until(pin!(core.left.wait()), now).expect("nobody is there to leave");
    }
}
