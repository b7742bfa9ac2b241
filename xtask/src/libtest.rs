//! Reads the output of `cargo test` into rows of a table.
//!
//! The format is written for people, but it has been stable for years; whatever is not recognised
//! is passed over, and a target without a result counts as a failure.

use std::collections::BTreeMap;
use std::time::Duration;

/// What one test target did.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
    pub(crate) filtered: u64,
    pub(crate) elapsed: Duration,
    /// Results announced and results seen; they differ when a test binary died.
    announced: u32,
    results: u32,
}

impl Row {
    /// A row for something that is not a test binary and either works or does not.
    pub(crate) fn single(name: String, works: bool, elapsed: Duration) -> Self {
        let (passed, failed) = if works { (1, 0) } else { (0, 1) };
        Self {
            name,
            passed,
            failed,
            elapsed,
            announced: 1,
            results: 1,
            ..Self::default()
        }
    }

    /// Tells whether there was nothing to run.
    pub(crate) fn is_empty(&self) -> bool {
        self.passed + self.failed + self.ignored == 0
    }

    /// Tells whether the target ended before it could report.
    pub(crate) fn died(&self) -> bool {
        self.results == 0 || self.results < self.announced
    }
}

/// Collects rows from lines.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    /// File names of test binaries, with what to call them.
    names: BTreeMap<String, String>,
    rows: Vec<Row>,
    /// Tests that did not pass, and why, for the recapitulation at the end.
    pub(crate) notable: Vec<String>,
}

impl Collector {
    /// Begins with nothing seen, knowing names for some binaries.
    pub(crate) fn new(names: BTreeMap<String, String>) -> Self {
        Self {
            names,
            ..Self::default()
        }
    }

    /// Takes the next line.
    pub(crate) fn feed(&mut self, line: &str) {
        let line = without_colour(line);
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("Running ") {
            if let Some((what, binary)) = rest.split_once(" (") {
                let file = binary
                    .trim_end_matches(')')
                    .rsplit('/')
                    .next()
                    .unwrap_or_default();
                let stem = file.rsplit_once('-').map_or(file, |(stem, _)| stem);
                let owner = self.names.get(file).map_or(stem, String::as_str);
                self.begin(format!("{owner} {}", what.trim_start_matches("unittests ")));
            }
        } else if let Some(name) = line.strip_prefix("Doc-tests ") {
            self.begin(format!("{name} documentation"));
        } else if let Some(rest) = line.strip_prefix("test result: ") {
            self.result(rest);
        } else if line.starts_with("running ") && line.ends_with(['t', 's']) {
            let count = line
                .split(' ')
                .nth(1)
                .and_then(|count| count.parse::<u64>().ok());
            if let (Some(_), Some(row)) = (count, self.rows.last_mut()) {
                row.announced += 1;
            }
        } else if let Some(rest) = line.strip_prefix("test ")
            && let Some((test, outcome)) = rest.rsplit_once(" ... ")
            && (outcome.starts_with("FAILED") || outcome.starts_with("ignored"))
        {
            let target = self.rows.last().map_or("?", |row| row.name.as_str());
            self.notable.push(format!("{outcome}: {target}: {test}"));
        }
    }

    /// The rows so far; of targets that died, one test counts as failed.
    pub(crate) fn finish(mut self) -> (Vec<Row>, Vec<String>) {
        for row in &mut self.rows {
            if row.died() {
                row.failed += 1;
                self.notable.push(format!("no result: {}", row.name));
            }
        }
        (self.rows, self.notable)
    }

    fn begin(&mut self, name: String) {
        self.rows.push(Row {
            name,
            ..Row::default()
        });
    }

    /// Adds `ok. 3 passed; 0 failed; …; finished in 0.01s`; documentation may bring several.
    fn result(&mut self, rest: &str) {
        let Some(row) = self.rows.last_mut() else {
            return;
        };
        row.results += 1;
        let counts = rest.split_once(". ").map_or(rest, |(_, counts)| counts);
        for part in counts.split("; ") {
            if let Some(time) = part.strip_prefix("finished in ") {
                let time = time.trim_end_matches('s').parse().unwrap_or_default();
                row.elapsed += Duration::try_from_secs_f64(time).unwrap_or_default();
            } else if let Some((count, what)) = part.split_once(' ') {
                let count: u64 = count.parse().unwrap_or_default();
                match what {
                    "passed" => row.passed += count,
                    "failed" => row.failed += count,
                    "ignored" => row.ignored += count,
                    "filtered out" => row.filtered += count,
                    _ => {}
                }
            }
        }
    }
}

/// Removes terminal colour sequences.
fn without_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        let end = after
            .find(|c: char| c.is_ascii_alphabetic())
            .map_or(after.len(), |at| at + 1);
        rest = &after[end..];
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(text: &str) -> (Vec<Row>, Vec<String>) {
        let names = [("node-1a2b".to_owned(), "rabbitmq-node".to_owned())].into();
        let mut collector = Collector::new(names);
        text.lines().for_each(|line| collector.feed(line));
        collector.finish()
    }

    #[test]
    fn rows_have_the_counts_of_their_target() {
        let (rows, notable) = collect(
            "   Compiling x v0.1.0\n\
             \u{1b}[1m\u{1b}[32m     Running\u{1b}[0m unittests src/lib.rs (target/debug/deps/x-0f)\n\
             \n\
             running 3 tests\n\
             test a ... ok\n\
             test b ... FAILED\n\
             test c ... ignored, needs x\n\
             \n\
             test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; \
             finished in 0.25s\n\
             \x20    Running tests/node.rs (target/debug/deps/node-1a2b)\n\
             running 1 test\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; \
             finished in 1.50s\n",
        );
        assert_eq!(rows[0].name, "x src/lib.rs");
        assert_eq!((rows[0].passed, rows[0].failed, rows[0].ignored), (1, 1, 1));
        assert_eq!(rows[1].name, "rabbitmq-node tests/node.rs");
        assert_eq!((rows[1].passed, rows[1].filtered), (1, 7));
        assert_eq!(rows[1].elapsed, Duration::from_millis(1500));
        assert_eq!(
            notable,
            [
                "FAILED: x src/lib.rs: b",
                "ignored, needs x: x src/lib.rs: c"
            ]
        );
    }

    #[test]
    fn documentation_may_bring_several_results() {
        let (rows, _) = collect(
            "   Doc-tests rpc_core\n\
             running 2 tests\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s\n\
             running 1 test\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.20s\n\
             all doctests ran in 0.43s; merged doctests compilation took 0.30s\n",
        );
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].name, "rpc_core documentation");
        assert_eq!(
            (rows[0].passed, rows[0].elapsed),
            (3, Duration::from_millis(300))
        );
    }

    #[test]
    fn binary_that_died_counts_as_a_failure() {
        let (rows, notable) = collect(
            "     Running tests/it/main.rs (target/debug/deps/it-99)\n\
             running 5 tests\n\
             test a ... ok\n\
             error: test failed, to rerun pass `-p x --test it`\n",
        );
        assert!(rows[0].died());
        assert_eq!(rows[0].failed, 1);
        assert_eq!(notable, ["no result: it tests/it/main.rs"]);
    }

    #[test]
    fn output_without_tests_has_no_rows() {
        let (rows, notable) = collect("error: could not compile `x` (lib)\ntest result: ok.\n");
        assert!(rows.is_empty() && notable.is_empty());
    }
}
