//! Calls that need nothing but a processor: the machines alone, and the in-process broker.
//!
//! Criterion times them, and the program of this package makes a given number of them, so that
//! the instructions of one can be counted.

pub mod machines;
pub mod memory;
