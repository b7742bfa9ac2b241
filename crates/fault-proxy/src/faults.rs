//! What is wrong with the line at the moment: one set of faults for each direction.

use std::time::Duration;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a line has two ends")]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Up, Self::Down];

    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Up => 0,
            Self::Down => 1,
        }
    }
}

/// How a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "TCP has these two")]
pub enum End {
    /// As by a process that closes its socket: what was carried arrives, then both ends read an end.
    Cut,
    /// As by a host that crashed and came back: both ends fail with a reset, and what was under way
    /// may be lost.
    Reset,
}

/// What becomes of the bytes that are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Passage {
    #[default]
    Faithful,
    /// Kept until the passage opens again; the sender is held up when the buffers are full.
    Held,
    /// Read and thrown away, while the connection stays.
    Swallowed,
}

/// A connection that ends after so many more bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fuse {
    pub(crate) left: u64,
    pub(crate) end: End,
}

/// The faults of one direction.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    pub(crate) passage: Passage,
    /// Pieces of 1 to 7 bytes, each a packet of its own.
    pub(crate) sliced: bool,
    /// Bytes per second.
    pub(crate) rate: Option<u32>,
    pub(crate) fuse: Option<Fuse>,
    /// Bytes carried so far, over all connections.
    pub(crate) carried: u64,
}

impl Lane {
    /// How many of `ready` bytes may go out in one piece, and how long to wait after it.
    pub(crate) fn piece(&self, ready: usize) -> (usize, Duration) {
        let mut piece = ready;
        if self.sliced {
            // Every length from 1 to 7 comes, in an order that depends on nothing but the count.
            let turn = usize::try_from(self.carried % 7).unwrap_or(0);
            piece = piece.min(1 + turn * 3 % 7);
        }
        let Some(rate) = self.rate else {
            return (piece, Duration::ZERO);
        };
        // Ten pieces a second, so that a change of mind is not long in coming.
        let rate = rate.max(1);
        piece = piece.min(usize::try_from(rate / 10).unwrap_or(usize::MAX).max(1));
        let bytes = u32::try_from(piece).unwrap_or(u32::MAX);
        (piece, Duration::from_secs(1) * bytes / rate)
    }

    /// Counts bytes that went out; tells how the connection is to end, if it is.
    pub(crate) fn count(&mut self, bytes: usize) -> Option<End> {
        let bytes = bytes as u64;
        self.carried += bytes;
        let fuse = self.fuse.as_mut()?;
        fuse.left = fuse.left.saturating_sub(bytes);
        if fuse.left > 0 {
            return None;
        }
        self.fuse.take().map(|fuse| fuse.end)
    }

    /// How many of `piece` bytes may go out before the connection ends.
    pub(crate) fn before_the_end(&self, piece: usize) -> usize {
        match &self.fuse {
            Some(fuse) => piece.min(usize::try_from(fuse.left).unwrap_or(usize::MAX)),
            None => piece,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_have_one_to_seven_bytes_and_every_length_comes() {
        let mut lane = Lane {
            sliced: true,
            ..Lane::default()
        };
        let mut seen = [0; 8];
        for _ in 0..200 {
            let (piece, wait) = lane.piece(1000);
            seen[piece] += 1;
            assert_eq!(wait, Duration::ZERO);
            lane.count(piece);
        }
        assert_eq!(seen[0], 0);
        assert!(
            seen.iter().filter(|times| **times > 0).count() >= 3,
            "{seen:?}"
        );
    }

    #[test]
    fn a_rate_is_kept_by_waits() {
        let lane = Lane {
            rate: Some(50_000),
            ..Lane::default()
        };
        let (piece, wait) = lane.piece(64 << 10);
        assert_eq!((piece, wait), (5_000, Duration::from_millis(100)));
    }

    #[test]
    fn a_fuse_lets_its_bytes_through_and_no_more() {
        let fuse = Fuse {
            left: 10,
            end: End::Cut,
        };
        let mut lane = Lane {
            fuse: Some(fuse),
            ..Lane::default()
        };
        assert_eq!(lane.before_the_end(100), 10);
        assert_eq!(lane.count(4), None);
        assert_eq!(lane.before_the_end(100), 6);
        assert_eq!(lane.count(6), Some(End::Cut));
        assert_eq!(lane.before_the_end(100), 100);
    }
}
