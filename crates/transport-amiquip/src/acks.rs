//! Acknowledgements of one channel, joined: a run without a gap travels as a single frame.

use std::collections::BTreeSet;

/// Which deliveries of a channel are settled, by their numbers, which count from 1 without a gap.
///
/// A `multiple` acknowledgement takes everything up to its number, so it is only right when all of
/// that is settled already or is part of the same run.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// All up to here are.
    floor: u64,
    /// Those above that are.
    above: BTreeSet<u64>,
}

/// How far the acknowledgements at hand reach.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The first so many, in order of their numbers, are covered by a `multiple` one for the last.
    Run(usize),
    /// None of them: each goes alone.
    Apart,
}

impl Settled {
    /// Takes note of one that is settled in a way of its own.
    pub(crate) fn note(&mut self, tag: u64) {
        if tag > self.floor {
            self.above.insert(tag);
            self.raise();
        }
    }

    /// Takes note of `tags`, which are to be acknowledged and come sorted, and says how.
    pub(crate) fn acknowledge(&mut self, tags: impl Iterator<Item = u64>) -> Reach {
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

    fn raise(&mut self) {
        while self.above.first() == Some(&(self.floor + 1)) {
            self.above.pop_first();
            self.floor += 1;
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
    fn what_was_rejected_counts_as_settled_and_what_is_open_ends_the_run() {
        let mut settled = Settled::default();
        settled.note(1);
        assert_eq!(settled.acknowledge([2, 4].into_iter()), Reach::Run(1));
        settled.note(3);
        assert_eq!(settled.acknowledge([5].into_iter()), Reach::Run(1));
    }
}
