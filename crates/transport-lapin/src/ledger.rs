//! Which publish a returned message belongs to.

use rpc_core::{ErrorKind, ShortString, TransportError, Verdict};

use crate::error;

/// What identifies a publish in what the broker returns of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    pub(crate) correlation_id: Option<ShortString>,
    pub(crate) message_id: Option<ShortString>,
}

/// A publish whose verdict is open.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) mark: Mark,
    pub(crate) verdict: Verdict,
}

/// What the broker said about a publish, apart from returning it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Ack,
    Nack,
}

/// Decides confirmed publishes, with lapin's mistakes about returned messages made good.
///
/// lapin keeps returned messages in a queue, and gives each confirmation that completes the front
/// of it, *whoever the message belongs to*; when the broker confirms several publishes at once they
/// complete in random order. So a message may come with the confirmation of another publish, earlier
/// or later than that of its own. What holds all the same:
///
/// 1. The broker returns a message before it confirms it. So, when a confirmation completes with
///    nothing attached, the queue was empty: if its own publish was returned, that message came
///    with a confirmation that had completed before.
/// 2. The queue never holds more messages than there are returned publishes that are not yet
///    confirmed, since each completion takes one while there is any. So, when every message seen so
///    far belongs to a publish seen as confirmed, none that belongs to a confirmed one is left in
///    the queue: it would be one too many.
///
/// Both need that all completions up to some moment have been seen, and none is passed over: that
/// is what [`InFlight::drain`](crate::in_flight::InFlight::drain) is for.
///
/// Publishes with the same mark, such as replies to a peer that sends no correlation ids, are told
/// apart by their number only: as many get "no route" as were returned.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Returned messages whose own publish is not among the confirmed ones, so far.
    strays: Vec<Mark>,
    /// Confirmed with nothing attached.
    clean: Vec<(Open, Answer)>,
    /// Confirmed with the message of another one attached.
    doubtful: Vec<(Open, Answer)>,
}

impl Ledger {
    /// Notes that a publish was confirmed, and the returned message that came with it.
    pub(crate) fn note(&mut self, open: Open, answer: Answer, returned: Option<Mark>) {
        match returned {
            None => self.clean.push((open, answer)),
            Some(mark) if mark == open.mark => open.verdict.settle(Err(no_route())),
            Some(mark) => {
                self.strays.push(mark);
                self.doubtful.push((open, answer));
            }
        }
    }

    /// Decides what can be decided, after a drain that left `outstanding` publishes unconfirmed.
    pub(crate) fn settle(&mut self, outstanding: usize) {
        if !self.strays.is_empty() {
            self.match_strays();
        }
        self.clean.drain(..).for_each(decide);
        if outstanding == 0 && !self.strays.is_empty() {
            // A broker that alters what it returns.
            tracing::warn!(
                messages = self.strays.len(),
                "returned messages that no publish is missing"
            );
            self.strays.clear();
        }
        if self.strays.is_empty() {
            self.doubtful.drain(..).for_each(decide);
        }
    }

    /// Ends all of them with `error`.
    pub(crate) fn fail(&mut self, error: &TransportError) {
        self.strays.clear();
        for (open, _) in self.clean.drain(..).chain(self.doubtful.drain(..)) {
            open.verdict.settle(Err(error.clone()));
        }
    }

    fn match_strays(&mut self) {
        let Self {
            strays,
            clean,
            doubtful,
        } = self;
        strays.retain(|stray| {
            let own = [&mut *doubtful, &mut *clean].into_iter().find_map(|list| {
                let place = list.iter().position(|(open, _)| open.mark == *stray)?;
                Some(list.swap_remove(place))
            });
            match own {
                Some((open, _)) => {
                    open.verdict.settle(Err(no_route()));
                    false
                }
                None => true,
            }
        });
    }
}

fn decide((open, answer): (Open, Answer)) {
    open.verdict.settle(match answer {
        Answer::Ack => Ok(()),
        Answer::Nack => Err(error::new(ErrorKind::Refused, "publish")),
    });
}

fn no_route() -> TransportError {
    error::new(ErrorKind::NoRoute, "publish")
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures_util::FutureExt;
    use rpc_core::Confirm;

    use super::*;

    fn mark(number: usize) -> Mark {
        Mark {
            exchange: ShortString::default(),
            routing_key: ShortString::from_static("q"),
            correlation_id: ShortString::new(number.to_string()).ok(),
            message_id: None,
        }
    }

    fn open(number: usize) -> (Open, Confirm) {
        let (verdict, confirm) = Confirm::open();
        let mark = mark(number);
        (Open { mark, verdict }, confirm)
    }

    fn kind(confirm: Confirm) -> Option<Result<(), ErrorKind>> {
        confirm
            .now_or_never()
            .map(|verdict| verdict.map_err(|error| error.kind()))
    }

    /// lapin's queue of returned messages, a broker that confirms in any order and groups, and a
    /// collector that looks at any moment.
    #[test]
    fn a_returned_publish_is_never_settled_as_arrived() {
        let mut seed = 1_u64;
        let mut random = move |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed % below as u64).unwrap()
        };
        for _ in 0..2_000 {
            let count = 1 + random(12);
            let returned: Vec<bool> = (0..count).map(|_| random(2) == 0).collect();
            let (mut opens, confirms): (Vec<_>, Vec<_>) = (0..count)
                .map(|number| {
                    let (open, confirm) = open(number);
                    (Some(open), confirm)
                })
                .unzip();
            let mut ledger = Ledger::default();
            let mut queue = VecDeque::new();
            let mut unreturned: Vec<_> = (0..count).filter(|number| returned[*number]).collect();
            let mut unconfirmed: Vec<_> = (0..count).collect();
            while !unconfirmed.is_empty() {
                if random(2) == 0 && !unreturned.is_empty() {
                    queue.push_back(mark(unreturned.remove(random(unreturned.len()))));
                    continue;
                }
                let place = random(unconfirmed.len());
                if unreturned.contains(&unconfirmed[place]) {
                    continue;
                }
                let number = unconfirmed.swap_remove(place);
                let open = opens[number].take().unwrap();
                ledger.note(open, Answer::Ack, queue.pop_front());
                if random(3) == 0 {
                    ledger.settle(unconfirmed.len());
                }
            }
            ledger.settle(0);
            for (number, confirm) in confirms.into_iter().enumerate() {
                let expected = if returned[number] {
                    Err(ErrorKind::NoRoute)
                } else {
                    Ok(())
                };
                assert_eq!(kind(confirm), Some(expected), "{number} of {returned:?}");
            }
        }
    }

    #[test]
    fn a_doubtful_one_does_not_wait_for_publishes_that_are_not_returned() {
        let mut ledger = Ledger::default();
        let (first, first_confirm) = open(1);
        let (second, second_confirm) = open(2);
        ledger.note(first, Answer::Ack, Some(mark(2)));
        ledger.note(second, Answer::Ack, None);
        ledger.settle(1);
        assert_eq!(kind(first_confirm), Some(Ok(())));
        assert_eq!(kind(second_confirm), Some(Err(ErrorKind::NoRoute)));
    }

    #[test]
    fn a_message_that_nobody_misses_holds_nothing_up() {
        let mut ledger = Ledger::default();
        let (only, confirm) = open(1);
        ledger.note(only, Answer::Nack, Some(mark(9)));
        ledger.settle(0);
        assert_eq!(kind(confirm), Some(Err(ErrorKind::Refused)));
    }
}
