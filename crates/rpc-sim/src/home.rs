//! What a client and a worker have in common: a link, and the transport that it is up on.
//!
//! This is the supervisor of rpc-core without tasks: it dials, moves in, reports up, lives on the
//! transport until it ends, reports it lost, and dials again.

use rpc_proto::client::Check;
use rpc_proto::link::{Backoff, Generation, Link, Step};
use rpc_proto::{CallId, ErrorKind, TransportError};

use crate::conn::{ConnId, Down, Lane, Open, Owner, Up};
use crate::event::Wake;
use crate::peer::{News, Peer, closed};
use crate::time::{Micros, SECOND};
use crate::wire::Wire;

/// A link and its transport.
#[derive(Debug)]
pub(crate) struct Home<K> {
    pub(crate) owner: Owner,
    link: Link,
    dial: Option<ConnId>,
    /// Sends itself a message before it is up, to see that the whole path works.
    checks: bool,
    /// A transport that is moved in on, and the message that is on its way there.
    checking: Option<(Peer<K>, Option<Check>)>,
    /// The last transport; it may have ended.
    pub(crate) peer: Option<Peer<K>>,
    pub(crate) generation: Generation,
}

/// What came of something that arrived.
#[derive(Debug)]
pub(crate) enum Arrival<K> {
    /// The transport of a new generation is there.
    Up,
    News(News<K>),
    Nothing,
}

impl<K> Home<K> {
    pub(crate) fn new(wire: &Wire, owner: Owner, seed: u64, checks: bool) -> Self {
        Self {
            owner,
            link: Link::new(2, Backoff::default(), seed, wire.instant()),
            dial: None,
            checks,
            checking: None,
            peer: None,
            generation: Generation::default(),
        }
    }

    /// Dials when it is time to; tells when to look again.
    pub(crate) fn poll(&mut self, wire: &mut Wire, open: impl FnOnce() -> Open) -> Option<Micros> {
        let now = wire.instant();
        match self.link.poll(now) {
            Step::Dial(_) => {
                let conn = wire.connect(self.owner);
                wire.trace("dial", [self.owner.process.0 as u64, conn.0 as u64, 0]);
                self.dial = Some(conn);
                wire.send_up(conn, Lane::Consume, Up::Open(open()));
                let timeout = wire.now + DIAL_TIMEOUT;
                wire.wake(self.owner, timeout, Wake::DialTimeout(conn));
                None
            }
            Step::Wait(until) => Some(wire.clock.micros(until)),
            Step::Watch | Step::Stop => None,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.peer.as_ref().is_some_and(|peer| peer.open)
    }

    /// Something came on one of this process's connections.
    pub(crate) fn handle(&mut self, wire: &mut Wire, conn: ConnId, frame: Down) -> Arrival<K> {
        if self.dial == Some(conn) {
            return self.handle_dial(wire, conn, frame);
        }
        match &mut self.peer {
            Some(peer) if peer.conn == conn && peer.open => {
                let news = peer.handle(wire, frame);
                if let News::Ended(cause, _) = &news {
                    self.link
                        .handle_lost(wire.instant(), self.generation, cause.clone());
                }
                Arrival::News(news)
            }
            _ => Arrival::Nothing,
        }
    }

    fn handle_dial(&mut self, wire: &mut Wire, conn: ConnId, frame: Down) -> Arrival<K> {
        if let Some((peer, check)) = &mut self.checking {
            return match peer.handle(wire, frame) {
                News::Delivery(0, deliver)
                    if check
                        .as_ref()
                        .is_some_and(|check| check.is_heard(&deliver.message)) =>
                {
                    self.checked(wire, conn, Ok(()))
                }
                News::Cancelled(_) => self.checked(wire, conn, Err(closed("consume"))),
                News::Ended(cause, _) => self.checked(wire, conn, Err(cause)),
                _ => Arrival::Nothing,
            };
        }
        match frame {
            Down::Opened(opened) => {
                let mut peer = Peer::new(conn, opened);
                let id = CallId::from_bits(conn.0 as u128);
                let check = self
                    .checks
                    .then(|| Check::begin(wire.instant(), id, &peer.inbox, false, peer.blocked))
                    .flatten();
                let Some((check, to, message)) = check else {
                    self.checking = Some((peer, None));
                    return self.move_in(wire);
                };
                peer.publish_unasked(wire, &to, message);
                self.checking = Some((peer, Some(check)));
                Arrival::Nothing
            }
            Down::Refused | Down::End => {
                let cause = TransportError::new(ErrorKind::Connect, "sim", "connect");
                self.dial_failed(wire, conn, cause);
                Arrival::Nothing
            }
            _ => Arrival::Nothing,
        }
    }

    /// All that belongs on the new transport is there.
    fn move_in(&mut self, wire: &mut Wire) -> Arrival<K> {
        self.dial = None;
        let Some((mut peer, _)) = self.checking.take() else {
            return Arrival::Nothing;
        };
        let Some(generation) = self.link.handle_up(wire.instant()) else {
            peer.close(wire);
            return Arrival::Nothing;
        };
        self.generation = generation;
        let process = self.owner.process.0 as u64;
        wire.trace("up", [process, peer.conn.0 as u64, generation.number()]);
        self.peer = Some(peer);
        Arrival::Up
    }

    /// The attempt to connect has gone on for long enough.
    pub(crate) fn dial_timeout(&mut self, wire: &mut Wire, conn: ConnId) -> Arrival<K> {
        if self.dial != Some(conn) {
            return Arrival::Nothing;
        }
        self.checked(wire, conn, Err(Check::overdue()))
    }

    fn checked(
        &mut self,
        wire: &mut Wire,
        conn: ConnId,
        outcome: Result<(), TransportError>,
    ) -> Arrival<K> {
        let blocked = self.checking.as_ref().is_some_and(|(peer, _)| peer.blocked);
        let check = self.checking.as_mut().and_then(|(_, check)| check.take());
        let judged = match check {
            Some(check) => check.judge(outcome, blocked).map(drop),
            None => outcome,
        };
        match judged {
            Ok(()) => self.move_in(wire),
            Err(cause) => {
                self.dial_failed(wire, conn, cause);
                Arrival::Nothing
            }
        }
    }

    fn dial_failed(&mut self, wire: &mut Wire, conn: ConnId, cause: TransportError) {
        self.dial = None;
        self.checking = None;
        wire.close(conn);
        self.link.handle_failed(wire.instant(), cause);
    }

    /// The owner gives its transport up, to have another.
    pub(crate) fn leave(&mut self, wire: &mut Wire) -> News<K> {
        match &mut self.peer {
            Some(peer) if peer.open => {
                let news = peer.handle(wire, Down::End);
                self.link
                    .handle_lost(wire.instant(), self.generation, closed("consume"));
                news
            }
            _ => News::Nothing,
        }
    }

    /// The owner ends for good.
    pub(crate) fn close(&mut self, wire: &mut Wire) {
        self.link.close();
        if let Some(conn) = self.dial.take() {
            wire.close(conn);
        }
        if let Some(peer) = &mut self.peer {
            peer.close(wire);
        }
    }
}

const DIAL_TIMEOUT: Micros = SECOND;
