//! Whom to tell that nobody awaits a reply any more.
//!
//! A worker that has been running a request for a while says so, with its own address. A caller
//! that gives up before that cannot know whom to tell; so the identities of such calls are kept for
//! a while, and the worker is told when it speaks up.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use crate::mutants::{Mutant, is};
use crate::{Address, CallId, Expiration, Message, ShortString, wire};

/// How many calls that were given up are remembered, and how many notices wait to be sent.
const MOST: usize = 1024;

/// How long a notice is of use: work that nobody has heard about by then is as good as done.
const OF_USE: Duration = Duration::from_secs(10);

/// Calls that were given up, and the notices that follow from it.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// Those whose worker is not known, the oldest first. What has been told stays in the queue
    /// until its turn to be forgotten comes.
    order: VecDeque<CallId>,
    untold: HashSet<CallId, ById>,
    cancels: VecDeque<(Address, Message)>,
}

impl Notices {
    /// A call was given up; `worker` is the address of who runs it, if that is known.
    pub(super) fn give_up(&mut self, id: CallId, worker: Option<ShortString>) {
        if let Some(worker) = worker {
            self.tell(id, worker);
            return;
        }
        if self.order.len() == MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.untold.remove(&oldest);
        }
        self.order.push_back(id);
        self.untold.insert(id);
    }

    /// A worker runs a call that is not open. Returns whether it was given up here.
    pub(super) fn handle_started(&mut self, id: CallId, worker: ShortString) -> bool {
        let known = self.untold.remove(&id);
        if known && !is(Mutant::NoticeComesTooLate) {
            self.tell(id, worker);
        }
        known
    }

    /// No worker can speak up any more: its address for that is gone.
    pub(super) fn forget(&mut self) {
        self.order.clear();
        self.untold.clear();
    }

    pub(super) fn poll(&mut self) -> Option<(Address, Message)> {
        self.cancels.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.cancels.is_empty()
    }

    fn tell(&mut self, id: CallId, worker: ShortString) {
        // Nobody takes them: there is no connection. What ran there will have ended before there is.
        if self.cancels.len() == MOST {
            self.cancels.pop_front();
        }
        let message = Message {
            correlation_id: Some(id.to_correlation_id()),
            expiration: Some(Expiration::after(OF_USE)),
            kind: Some(wire::CANCEL_TYPE),
            ..Message::default()
        };
        self.cancels.push_back((Address::queue(worker), message));
    }
}

/// Hashes an identity by itself: it is made of random bits. Only ours get into a table; what a peer
/// makes up is looked up and not found.
pub(super) type ById = BuildHasherDefault<Bits>;

/// See [`ById`].
#[derive(Debug, Default)]
pub(super) struct Bits(u64);

impl Hasher for Bits {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "half of the bits is meant")]
    fn write_u128(&mut self, bits: u128) {
        self.0 = (bits ^ (bits >> 64)) as u64;
    }
}
