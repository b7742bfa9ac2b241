//! Empty: the tests are in `it`, one binary for all that need more than one crate.
