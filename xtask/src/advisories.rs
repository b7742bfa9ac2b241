//! `cargo xtask advisories`: Cargo.lock against a RustSec advisory database, without the network.
//!
//! cargo-audit does the same and more, but takes minutes to build; this check runs every time.
//! An advisory may be accepted, by an entry with a dated reason in `deny.toml`; an entry that no
//! longer matches anything is a fault, so that the list cannot outlive its reasons.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use semver::{Version, VersionReq};
use serde::Deserialize;

use crate::Verdict;
use crate::run::echo;
use crate::workspace::root;

/// What the check came to.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Found {
    Faults(usize),
    NoDatabase,
    Nothing,
}

/// The command `advisories`.
pub(crate) fn run() -> Result<Verdict> {
    Ok(match check()? {
        Found::NoDatabase => {
            echo(NO_DATABASE);
            Verdict::Failed
        }
        Found::Faults(_) => Verdict::Failed,
        Found::Nothing => Verdict::Passed,
    })
}

/// Compares and prints each fault.
pub(crate) fn check() -> Result<Found> {
    let Some(database) = database()? else {
        return Ok(Found::NoDatabase);
    };
    let read = |name: &str| {
        fs::read_to_string(root().join(name)).with_context(|| format!("cannot read {name}"))
    };
    let locked = locked_packages(&read("Cargo.lock")?)?;
    let ignored = ignores(&read("deny.toml")?).context("deny.toml")?;
    let audit_ignored = audit_ignores(&read(".cargo/audit.toml")?).context(".cargo/audit.toml")?;
    let (advisories, newest) = load(&database, &locked)?;

    let mut faults = compare(&locked, &advisories, &ignored);
    faults.extend(undated(&ignored));
    let ids: BTreeSet<&str> = ignored.iter().map(|ignore| ignore.id.as_str()).collect();
    let audit_ids: BTreeSet<&str> = audit_ignored.iter().map(String::as_str).collect();
    for id in ids.symmetric_difference(&audit_ids) {
        faults.push(format!(
            "{id}: deny.toml and .cargo/audit.toml do not agree on it"
        ));
    }
    for fault in &faults {
        echo(fault);
    }
    echo(&format!(
        "{} packages against the database in {} (newest advisory read: {newest}): \
         {} accepted, {} faults",
        locked.len(),
        database.display(),
        ignored.len(),
        faults.len(),
    ));
    Ok(if faults.is_empty() {
        Found::Nothing
    } else {
        Found::Faults(faults.len())
    })
}

/// The database's directory, if there is one; a directory that was named has to be one.
pub(crate) fn database() -> Result<Option<PathBuf>> {
    let is_database = |path: &PathBuf| path.join("crates").is_dir();
    if let Some(given) = env::var_os(VARIABLE).map(PathBuf::from) {
        if !is_database(&given) {
            bail!(
                "{VARIABLE}={} leads to no advisory database",
                given.display()
            );
        }
        return Ok(Some(given));
    }
    let kept = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
        .map(|home| home.join("advisory-db"));
    let beside = BESIDE.iter().map(|path| root().join(path));
    Ok(beside.chain(kept).find(is_database))
}

/// A package of Cargo.lock that came from a registry.
#[derive(Debug, Deserialize)]
struct Locked {
    name: String,
    version: Version,
    source: Option<String>,
}

/// One advisory, as far as it concerns us.
#[derive(Debug)]
struct Advisory {
    id: String,
    package: String,
    kind: String,
    title: String,
    /// Ranges of versions that are not affected.
    safe: Vec<VersionReq>,
}

/// An advisory accepted in `deny.toml`.
#[derive(Debug, Deserialize)]
struct Ignore {
    id: String,
    reason: String,
}

fn locked_packages(text: &str) -> Result<Vec<Locked>> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Locked>,
    }
    let lock: Lock = toml::from_str(text).context("Cargo.lock")?;
    Ok(lock
        .package
        .into_iter()
        .filter(|package| package.source.is_some())
        .collect())
}

