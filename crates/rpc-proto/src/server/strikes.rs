//! Requests whose replies end the connections they go out on, remembered for long enough to stop.
//!
//! A reply address that this server may not publish to costs a connection: the broker closes it, as
//! a rule without a word on which message was to blame. The acknowledgement is lost with it, the
//! request comes again, runs again, and takes the next connection along; where its queue does not
//! count deliveries, for ever. So each such end is a strike, and a request of three is not run any
//! more. Only what was delivered before is ever looked up, so all other traffic pays nothing.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::mutants::{Mutant, is};
use crate::{Message, TransportError};

/// How often the reply to a request may end with its connection, not counting the first time.
///
/// A broker that is killed strikes everybody whose reply is on its way just then, and so does a bad
/// reply its neighbours. One such coincidence is likely enough under faults, the first delivery has
/// one to itself uncounted, and three more in a row, all within the moments between publish and
/// confirm, are not: whoever is struck so often is the cause.
const LIMIT: u8 = 3;

/// How many requests are remembered; of more, those struck longest ago are forgotten, and begin anew.
const CAPACITY: usize = 1024;

/// How much of a body is looked at: the sender has no say in what that costs.
const LOOKED_AT: usize = 4096;

/// Who was struck, and how often, the last one at the end.
#[derive(Debug, Default)]
pub(super) struct Strikes {
    /// With keys of this process alone: nobody outside can find two requests that collide.
    hasher: RandomState,
    struck: Mutex<VecDeque<(Struck, u8)>>,
}

/// A request as it is remembered: a hash of what names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Struck(u64);

impl Strikes {
    /// What a request is remembered by, which all its deliveries have in common: its id and its reply
    /// address. One without either id has nothing but its body to be told apart by. None for one that
    /// awaits no reply.
    pub(super) fn name(&self, message: &Message) -> Option<Struck> {
        let reply_to = message.reply_to.as_ref()?;
        let id = message
            .message_id
            .as_ref()
            .or(message.correlation_id.as_ref());
        let mut state = self.hasher.build_hasher();
        reply_to.hash(&mut state);
        match id {
            Some(id) => id.hash(&mut state),
            None => {
                let len = message.body.len();
                (len, &message.body[..len.min(LOOKED_AT)]).hash(&mut state);
            }
        }
        Some(Struck(state.finish()))
    }

    /// Whether a request has had as many strikes as it may have.
    pub(super) fn is_out(&self, name: Struck) -> bool {
        let struck = self.table();
        let known = struck.iter().find(|(known, _)| *known == name);
        let limit = if is(Mutant::StruckOutTooSoon) {
            1
        } else {
            LIMIT
        };
        known.is_some_and(|(_, strikes)| *strikes >= limit)
    }

    /// Its reply was handed over, and then the connection ended.
    pub(super) fn strike(&self, name: Struck) {
        let mut struck = self.table();
        let before = remove(&mut struck, name);
        if struck.len() >= CAPACITY {
            struck.pop_front();
        }
        struck.push_back((name, before.saturating_add(1)));
    }

    /// Its reply has come to an end without harm.
    pub(super) fn forgive(&self, name: Struck) {
        remove(&mut self.table(), name);
    }

    fn table(&self) -> MutexGuard<'_, VecDeque<(Struck, u8)>> {
        self.struck.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the end of the connection may have been the doing of this very reply: one that was never
/// handed over is innocent.
pub(super) fn is_suspect(error: &TransportError) -> bool {
    use crate::{Certainty, ErrorKind};
    matches!(error.kind(), ErrorKind::Closed | ErrorKind::Connect)
        && error.certainty() != Certainty::NotExecuted
}

fn remove(struck: &mut VecDeque<(Struck, u8)>, name: Struck) -> u8 {
    let place = struck.iter().position(|(known, _)| *known == name);
    place
        .and_then(|place| struck.remove(place))
        .map_or(0, |(_, strikes)| strikes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_are_remembered_and_those_struck_last_stay() {
        let strikes = Strikes::default();
        for _ in 0..LIMIT {
            strikes.strike(Struck(0));
        }
        assert!(strikes.is_out(Struck(0)));
        for other in 1..CAPACITY as u64 {
            strikes.strike(Struck(other));
        }
        assert!(strikes.is_out(Struck(0)));
        // Struck again, it is the last to go.
        strikes.strike(Struck(0));
        for other in 1..CAPACITY as u64 {
            strikes.strike(Struck(CAPACITY as u64 + other));
        }
        assert!(strikes.is_out(Struck(0)));
        assert_eq!(strikes.table().len(), CAPACITY);
        strikes.strike(Struck(u64::MAX));
        assert!(!strikes.is_out(Struck(0)));
        assert_eq!(strikes.table().len(), CAPACITY);
    }
}
