//! Carries bytes one way, as well as the line is at the moment.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::faults::{Direction, End, Lane, Passage};
use crate::pair::Pair;

/// The state of the line, shared by all connections.
#[derive(Debug, Default)]
pub(crate) struct Line {
    lanes: Mutex<[Lane; 2]>,
    changed: Condvar,
}

/// What to do with the next bytes.
enum Step {
    /// Send so many, then end the connection if it is to end, or else wait.
    Send(usize, Option<End>, Duration),
    Drop,
    Stop,
}

impl Line {
    pub(crate) fn lane<R>(&self, direction: Direction, change: impl FnOnce(&mut Lane) -> R) -> R {
        let output = change(&mut self.lock()[direction.index()]);
        self.changed.notify_all();
        output
    }

    /// Makes whoever waits look again.
    pub(crate) fn wake(&self) {
        // Under the lock, so that nobody is between looking and waiting.
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Waits while the lane is held.
    fn step(&self, direction: Direction, pair: &Pair, ready: usize) -> Step {
        let lanes = self.lock();
        let held = |lanes: &mut [Lane; 2]| {
            lanes[direction.index()].passage == Passage::Held && !pair.is_over()
        };
        let lanes = self
            .changed
            .wait_while(lanes, held)
            .unwrap_or_else(PoisonError::into_inner);
        let mut lanes = lanes;
        let lane = &mut lanes[direction.index()];
        if pair.is_over() {
            return Step::Stop;
        }
        if lane.passage == Passage::Swallowed {
            return Step::Drop;
        }
        let (piece, wait) = lane.piece(ready);
        let piece = lane.before_the_end(piece);
        // Before they go out: whoever has received them may set a fuse that is not for them.
        Step::Send(piece, lane.count(piece), wait)
    }

    fn sleep(&self, pair: &Pair, wait: Duration) {
        let until = Instant::now() + wait;
        let mut lanes = self.lock();
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            if left.is_zero() || pair.is_over() {
                return;
            }
            lanes = self
                .changed
                .wait_timeout(lanes, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, [Lane; 2]> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries until one of the ends is reached.
pub(crate) fn carry(line: &Line, pair: &Arc<Pair>, direction: Direction) {
    let mut buffer = vec![0; 64 << 10];
    carry_until_over(line, pair, direction, &mut buffer);
    if pair.is_cut() {
        linger(pair, direction, &mut buffer);
    }
}

/// Reads on after a cut, and throws away, until the peer has ended its side too: a socket that is
/// closed with something unread in it sends a reset, and that overtakes what was carried.
fn linger(pair: &Pair, direction: Direction, buffer: &mut [u8]) {
    let until = Instant::now() + LINGER;
    while Instant::now() < until {
        match pair.source(direction).read(buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if is_nothing_yet(&error) => {}
            Err(_) => return,
        }
    }
}

/// A peer that has read the end answers with its own; one that does not is not waited for any longer.
const LINGER: Duration = Duration::from_secs(2);

fn carry_until_over(line: &Line, pair: &Arc<Pair>, direction: Direction, buffer: &mut [u8]) {
    loop {
        match pair.source(direction).read(buffer) {
            // This is how a thread is told that it is over, and a reset must not begin with an end.
            Ok(0) if pair.is_over() => return,
            // The other direction may have more to say.
            Ok(0) => return pair.half_close(direction),
            Ok(len) => {
                if !deliver(line, pair, direction, &buffer[..len]) {
                    return;
                }
            }
            Err(error) if is_nothing_yet(&error) => {
                if pair.is_over() {
                    return;
                }
            }
            // What befell one end befalls the other.
            Err(_) => {
                pair.end(End::Reset);
                return line.wake();
            }
        }
    }
}

/// Sends what was read; false when the connection is over.
fn deliver(line: &Line, pair: &Pair, direction: Direction, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match line.step(direction, pair, bytes.len()) {
            Step::Drop => return true,
            Step::Stop => return false,
            Step::Send(piece, end, wait) => {
                if !write_all(pair, direction, &bytes[..piece]) {
                    line.wake();
                    return false;
                }
                bytes = &bytes[piece..];
                if let Some(end) = end {
                    pair.end(end);
                    line.wake();
                    return false;
                }
                if !wait.is_zero() {
                    line.sleep(pair, wait);
                }
            }
        }
    }
    true
}

fn write_all(pair: &Pair, direction: Direction, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        if pair.is_over() {
            return false;
        }
        match pair.sink(direction).write(bytes) {
            Ok(0) => return false,
            Ok(written) => bytes = &bytes[written..],
            Err(error) if is_nothing_yet(&error) => {}
            Err(_) => {
                pair.end(End::Reset);
                return false;
            }
        }
    }
    true
}

/// Whether a socket only had nothing to do within its time.
fn is_nothing_yet(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}
