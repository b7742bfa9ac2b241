//! Every planted bug is found: a simulator that finds none is blind, whatever it says of the machines.

use rpc_proto::mutants::{Mutant, plant};

/// Seeds within which each must be found.
const SEEDS: u64 = 10_000;

#[test]
fn every_planted_bug_is_found() {
    let mut missed = Vec::new();
    for &mutant in Mutant::ALL {
        match rpc_sim::hunt(0..SEEDS, || plant(Some(mutant))) {
            Some(outcome) => {
                let (seed, breach) = (outcome.options.seed, &outcome.breaches[0]);
                println!("{mutant:?}: seed {seed}, {breach}");
            }
            None => missed.push(mutant),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
