//! One direction of one TCP connection: what is sent arrives in order, later, or not at all.

use std::collections::VecDeque;

use crate::time::Micros;

/// Why nothing comes out of a pipe for now.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum Hold {
    /// The broker does not read from publishers.
    Alarm = 1,
    /// The network swallows it; the sender does not notice.
    Partition = 2,
    /// The process that should read is stopped.
    Pause = 4,
}

/// One direction of a connection.
#[derive(Debug)]
pub(crate) struct Pipe<F> {
    frames: VecDeque<(Micros, F)>,
    last: Micros,
    held: u8,
    /// Nothing that is sent from now on arrives.
    cut: bool,
}

impl<F> Default for Pipe<F> {
    fn default() -> Self {
        Self {
            frames: VecDeque::new(),
            last: 0,
            held: 0,
            cut: false,
        }
    }
}

impl<F> Pipe<F> {
    /// Sends; tells when it arrives, never before what was sent earlier.
    pub(crate) fn send(&mut self, at: Micros, frame: F) -> Option<Micros> {
        if self.cut {
            return None;
        }
        self.last = self.last.max(at);
        self.frames.push_back((self.last, frame));
        Some(self.last)
    }

    /// The next frame, if it has arrived.
    pub(crate) fn take(&mut self, now: Micros) -> Option<F> {
        if self.held != 0 || self.frames.front()?.0 > now {
            return None;
        }
        self.frames.pop_front().map(|(_, frame)| frame)
    }

    pub(crate) const fn hold(&mut self, why: Hold) {
        self.held |= why as u8;
    }

    /// Takes one reason away. Whoever does so looks for what has arrived meanwhile.
    pub(crate) const fn release(&mut self, why: Hold) {
        self.held &= !(why as u8);
    }

    pub(crate) const fn is_held_by(&self, why: Hold) -> bool {
        self.held & why as u8 != 0
    }

    /// The connection breaks: of what is on its way only the first `keep` frames arrive, and then
    /// `end` says so.
    pub(crate) fn cut(&mut self, keep: usize, at: Micros, end: F) -> Option<Micros> {
        if self.cut {
            return None;
        }
        self.frames.truncate(keep);
        let due = self.send(at, end);
        self.cut = true;
        due
    }

    /// The reading end is gone.
    pub(crate) fn clear(&mut self) {
        self.frames.clear();
        self.cut = true;
    }

    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    pub(crate) fn next_due(&self) -> Option<Micros> {
        self.frames.front().map(|&(due, _)| due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_holds_whatever_the_delays_are() {
        let mut pipe = Pipe::default();
        assert_eq!(pipe.send(50, 'a'), Some(50));
        assert_eq!(pipe.send(20, 'b'), Some(50));
        assert_eq!(pipe.take(49), None);
        assert_eq!((pipe.take(50), pipe.take(50)), (Some('a'), Some('b')));
    }

    #[test]
    fn a_cut_loses_a_suffix_and_says_so_once() {
        let mut pipe = Pipe::default();
        for frame in ['a', 'b', 'c'] {
            pipe.send(1, frame);
        }
        assert_eq!(pipe.cut(1, 5, '!'), Some(5));
        assert_eq!(pipe.cut(0, 6, '!'), None);
        assert_eq!(pipe.send(7, 'd'), None);
        assert_eq!((pipe.take(9), pipe.take(9)), (Some('a'), Some('!')));
        assert_eq!(pipe.take(9), None);
    }

    #[test]
    fn what_is_held_stays_until_every_reason_is_gone() {
        let mut pipe = Pipe::default();
        pipe.send(1, 'a');
        pipe.hold(Hold::Alarm);
        pipe.hold(Hold::Pause);
        pipe.release(Hold::Alarm);
        assert_eq!(pipe.take(9), None);
        pipe.release(Hold::Pause);
        assert_eq!(pipe.take(9), Some('a'));
    }
}
