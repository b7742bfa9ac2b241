//! Thousands of worlds in which everything goes wrong, and no promise is broken.

use rpc_sim::Options;

#[test]
fn no_promise_is_broken_in_two_thousand_worlds() {
    let report = rpc_sim::run_seeds(0..2_000, |_| true);
    for outcome in &report.broken {
        println!("{}", rpc_sim::shrink(outcome.clone()));
    }
    assert!(report.broken.is_empty(), "{} broken", report.broken.len());
    // A world in which nothing works keeps every promise.
    let counts = report.counts;
    assert!(counts.ok > counts.calls / 3, "{counts:?}");
    assert!(counts.redeliveries > 1_000, "{counts:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..50 {
        let outcome = rpc_sim::run_twice(seed);
        assert!(outcome.breaches.is_empty(), "{outcome}");
        let mut options = Options::new(seed);
        options.keep_trace = true;
        let (one, two) = (rpc_sim::run_with(options), rpc_sim::run_with(options));
        assert_eq!(one.trace, two.trace, "seed {seed}");
        assert_eq!(one.trace_hash, outcome.trace_hash);
    }
}
