//! What a scenario is, and the list of all of them.

use std::fmt;
use std::time::Duration;

use anyhow::Result;

use crate::ground::Ground;
use crate::report::Report;
use crate::scenarios;
use crate::setting::{Numbers, Setting, Transport};

/// What a scenario needs under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "whoever runs one must provide for it"
)]
pub enum Needs {
    /// Nothing: it has all it needs in the process, or starts it itself.
    Nothing,
    /// A broker that may be used.
    Broker,
    /// A private node that may be broken.
    Node,
    /// RabbitMQ on this machine: it starts nodes of its own.
    Installation,
}

/// One scenario.
#[derive(Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "written out in the list of all")]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What goes wrong and what must hold, in a line.
    pub about: &'static str,
    /// What it needs.
    pub needs: Needs,
    /// Where it makes sense.
    pub transports: &'static [Transport],
    /// The numbers of the gate.
    pub full: Numbers,
    /// The numbers for the test suite.
    pub short: Numbers,
    /// The longest it may take at full length, of which a short form takes a part.
    pub limit: Duration,
    /// Runs it.
    pub run: fn(&Setting, &mut Ground) -> Result<Report>,
}

impl Scenario {
    /// The scenario of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        scenarios::ALL.iter().find(|scenario| scenario.name == name)
    }

    /// All there are.
    #[must_use]
    pub const fn all() -> &'static [Self] {
        scenarios::ALL
    }

    /// Runs it, and measures how long that takes.
    ///
    /// # Errors
    ///
    /// When the rig fails, which is no verdict.
    pub fn run(&self, setting: &Setting, ground: &mut Ground) -> Result<Report> {
        let begun = std::time::Instant::now();
        let mut report = (self.run)(setting, ground)?;
        let elapsed = begun.elapsed();
        report.elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        Ok(report)
    }
}

impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scenario")
            .field("name", &self.name)
            .field("needs", &self.needs)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `cargo xtask torture` reads the names there, to know them before it builds anything.
    #[test]
    fn names_are_those_of_the_list_that_is_read_without_building() {
        let listed: Vec<&str> = include_str!("scenarios/names.txt").lines().collect();
        let names: Vec<&str> = Scenario::all().iter().map(|one| one.name).collect();
        assert_eq!(listed, names);
    }

    #[test]
    fn names_are_unique_and_each_scenario_says_what_it_is_about() {
        for scenario in Scenario::all() {
            let same = Scenario::all()
                .iter()
                .filter(|other| other.name == scenario.name);
            assert_eq!(same.count(), 1, "{}", scenario.name);
            assert!(!scenario.about.is_empty() && !scenario.transports.is_empty());
            assert!(scenario.short.calls <= scenario.full.calls);
        }
        assert!(Scenario::find("no-such-scenario").is_none());
    }
}
