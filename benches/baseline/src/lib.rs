//! Hand-written RPC loops on the bare client libraries, and ours beside them.
//!
//! One program makes the calls of one cell of a comparison and prints one line of JSON on them. It
//! is the caller; the workers are further processes, of the same program, so that the processor
//! time of each can be told apart.

mod arrivals;
mod cell;
mod floor;
mod hand_amiquip;
mod hand_amqprs;
mod hand_lapin;
mod hand_lapin_tasks;
mod in_process;
mod measure;
mod meter;
mod open;
mod ours;
mod ours_blocking;
mod program;
mod roles;
mod usage;
mod worker;

pub use self::program::main;
