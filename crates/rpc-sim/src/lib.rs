//! A deterministic simulator: clients, workers and a broker in one thread, on virtual time, driving
//! the machines of rpc-proto through everything that goes wrong.
//!
//! Each seed draws a world, a set of calls and a mix of faults. While it runs, a ledger is kept by
//! the world and not by the machines, and every promise is checked against it; then the faults
//! stop, and the world must come right by itself. One seed gives one trace, byte for byte.
//!
//! ```
//! let outcome = rpc_sim::run(7);
//! assert!(outcome.breaches.is_empty(), "{outcome}");
//! assert_eq!(outcome.trace_hash, rpc_sim::run(7).trace_hash);
//! ```

mod broker;
mod chaos;
mod check;
mod client;
mod conn;
mod event;
mod home;
mod ledger;
mod mix;
mod outcome;
mod peer;
mod pipe;
#[cfg(feature = "mutants")]
mod planted;
mod rng;
mod rule;
mod run;
mod setting;
mod time;
mod trace;
mod wire;
mod worker;
mod world;

pub use ledger::Counts;
pub use mix::{Fault, Faults};
pub use outcome::{Outcome, Report};
#[cfg(feature = "mutants")]
pub use planted::{Planted, hunt_planted};
pub use rule::{Breach, Rule};
pub use run::{Options, hunt, run, run_seeds, run_twice, run_with, shrink};
pub use trace::Line;