fn ignores(text: &str) -> Result<Vec<Ignore>> {
    #[derive(Deserialize)]
    struct Deny {
        advisories: Section,
    }
    #[derive(Deserialize)]
    struct Section {
        ignore: Vec<Ignore>,
    }
    Ok(toml::from_str::<Deny>(text)?.advisories.ignore)
}

fn audit_ignores(text: &str) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Audit {
        advisories: Section,
    }
    #[derive(Deserialize)]
    struct Section {
        ignore: Vec<String>,
    }
    Ok(toml::from_str::<Audit>(text)?.advisories.ignore)
}

/// Loads the advisories on the locked packages, and the date of the newest of them.
fn load(database: &Path, locked: &[Locked]) -> Result<(Vec<Advisory>, String)> {
    let names: BTreeSet<&str> = locked.iter().map(|package| package.name.as_str()).collect();
    let mut advisories = Vec::new();
    let mut newest = String::from("none");
    for name in names {
        let files = fs::read_dir(database.join("crates").join(name))
            .into_iter()
            .flatten();
        for file in files {
            let path = file?.path();
            if path.extension().is_none_or(|extension| extension != "md") {
                continue;
            }
            let text = fs::read_to_string(&path)
                .map_err(anyhow::Error::from)
                .and_then(|text| parse(&text))
                .with_context(|| path.display().to_string())?;
            if let Some((advisory, date)) = text {
                newest = if newest == "none" {
                    date
                } else {
                    newest.max(date)
                };
                advisories.push(advisory);
            }
        }
    }
    Ok((advisories, newest))
}

/// Reads one advisory file; none when it was withdrawn.
fn parse(text: &str) -> Result<Option<(Advisory, String)>> {
    #[derive(Deserialize)]
    struct Front {
        advisory: Head,
        #[serde(default)]
        versions: Versions,
    }
    #[derive(Deserialize)]
    struct Head {
        id: String,
        package: String,
        date: String,
        withdrawn: Option<String>,
        informational: Option<String>,
    }
    #[derive(Default, Deserialize)]
    struct Versions {
        #[serde(default)]
        patched: Vec<VersionReq>,
        #[serde(default)]
        unaffected: Vec<VersionReq>,
    }
    let (front, body) = text
        .split_once("```toml")
        .and_then(|(_, rest)| rest.split_once("```"))
        .ok_or_else(|| anyhow!("there is no front matter"))?;
    let Front {
        advisory: head,
        versions,
    } = toml::from_str(front)?;
    if head.withdrawn.is_some() {
        return Ok(None);
    }
    let title = body
        .lines()
        .find_map(|line| line.strip_prefix("# "))
        .unwrap_or_default();
    let advisory = Advisory {
        id: head.id,
        package: head.package,
        kind: head.informational.unwrap_or_else(|| "vulnerability".into()),
        title: title.trim().to_owned(),
        safe: versions
            .patched
            .into_iter()
            .chain(versions.unaffected)
            .collect(),
    };
    Ok(Some((advisory, head.date)))
}

fn compare(locked: &[Locked], advisories: &[Advisory], ignored: &[Ignore]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut used = BTreeSet::new();
    for advisory in advisories {
        let affected = locked.iter().filter(|package| {
            package.name == advisory.package
                && !advisory
                    .safe
                    .iter()
                    .any(|range| range.matches(&package.version))
        });
        for package in affected {
            if ignored.iter().any(|ignore| ignore.id == advisory.id) {
                used.insert(advisory.id.as_str());
            } else {
                let Advisory {
                    id, kind, title, ..
                } = advisory;
                let Locked { name, version, .. } = package;
                faults.push(format!("{id}: {name} {version} ({kind}): {title}"));
            }
        }
    }
    let unused = ignored
        .iter()
        .filter(|ignore| !used.contains(ignore.id.as_str()));
    faults
        .extend(unused.map(|ignore| format!("{}: accepted, but concerns nothing here", ignore.id)));
    faults
}

