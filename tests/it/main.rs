//! Tests across crates: the rows of the suite, interop with plain scripts, faults.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails its test")]

mod broker;
mod conformance;
mod faults;
mod given_up;
mod interop;
mod permissions;
mod queues;
mod rows;
mod strangers;
mod torture;
