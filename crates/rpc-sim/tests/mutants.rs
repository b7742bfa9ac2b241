//! Every planted bug is found, and every rule finds one: a simulator that finds none is blind, whatever
//! it says of the machines.

use std::collections::BTreeSet;

use rpc_proto::mutants::{Mutant, plant};
use rpc_sim::Rule;

/// Seeds within which each must be found.
const SEEDS: u64 = 10_000;
/// Worlds that are run under each bug to see which rules it breaks besides the first.
const WORLDS: u64 = 300;

#[test]
fn every_planted_bug_is_found_and_every_rule_finds_one() {
    // Some of them make a machine panic, which is a way to be found.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    let mut broken = BTreeSet::new();
    for &mutant in Mutant::ALL {
        match rpc_sim::hunt(0..SEEDS, || plant(Some(mutant))) {
            Some(outcome) => {
                let (seed, breach) = (outcome.options.seed, &outcome.breaches[0]);
                println!("{mutant:?}: seed {seed}, {breach}");
                broken.extend(outcome.breaches.iter().map(|breach| breach.rule));
            }
            None => missed.push(mutant),
        }
    }
    for &mutant in Mutant::ALL {
        if Rule::ALL.iter().all(|rule| broken.contains(rule)) {
            break;
        }
        plant(Some(mutant));
        for outcome in (0..WORLDS).map(rpc_sim::run) {
            broken.extend(outcome.breaches.iter().map(|breach| breach.rule));
        }
    }
    plant(None);
    drop(std::panic::take_hook());
    assert!(missed.is_empty(), "not found: {missed:?}");
    let idle: Vec<_> = Rule::ALL
        .iter()
        .filter(|rule| !broken.contains(rule))
        .collect();
    assert!(idle.is_empty(), "no bug breaks them: {idle:?}");
}
