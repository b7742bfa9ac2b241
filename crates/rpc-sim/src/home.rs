//! What a client and a worker have in common: a link, and the transport that it is up on.
//!
//! This is the supervisor of rpc-core without tasks: it dials, moves in, reports up, lives on the
//! transport until it ends, reports it lost, and dials again.

use rpc_proto::link::{Backoff, Generation, Link, Step};
use rpc_proto::{ErrorKind, TransportError};

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
    pub(crate) fn new(wire: &Wire, owner: Owner, seed: u64) -> Self {
        Self {
            owner,
            link: Link::new(2, Backoff::default(), seed, wire.instant()),
            dial: None,
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
        match frame {
            Down::Opened(opened) => {
                self.dial = None;
                let Some(generation) = self.link.handle_up(wire.instant()) else {
                    wire.close(conn);
                    return Arrival::Nothing;
                };
                self.generation = generation;
                wire.trace(
                    "up",
                    [
                        self.owner.process.0 as u64,
                        conn.0 as u64,
                        generation.number(),
                    ],
                );
                self.peer = Some(Peer::new(conn, opened));
                Arrival::Up
            }
            Down::Refused | Down::End => {
                self.dial_failed(wire, conn, ErrorKind::Connect);
                Arrival::Nothing
            }
            _ => Arrival::Nothing,
        }
    }

    pub(crate) fn dial_timeout(&mut self, wire: &mut Wire, conn: ConnId) {
        if self.dial == Some(conn) {
            self.dial_failed(wire, conn, ErrorKind::Timeout);
        }
    }

    fn dial_failed(&mut self, wire: &mut Wire, conn: ConnId, kind: ErrorKind) {
        self.dial = None;
        wire.close(conn);
        let cause = TransportError::new(kind, "sim", "connect");
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
