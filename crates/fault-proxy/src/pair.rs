//! The two sockets of one connection, and how they end.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

use socket2::SockRef;

use crate::faults::{Direction, End};

/// One connection: the client's end and the server's end.
///
/// The sockets are shared and never duplicated: a reset goes out when the last handle is dropped.
#[derive(Debug)]
pub(crate) struct Pair {
    /// Towards the client.
    near: TcpStream,
    /// Towards the server.
    far: TcpStream,
    over: OnceLock<End>,
}

impl Pair {
    pub(crate) fn join(near: TcpStream, far: TcpStream) -> io::Result<Self> {
        for socket in [&near, &far] {
            socket.set_nodelay(true)?;
            // A peer that neither reads nor writes must not keep a thread here from seeing that it
            // is over.
            socket.set_write_timeout(Some(POLL))?;
            socket.set_read_timeout(Some(POLL))?;
        }
        Ok(Self {
            near,
            far,
            over: OnceLock::new(),
        })
    }

    pub(crate) fn source(&self, direction: Direction) -> &TcpStream {
        match direction {
            Direction::Up => &self.near,
            Direction::Down => &self.far,
        }
    }

    pub(crate) fn sink(&self, direction: Direction) -> &TcpStream {
        match direction {
            Direction::Up => &self.far,
            Direction::Down => &self.near,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.get().is_some()
    }

    /// Whether it is over by a cut.
    pub(crate) fn is_cut(&self) -> bool {
        self.over.get() == Some(&End::Cut)
    }

    /// Ends it; the second end of a connection changes nothing.
    pub(crate) fn end(&self, end: End) {
        if self.over.set(end).is_err() {
            return;
        }
        for socket in [&self.near, &self.far] {
            // An error means that it has ended by itself.
            let _ = match end {
                // Whoever reads here goes on for a while, and throws away what comes.
                End::Cut => socket.shutdown(Shutdown::Write),
                // To read no more tells the peer nothing, and wakes the thread that reads here.
                // Once all have let go, closing the socket sends the reset.
                End::Reset => SockRef::from(socket)
                    .set_linger(Some(Duration::ZERO))
                    .and_then(|()| socket.shutdown(Shutdown::Read)),
            };
        }
    }

    /// Ends one direction, and leaves the other.
    pub(crate) fn half_close(&self, direction: Direction) {
        let _ = self.sink(direction).shutdown(Shutdown::Write);
        let _ = self.source(direction).shutdown(Shutdown::Read);
    }

    /// Whether the client has ended its side.
    pub(crate) fn is_left_by_client(&self) -> bool {
        matches!(self.near.peek(&mut [0]), Ok(0))
            || self.near.take_error().is_ok_and(|error| error.is_some())
    }
}

/// How often a blocked thread looks whether it is over.
pub(crate) const POLL: Duration = Duration::from_millis(50);
