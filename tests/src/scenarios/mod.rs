//! The scenarios, one in each file.

mod drain;
mod stage;
mod worker_kill;

use crate::scenario::Scenario;

/// All there are, in the order of the list.
pub(crate) const ALL: &[Scenario] = &[worker_kill::SCENARIO, drain::SCENARIO];
