//! The table of open calls of a hand-written loop, and the line of replies that await their confirm.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// Open calls by their correlation id, which is a number in decimal digits.
#[derive(Debug, Default)]
pub(crate) struct OpenCalls {
    since: HashMap<u64, Instant>,
    last: u64,
}

impl OpenCalls {
    /// Opens a call that counts from `since`, and returns its id.
    pub(crate) fn open(&mut self, since: Instant) -> u64 {
        self.last += 1;
        self.since.insert(self.last, since);
        self.last
    }

    /// Closes the call that is answered, and tells since when it was open; `None` when there is none
    /// of this id.
    pub(crate) fn close(&mut self, correlation_id: &[u8]) -> Option<Instant> {
        let id = std::str::from_utf8(correlation_id).ok()?.parse().ok()?;
        self.since.remove(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.since.len()
    }
}

/// Replies that were published and not confirmed yet, in the order of their publishing, which is
/// that of the deliveries they answer.
///
/// With one reply for each delivery of a channel, the confirms and the deliveries have the same
/// numbers: up to where all replies are confirmed, all deliveries can be acknowledged at once.
#[derive(Debug, Default)]
pub(crate) struct Unconfirmed {
    confirmed: VecDeque<bool>,
    /// How many replies are confirmed without a gap.
    done: u64,
}

impl Unconfirmed {
    pub(crate) fn published(&mut self) {
        self.confirmed.push_back(false);
    }

    /// Takes in a confirm of the reply with this number, or of all up to it.
    pub(crate) fn confirm(&mut self, number: u64, multiple: bool) {
        let Some(at) = number.checked_sub(self.done + 1) else {
            return;
        };
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let first = if multiple { 0 } else { at };
        for confirmed in self.confirmed.iter_mut().take(at + 1).skip(first) {
            *confirmed = true;
        }
        while self.confirmed.front() == Some(&true) {
            self.confirmed.pop_front();
            self.done += 1;
        }
    }

    /// The number up to which all are confirmed.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_is_closed_once() {
        let mut calls = OpenCalls::default();
        let now = Instant::now();
        let id = calls.open(now).to_string();
        assert_eq!(calls.close(b"x"), None);
        assert_eq!(calls.close(id.as_bytes()), Some(now));
        assert_eq!(calls.close(id.as_bytes()), None);
        assert_eq!(calls.len(), 0);
    }

    #[test]
    fn confirms_count_up_to_the_first_gap() {
        let mut replies = Unconfirmed::default();
        for _ in 0..5 {
            replies.published();
        }
        replies.confirm(2, false);
        assert_eq!(replies.done(), 0);
        replies.confirm(1, false);
        assert_eq!(replies.done(), 2);
        replies.confirm(4, true);
        assert_eq!(replies.done(), 4);
        replies.confirm(3, false);
        assert_eq!(replies.done(), 4);
        replies.confirm(5, false);
        assert_eq!(replies.done(), 5);
    }
}
