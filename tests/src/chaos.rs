//! Faults of a network, one after the other, by a plan from a seed.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use fault_proxy::{Direction, End, Proxy};

use crate::dice::Dice;

/// A plan of faults.
#[derive(Debug)]
pub struct Chaos {
    dice: Dice,
    counts: BTreeMap<&'static str, u64>,
}

impl Chaos {
    /// The plan of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            dice: Dice::new(seed),
            counts: BTreeMap::new(),
        }
    }

    /// Does the next fault to one of these, and returns when it is over.
    ///
    /// # Panics
    ///
    /// When there are none.
    pub fn strike(&mut self, proxies: &[&Proxy]) {
        let proxy = *self.dice.pick(proxies);
        let direction = *self.dice.pick(&Direction::BOTH);
        let end = *self.dice.pick(&[End::Cut, End::Reset]);
        let lasts = self.dice.between(SHORTEST, LONGEST);
        let name = match self.dice.below(9) {
            0 => {
                proxy.end_all(End::Reset);
                "reset"
            }
            1 => {
                proxy.end_all(End::Cut);
                "cut"
            }
            2 => {
                proxy.end_after(direction, self.dice.below(2_000), end);
                "cut_at_byte"
            }
            3 => {
                // TCP loses nothing: a black hole ends with the connections that it swallowed from.
                proxy.swallow(direction);
                thread::sleep(lasts);
                proxy.end_all(End::Reset);
                proxy.resume(direction);
                "black_hole"
            }
            4 => {
                proxy.slice(direction, true);
                thread::sleep(lasts);
                proxy.slice(direction, false);
                "slice"
            }
            5 => {
                proxy.slow(direction, Some(50_000));
                thread::sleep(lasts);
                proxy.slow(direction, None);
                "slow"
            }
            6 => {
                proxy.half_close(direction);
                "half_close"
            }
            7 => {
                proxy.pause(direction);
                thread::sleep(lasts);
                proxy.resume(direction);
                "pause"
            }
            _ => {
                proxy.refuse(true);
                proxy.end_all(end);
                thread::sleep(lasts);
                proxy.refuse(false);
                "refuse"
            }
        };
        *self.counts.entry(name).or_default() += 1;
    }

    /// How often each fault was done.
    #[must_use]
    pub fn into_counts(self) -> BTreeMap<&'static str, u64> {
        self.counts
    }
}

/// Long enough to be felt by calls, short enough that a thousand of them end on the same day.
const SHORTEST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_millis(250);
