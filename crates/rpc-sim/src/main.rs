//! `rpc-sim seeds FROM TO`, `rpc-sim trace SEED`, `rpc-sim shrink SEED`, `rpc-sim mutants`.

use std::process::ExitCode;
use std::time::Instant;

use rpc_sim::Options;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let number = |place: usize| {
        arguments
            .get(place)
            .and_then(|text| text.parse::<u64>().ok())
    };
    match (arguments.first().map(String::as_str), number(1), number(2)) {
        (Some("seeds"), Some(from), Some(to)) => seeds(from, to),
        (Some("trace"), Some(seed), None) => trace(seed),
        (Some("shrink"), Some(seed), None) => {
            println!("{}", rpc_sim::shrink(rpc_sim::run(seed)));
            ExitCode::SUCCESS
        }
        #[cfg(feature = "mutants")]
        (Some("mutants"), None, None) => mutants(),
        _ => {
            eprintln!("usage: rpc-sim seeds FROM TO | trace SEED | shrink SEED | mutants");
            ExitCode::from(2)
        }
    }
}

fn seeds(from: u64, to: u64) -> ExitCode {
    let began = Instant::now();
    let report = rpc_sim::run_seeds(from..to, |_| true);
    let rate = report.seeds as f64 / began.elapsed().as_secs_f64();
    println!(
        "{} seeds, {rate:.0} a second: {:?}",
        report.seeds, report.counts
    );
    for outcome in &report.broken {
        println!("{outcome}");
    }
    ExitCode::from(u8::from(!report.broken.is_empty()))
}

fn trace(seed: u64) -> ExitCode {
    let mut options = Options::new(seed);
    options.keep_trace = true;
    let outcome = rpc_sim::run_with(options);
    for line in &outcome.trace {
        println!("{line}");
    }
    println!("{outcome}");
    ExitCode::SUCCESS
}

/// Plants each bug in turn, and tells which seed found it.
#[cfg(feature = "mutants")]
fn mutants() -> ExitCode {
    // Some of them make a machine panic, which is a way to be found.
    std::panic::set_hook(Box::new(|_| {}));
    let all = rpc_sim::hunt_planted(0..10_000, |planted| match &planted.found {
        Some(outcome) => println!(
            "{:<28} seed {:>5}  {}",
            planted.name, outcome.options.seed, outcome.breaches[0]
        ),
        None => println!("{:<28} was not found", planted.name),
    });
    let found = all.iter().filter(|planted| planted.found.is_some()).count();
    println!("{found} of {} found", all.len());
    ExitCode::from(u8::from(found < all.len()))
}
