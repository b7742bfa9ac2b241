//! Acknowledgements of one channel, joined: a run without a gap travels as a single frame.

use std::collections::BTreeMap;

/// Which deliveries of a channel are settled, by their numbers, which count from 1 without a gap.
///
/// A `multiple` acknowledgement takes everything up to its number, so it is only right when all of
/// that is settled already or is part of the same run.
#[derive(Debug, Default)]
pub struct Settled {
    /// All up to here are.
    floor: u64,
    /// The runs above that are, by their first numbers, with their last. An open delivery lies
    /// between any two, so there are no more of them than the prefetch allows to be open.
    above: BTreeMap<u64, u64>,
}

/// How far the acknowledgements at hand reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "both are to be handled")]
pub enum Reach {
    /// The first so many, in order of their numbers, are covered by a `multiple` one for the last.
    Run(usize),
    /// None of them: each goes alone.
    Apart,
}

impl Settled {
    /// Takes note of one that is settled in a way of its own.
    pub fn note(&mut self, tag: u64) {
        if tag <= self.floor {
            return;
        }
        let before = self.above.range(..=tag).next_back();
        let first = match before.map(|(&first, &last)| (first, last)) {
            Some((_, last)) if last >= tag => return,
            Some((first, last)) if last + 1 == tag => first,
            _ => tag,
        };
        let last = self.above.remove(&(tag + 1)).unwrap_or(tag);
        if first == self.floor + 1 {
            self.floor = last;
        } else {
            self.above.insert(first, last);
        }
    }

    /// Takes note of `tags`, which are to be acknowledged and come sorted, and says how.
    pub fn acknowledge(&mut self, tags: impl Iterator<Item = u64>) -> Reach {
        let mut run = 0;
        for (place, tag) in tags.enumerate() {
            self.note(tag);
            if self.floor >= tag {
                run = place + 1;
            }
        }
        match run {
            0 => Reach::Apart,
            run => Reach::Run(run),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_reaches_to_the_first_gap() {
        let mut settled = Settled::default();
        assert_eq!(settled.acknowledge([1, 2, 3, 5].into_iter()), Reach::Run(3));
        assert_eq!(settled.acknowledge([6].into_iter()), Reach::Apart);
        assert_eq!(settled.acknowledge([4].into_iter()), Reach::Run(1));
        assert_eq!(settled.acknowledge([7].into_iter()), Reach::Run(1));
    }

    #[test]
    fn one_slow_delivery_does_not_make_the_others_pile_up() {
        let mut settled = Settled::default();
        for tag in 2..=10_000 {
            settled.note(tag);
        }
        assert_eq!(settled.above.len(), 1);
        // In any order, and one that is told twice changes nothing.
        for tag in [10_003, 10_001, 10_002, 10_002, 10_003] {
            settled.note(tag);
        }
        assert_eq!(settled.above.len(), 1);
        assert_eq!(settled.acknowledge([1].into_iter()), Reach::Run(1));
        assert_eq!(settled.floor, 10_003);
        assert!(settled.above.is_empty());
    }

    #[test]
    fn what_was_rejected_counts_as_settled_and_what_is_open_ends_the_run() {
        let mut settled = Settled::default();
        settled.note(1);
        assert_eq!(settled.acknowledge([2, 4].into_iter()), Reach::Run(1));
        settled.note(3);
        assert_eq!(settled.acknowledge([5].into_iter()), Reach::Run(1));
    }
}
