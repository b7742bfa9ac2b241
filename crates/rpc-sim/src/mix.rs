//! Which faults a seed has, and how often: each seed draws its own mix.
//!
//! Seeds that had every fault at once would never see what happens when only two of them meet, and
//! most of their calls would not get far enough to break anything interesting.

use std::fmt;

use crate::rng::Rng;

/// Declares the kinds of fault with their names.
macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Something that goes wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Fault {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Fault {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

faults! {
    /// The broker is short of memory and reads from publishers no more, for a while.
    Alarm = "alarm",
    /// The broker is killed, and comes back.
    BrokerCrash = "broker-crash",
    /// More calls at once than the workers can do.
    Burst = "burst",
    /// A client is closed by its owner, and another one takes its place.
    ClientClose = "client-close",
    /// A client process is killed, and its callers with it.
    ClientCrash = "client-crash",
    /// A client process is stopped for a while.
    ClientPause = "client-pause",
    /// The broker ends a consumer, or deletes an inbox.
    ConsumerCancelled = "consumer-cancelled",
    /// A connection breaks, at times just after a reply has gone out; what was on its way is lost from
    /// some point on, in each direction.
    Cut = "cut",
    /// A worker is asked to drain, and a new one takes its place.
    Drain = "drain",
    /// A reply reaches its queue twice.
    DuplicateReply = "duplicate-reply",
    /// A reply is from a peer that has its own idea of statuses.
    ForeignReply = "foreign-reply",
    /// A caller stops waiting.
    GiveUp = "give-up",
    /// A handler answers with an error.
    HandlerError = "handler-error",
    /// Messages take long, and some very long.
    Latency = "latency",
    /// The calling chain is long already.
    ManyHops = "many-hops",
    /// The broker says of a message that it does not answer for it, and has it all the same.
    Nack = "nack",
    /// A handler panics.
    Panic = "panic",
    /// Packets vanish between two machines, and neither notices for a while.
    Partition = "partition",
    /// A request kills the process that runs it.
    Poison = "poison",
    /// The queue takes no more than a few messages.
    QueueFull = "queue-full",
    /// The clocks on the walls differ.
    Skew = "skew",
    /// Handlers that are slow, or never come back.
    SlowHandler = "slow-handler",
    /// Messages that belong to no call reach the inboxes, and messages that are no requests the queue.
    StrayMessage = "stray-message",
    /// No worker is there in the beginning, and no queue.
    WorkersLate = "workers-late",
    /// A worker process is killed.
    WorkerCrash = "worker-crash",
    /// A worker process is stopped for a while.
    WorkerPause = "worker-pause",
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults(u32);

impl Faults {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// With this one.
    #[must_use]
    pub const fn with(self, fault: Fault) -> Self {
        Self(self.0 | 1 << fault as u32)
    }

    /// Whether this one is among them.
    #[must_use]
    pub const fn has(self, fault: Fault) -> bool {
        self.0 & 1 << fault as u32 != 0
    }

    /// Those of them, one by one.
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL
            .iter()
            .copied()
            .filter(move |&fault| self.has(fault))
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return f.write_str("no faults");
        }
        for (place, fault) in self.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{fault}")?;
        }
        Ok(())
    }
}

/// The faults of one seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    faults: Faults,
    /// How often each comes: 1 is rare, 4 all the time.
    level: [u8; Fault::ALL.len()],
}

impl Mix {
    /// The mix of this seed, but for what is left out.
    pub(crate) fn draw(seed: u64, without: Faults) -> Self {
        let mut rng = Rng::new(seed, 1);
        // From none at all over two or three to nearly all.
        let density = rng.pick(&[0, 80, 150, 150, 250, 250, 400, 700]);
        let mut mix = Self {
            faults: Faults::NONE,
            level: [0; Fault::ALL.len()],
        };
        for &fault in Fault::ALL {
            let (chosen, level) = (rng.chance(density), rng.between(1, 4));
            if chosen && !without.has(fault) {
                mix.faults = mix.faults.with(fault);
                mix.level[fault as usize] = u8::try_from(level).unwrap_or(1);
            }
        }
        mix
    }

    pub(crate) const fn has(&self, fault: Fault) -> bool {
        self.faults.has(fault)
    }

    pub(crate) const fn faults(&self) -> Faults {
        self.faults
    }

    /// 0 when the seed does not have it.
    pub(crate) fn level(&self, fault: Fault) -> u64 {
        u64::from(self.level[fault as usize])
    }

    /// Whether it happens at an occasion, `per_mille` for each step of its level.
    pub(crate) fn strikes(&self, rng: &mut Rng, fault: Fault, per_mille: u64) -> bool {
        // Drawn in any case: a fault that is left out must not shift the draws after it.
        rng.chance(self.level(fault) * per_mille)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_is_left_out_leaves_the_others_as_they_are() {
        for seed in 0..200 {
            let all = Mix::draw(seed, Faults::NONE);
            let without = Mix::draw(seed, Faults::NONE.with(Fault::Cut));
            assert!(!without.has(Fault::Cut));
            for &fault in Fault::ALL {
                if fault != Fault::Cut {
                    assert_eq!(all.level(fault), without.level(fault));
                }
            }
        }
    }

    #[test]
    fn some_seeds_are_quiet_and_some_have_nearly_everything() {
        let counts = (0..500).map(|seed| Mix::draw(seed, Faults::NONE).faults().iter().count());
        let counts: Vec<_> = counts.collect();
        assert!(counts.contains(&0));
        assert!(counts.iter().any(|&count| count > Fault::ALL.len() * 3 / 5));
    }
}
