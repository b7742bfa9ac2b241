//! The planted bugs, one after the other, and which seed finds each.

use std::ops::Range;

use rpc_proto::mutants::{Mutant, plant};

use crate::outcome::Outcome;
use crate::run::hunt;

/// A bug that was planted, and what found it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Planted {
    /// The name of the bug.
    pub name: String,
    /// The first seed that broke a promise, if there was one.
    pub found: Option<Outcome>,
}

/// Plants every bug there is in turn, and hunts for it. `told` hears of each when its hunt is over.
///
/// Some make a machine panic; that is a way to be found, and the panic hook hears of it.
pub fn hunt_planted(seeds: Range<u64>, mut told: impl FnMut(&Planted)) -> Vec<Planted> {
    let mut all = Vec::new();
    for &mutant in Mutant::ALL {
        let planted = Planted {
            name: format!("{mutant:?}"),
            found: hunt(seeds.clone(), || plant(Some(mutant))),
        };
        told(&planted);
        all.push(planted);
    }
    all
}
