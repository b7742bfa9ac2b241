//! What a run came to: one line of JSON for programs, a table for people.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use serde_json::Value;

use crate::ledger::{Rules, Tally};
use crate::setting::{Face, Setting, Transport};

/// What a run came to.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Which scenario.
    pub scenario: &'static str,
    /// On which client library.
    pub transport: Transport,
    /// The ledger.
    #[serde(flatten)]
    pub tally: Tally,
    /// On which face.
    pub face: Face,
    /// Calls open at once.
    pub in_flight: usize,
    /// Where the faults came from.
    pub seed: u64,
    /// How long it took.
    pub elapsed_ms: u64,
    /// What the scenario measured besides.
    #[serde(flatten)]
    pub figures: BTreeMap<&'static str, Value>,
    /// Whether every rule holds.
    pub passed: bool,
    /// The rules that do not.
    pub broken: Vec<String>,
}

impl Report {
    /// The report of a run, with the rules of the ledger looked at.
    #[must_use]
    pub fn new(scenario: &'static str, setting: &Setting, tally: Tally, rules: &Rules) -> Self {
        let broken = tally.breaches(rules);
        Self {
            scenario,
            transport: setting.transport,
            tally,
            face: setting.face,
            in_flight: setting.numbers.in_flight,
            seed: setting.seed,
            elapsed_ms: 0,
            figures: BTreeMap::new(),
            passed: broken.is_empty(),
            broken,
        }
    }

    /// Adds something measured.
    pub fn figure(&mut self, name: &'static str, value: impl Into<Value>) {
        self.figures.insert(name, value.into());
    }

    /// Adds a time in milliseconds.
    pub fn millis(&mut self, name: &'static str, time: Duration) {
        self.figure(name, u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    }

    /// A rule of the scenario: broken, in these words, unless it holds.
    pub fn require(&mut self, holds: bool, broken: impl FnOnce() -> String) {
        if !holds {
            self.broken.push(broken());
            self.passed = false;
        }
    }

    /// The line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        // Numbers, strings and maps with text for keys: there is nothing that JSON cannot say.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header([
            format!("{} · {} · {}", self.scenario, self.transport, self.face),
            String::new(),
        ]);
        let fields = serde_json::to_value(self).unwrap_or_default();
        let shown = fields.as_object().into_iter().flatten();
        for (name, value) in shown.filter(|(name, _)| !HIDDEN.contains(&name.as_str())) {
            let value = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            table.add_row([name.replace('_', " "), value]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut text = table.to_string();
        for breach in &self.broken {
            text += &format!("\nBROKEN: {breach}");
        }
        let verdict = if self.passed { "passed" } else { "FAILED" };
        text + &format!("\n{verdict} (seed {})", self.seed)
    }
}

/// Said elsewhere in the table.
const HIDDEN: &[&str] = &["scenario", "transport", "face", "passed", "broken", "seed"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setting::Numbers;

    fn report() -> Report {
        let numbers = Numbers {
            calls: 1,
            in_flight: 1,
            faults: 0,
            duration: Duration::ZERO,
        };
        let setting = Setting::new(Transport::Lapin, Face::Async, numbers, "worker".into());
        let rules = Rules::default();
        let mut report = Report::new("x", &setting, Tally::default(), &rules);
        report.millis("first_ok_after_port_open_ms", Duration::from_secs(1));
        report
    }

    #[test]
    fn the_line_begins_with_the_fields_of_the_ledger_in_their_order() {
        let line = report().json();
        let fields = r#"{"scenario":"x","transport":"lapin","calls":0,"ok":0,"typed_errors":0,"hung":0,"wrong":0,"unaccounted":0,"executions":0,"distinct":0,"redeliveries":0,"not_executed_but_ran":0,"max_overrun_ms":0"#;
        assert!(line.starts_with(fields), "{line}");
        assert!(
            line.contains(r#""first_ok_after_port_open_ms":1000"#),
            "{line}"
        );
        assert!(line.contains(r#""passed":true"#) && !line.contains('\n'));
    }

    #[test]
    fn a_broken_rule_fails_the_run_and_is_named() {
        let mut report = report();
        report.require(true, || unreachable!("it holds"));
        report.require(false, || "the sky fell".into());
        assert!(!report.passed && report.table().contains("BROKEN: the sky fell"));
    }
}