/// Reasons without a date; one never knows whether they still hold.
fn undated(ignored: &[Ignore]) -> Vec<String> {
    let dated = |reason: &str| {
        let day = |word: &str| {
            let word = word.trim_matches(|c: char| !c.is_ascii_digit());
            word.len() == 10 && word.split('-').map(str::len).eq([4, 2, 2])
        };
        reason.split_whitespace().any(day)
    };
    let undated = ignored.iter().filter(|ignore| !dated(&ignore.reason));
    undated
        .map(|ignore| format!("{}: accepted without a date", ignore.id))
        .collect()
}

/// Said when there is nothing to compare with.
pub(crate) const NO_DATABASE: &str =
    "no advisory database (name a checkout of RustSec's advisory-db in RPC_ADVISORY_DB)";

const VARIABLE: &str = "RPC_ADVISORY_DB";

/// Where a checkout of the database may lie, as seen from the root.
const BESIDE: &[&str] = &["../advisory-db", "../shared/advisory-db"];

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "```toml\n[advisory]\nid = \"RUSTSEC-2020-0001\"\npackage = \"p\"\n\
        date = \"2020-02-03\"\n[versions]\npatched = [\">= 1.2.0\"]\nunaffected = [\"< 0.5\"]\n```\n\
        \n# It leaks\n\nText.\n";

    fn locked(version: &str) -> Vec<Locked> {
        let text = format!(
            "version = 4\n[[package]]\nname = \"p\"\nversion = \"{version}\"\nsource = \"registry\"\n\
             [[package]]\nname = \"ours\"\nversion = \"0.1.0\"\n"
        );
        locked_packages(&text).expect("a lock file")
    }

    fn advisory() -> Advisory {
        parse(FILE).expect("an advisory").expect("not withdrawn").0
    }

    fn ignore(id: &str) -> Ignore {
        Ignore {
            id: id.into(),
            reason: "2026-01-02: because".into(),
        }
    }

    #[test]
    fn only_versions_outside_the_safe_ranges_are_affected() {
        for (version, faults) in [("1.1.9", 1), ("1.2.0", 0), ("2.0.0", 0), ("0.4.9", 0)] {
            assert_eq!(
                compare(&locked(version), &[advisory()], &[]).len(),
                faults,
                "{version}"
            );
        }
        let fault = &compare(&locked("1.0.0"), &[advisory()], &[])[0];
        assert_eq!(
            fault,
            "RUSTSEC-2020-0001: p 1.0.0 (vulnerability): It leaks"
        );
    }

    #[test]
    fn accepted_advisory_is_no_fault_while_it_matches() {
        let accepted = [ignore("RUSTSEC-2020-0001")];
        assert!(compare(&locked("1.0.0"), &[advisory()], &accepted).is_empty());
        assert_eq!(compare(&locked("1.2.0"), &[advisory()], &accepted).len(), 1);
    }

    #[test]
    fn withdrawn_advisory_counts_for_nothing() {
        let text = FILE.replace("date =", "withdrawn = \"2021-01-01\"\ndate =");
        assert!(parse(&text).expect("an advisory").is_none());
        assert!(parse("# no front matter").is_err());
    }

    #[test]
    fn own_packages_are_not_looked_up() {
        assert_eq!(locked("1.0.0").len(), 1);
    }

    #[test]
    fn reason_needs_a_date() {
        let undated_reason = Ignore {
            id: "X".into(),
            reason: "because".into(),
        };
        assert_eq!(
            undated(&[ignore("Y"), undated_reason]),
            ["X: accepted without a date"]
        );
    }

    #[test]
    fn both_lists_of_the_project_can_be_read() {
        let read = |name: &str| fs::read_to_string(root().join(name)).expect(name);
        let ignored = ignores(&read("deny.toml")).expect("deny.toml");
        let audit = audit_ignores(&read(".cargo/audit.toml")).expect("audit.toml");
        assert_eq!(ignored.len(), audit.len());
        assert!(undated(&ignored).is_empty());
    }
}
