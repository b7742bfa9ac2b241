//! `cargo xtask bench instructions`: what a call without I/O costs in instructions.
//!
//! The program is run twice under callgrind, with few calls and with more: the difference is that
//! of the calls alone, whatever the program does before and after.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::Verdict;
use crate::provision;
use crate::run::{announced, capture, echo, show, watch};
use crate::workspace::{Metadata, cargo, root};

/// Options of `instructions`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Options {
    /// Write the counts to benches/instructions.json instead of comparing with it
    #[arg(long)]
    bless: bool,
}

/// The file of committed counts.
#[derive(Debug, Deserialize, Serialize)]
struct Counts {
    /// With another compiler counts differ for that alone.
    rustc: String,
    /// Instructions of one call.
    instructions: BTreeMap<String, u64>,
}

/// The command `bench instructions`.
pub(super) fn run(options: Options) -> Result<Verdict> {
    let valgrind = provision::valgrind()?;
    let metadata = Metadata::load()?;
    let arguments = ["build", "--release", "--locked", "-p", "rpc-pure"];
    let built = announced("building the program", || {
        show(cargo(&arguments), BUILD_LIMIT)
    })?;
    if !built.success() {
        return Ok(Verdict::Failed);
    }
    let program = metadata.target_directory.join("release").join("rpc-pure");
    let mut counted = BTreeMap::new();
    for what in PROGRAMS {
        let count = announced(what, || {
            let one = per_call(&valgrind, &program, what)?;
            // Threads do not meet the same way every time; what they do alone is the least.
            Ok(one.min(per_call(&valgrind, &program, what)?))
        })?;
        counted.insert(what.to_owned(), count);
    }
    let (_, rustc) = capture(rustc(), Duration::from_secs(20))?;
    let now = Counts {
        rustc: rustc.trim().to_owned(),
        instructions: counted,
    };
    let path = root().join(COMMITTED);
    if options.bless {
        let mut text = serde_json::to_string_pretty(&now)?;
        text.push('\n');
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        echo(&format!("written to {COMMITTED}"));
        return Ok(Verdict::Passed);
    }
    let text = fs::read_to_string(&path).with_context(|| format!("no {COMMITTED}"))?;
    let committed: Counts = serde_json::from_str(&text).with_context(|| COMMITTED.to_owned())?;
    if committed.rustc != now.rustc {
        echo(&format!(
            "the committed counts are those of {}, these of {}",
            committed.rustc, now.rustc
        ));
    }
    let (table, verdict) = compare(&committed.instructions, &now.instructions);
    echo(&format!("\n{table}"));
    if verdict == Verdict::Failed {
        echo("if that is meant: cargo xtask bench instructions --bless");
    }
    Ok(verdict)
}

/// Instructions of one call.
fn per_call(valgrind: &Path, program: &Path, what: &str) -> Result<u64> {
    let few = count(valgrind, program, what, FEW)?;
    let more = count(valgrind, program, what, MORE)?;
    Ok(more.saturating_sub(few) / (MORE - FEW))
}

/// Instructions of the whole program.
fn count(valgrind: &Path, program: &Path, what: &str, calls: u64) -> Result<u64> {
    let mut command = Command::new(valgrind);
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([what, &calls.to_string()]);
    let mut output = String::new();
    let ended = watch(command, RUN_LIMIT, |line| {
        output.push_str(line);
        output.push('\n');
    })?;
    if !ended.success() {
        bail!("valgrind {}:\n{output}", ended.describe());
    }
    collected(&output).with_context(|| format!("valgrind did not tell a count:\n{output}"))
}

/// The count in what callgrind says: `==123== Collected : 7046713`.
fn collected(output: &str) -> Option<u64> {
    output.lines().find_map(|line| {
        let (_, count) = line.split_once("Collected :")?;
        count.trim().parse().ok()
    })
}

fn compare(committed: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> (Table, Verdict) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["call", "instructions", "committed", "change", ""]);
    let mut verdict = Verdict::Passed;
    for (what, count) in now {
        let before = committed.get(what);
        let change = before.map(|before| *count as f64 / *before as f64 - 1.0);
        let within = change.is_some_and(|change| change.abs() <= TOLERANCE);
        if !within {
            verdict = Verdict::Failed;
        }
        table.add_row([
            what.clone(),
            count.to_string(),
            before.map(u64::to_string).unwrap_or_default(),
            change.map_or(String::new(), |change| format!("{:+.1} %", change * 100.0)),
            match (within, change) {
                (true, _) => "",
                (false, Some(change)) if change < 0.0 => "LESS",
                (false, _) => "MORE",
            }
            .to_owned(),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    (table, verdict)
}

fn rustc() -> Command {
    let mut command = Command::new("rustc");
    command.arg("--version").current_dir(root());
    command
}

/// What the program can do.
const PROGRAMS: [&str; 3] = ["machines", "memory-async", "memory-blocking"];

const COMMITTED: &str = "benches/instructions.json";

/// How far a count may be off. It is the same to a few parts in a thousand on one machine; another
/// may have another C library.
const TOLERANCE: f64 = 0.03;

const FEW: u64 = 1000;
const MORE: u64 = 4000;

const BUILD_LIMIT: Duration = Duration::from_secs(3600);

const RUN_LIMIT: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(count: u64) -> BTreeMap<String, u64> {
        BTreeMap::from([("machines".to_owned(), count)])
    }

    #[test]
    fn count_is_found_in_what_callgrind_says() {
        let said = "==9== Callgrind\n==9== Events    : Ir\n==9== Collected : 7046713\n";
        assert_eq!(collected(said), Some(7_046_713));
        assert_eq!(collected("==9== error"), None);
    }

    #[test]
    fn change_beyond_the_tolerance_fails_to_either_side() {
        let verdict = |now| compare(&counts(1000), &counts(now)).1;
        assert_eq!(verdict(1029), Verdict::Passed);
        assert_eq!(verdict(1031), Verdict::Failed);
        assert_eq!(verdict(968), Verdict::Failed);
        assert_eq!(compare(&BTreeMap::new(), &counts(1)).1, Verdict::Failed);
    }
}
