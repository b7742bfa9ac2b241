//! Proves that a feature set pulls in what it promises and nothing more.
//!
//! Three kinds of proof: what is in the dependency tree, that each set compiles without warnings,
//! and the tests that prove something only where a feature is absent.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::run::{capture, echo, show, watch};
use crate::workspace::cargo;

/// A claim about the dependency tree of one feature set.
struct Claim {
    package: &'static str,
    /// Absent for the default features.
    features: Option<&'static str>,
    /// Without these the proof would prove nothing.
    present: &'static [&'static str],
    absent: &'static [&'static str],
}

/// Checks all claims about dependency trees; fails with all that do not hold.
pub(crate) fn prove_trees() -> Result<()> {
    let mut broken = Vec::new();
    for claim in CLAIMS {
        let mut arguments = vec!["tree", "--locked", "-e", "normal", "--prefix", "none"];
        arguments.extend(["--format", "{p}", "-p", claim.package]);
        if let Some(features) = claim.features {
            arguments.extend(["--no-default-features", "--features", features]);
        }
        let line = format!("cargo {}", arguments.join(" "));
        let (ended, output) = capture(cargo(&arguments), TREE_LIMIT)?;
        if !ended.success() {
            bail!("`{line}` {}", ended.describe());
        }
        let faults = faults(claim, &output);
        if faults.is_empty() {
            echo(&format!(
                "    {} has no {}",
                describe(claim),
                claim.absent.join(", no ")
            ));
        }
        broken.extend(
            faults
                .iter()
                .map(|fault| format!("{}: {fault}\n    {line}", describe(claim))),
        );
    }
    if broken.is_empty() {
        Ok(())
    } else {
        bail!("{}", broken.join("\n"))
    }
}

/// Compiles each feature set by itself, with warnings denied.
pub(crate) fn check_sets() -> Result<()> {
    for (package, sets) in SETS {
        for set in *sets {
            // Denying warnings through clippy concerns the workspace only, so that what was built
            // of the dependencies stays good, which it would not with RUSTFLAGS.
            let arguments = ["clippy", "--quiet", "--locked", "-p", package];
            let mut arguments = arguments.to_vec();
            arguments.extend(["--no-default-features", "--features", set]);
            arguments.extend(["--", "-D", "warnings"]);
            let ended = show(cargo(&arguments), CHECK_LIMIT)?;
            let name = if set.is_empty() { "no features" } else { set };
            if !ended.success() {
                bail!(
                    "{package} with {name}: `cargo {}` {}",
                    arguments.join(" "),
                    ended.describe()
                );
            }
            echo(&format!("    {package} with {name}: {}", ended.describe()));
        }
    }
    Ok(())
}

/// Runs the tests that tests with all features cannot replace.
pub(crate) fn run_lone_tests() -> Result<()> {
    for (package, target, test) in LONE_TESTS {
        let arguments = ["test", "--quiet", "--locked", "-p", package];
        let mut arguments = arguments.to_vec();
        arguments.extend(["--no-default-features", "--test", target]);
        arguments.extend(["--", "--exact", test]);
        let mut ran = false;
        let ended = watch(cargo(&arguments), CHECK_LIMIT, |line| {
            // A test that was renamed would pass by not being there.
            ran |= line.contains(". 1 passed;");
            echo(line);
        })?;
        if !ended.success() || !ran {
            let problem = if ended.success() {
                "ran no test".to_owned()
            } else {
                ended.describe()
            };
            bail!("`cargo {}` {problem}", arguments.join(" "));
        }
        echo(&format!(
            "    {test} without features: {}",
            ended.describe()
        ));
    }
    Ok(())
}

fn faults(claim: &Claim, tree: &str) -> Vec<String> {
    let names: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let has = |package: &str| {
        names.iter().any(|name| {
            *name == package
                || name
                    .strip_prefix(package)
                    .is_some_and(|rest| rest.starts_with('-'))
                || name.strip_prefix("transport-") == Some(package)
        })
    };
    let missing = claim
        .present
        .iter()
        .chain([&claim.package])
        .filter(|package| !has(package));
    let extra = claim.absent.iter().filter(|package| has(package));
    missing
        .map(|package| format!("{package} should be there and is not"))
        .chain(extra.map(|package| format!("{package} should not be there and is")))
        .collect()
}

fn describe(claim: &Claim) -> String {
    let features = claim.features.unwrap_or("default features");
    format!("{} with {features}", claim.package)
}

const CLAIMS: &[Claim] = &[
    Claim {
        package: "rpc-core",
        features: Some("blocking"),
        present: &["rpc-proto"],
        absent: &["tokio"],
    },
    Claim {
        package: "rpc-core",
        features: None,
        present: &["rpc-proto"],
        absent: &["lapin", "amiquip"],
    },
    Claim {
        package: "fib-service",
        features: Some("amiquip"),
        present: &["amiquip", "rpc-core"],
        absent: &["tokio", "lapin"],
    },
    Claim {
        package: "fib-service",
        features: Some("lapin"),
        present: &["lapin", "rpc-core"],
        absent: &["amiquip"],
    },
];

const SETS: &[(&str, &[&str])] = &[
    ("rpc-core", &["", "blocking", "tokio"]),
    ("transport-memory", &["", "blocking", "tokio"]),
    ("transport-amiquip", &[""]),
    ("transport-lapin", &["", "tls"]),
    ("fib-service", &["", "memory", "lapin", "amiquip"]),
];

/// Package, target and name of tests for the build without features.
const LONE_TESTS: &[(&str, &str, &str)] = &[(
    "transport-lapin",
    "faults",
    "tls_without_its_feature_is_refused_by_name",
)];

const TREE_LIMIT: Duration = Duration::from_secs(120);

const CHECK_LIMIT: Duration = Duration::from_secs(1800);

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: Claim = Claim {
        package: "a",
        features: None,
        present: &["lapin"],
        absent: &["tokio"],
    };

    #[test]
    fn tree_with_and_without_as_claimed_has_no_faults() {
        let tree = "a v0.1.0 (/w/a)\ntransport-lapin v0.1.0\nlapin v4.0.0\ntokiox v1.0.0 (*)\n";
        assert!(faults(&CLAIM, tree).is_empty());
    }

    #[test]
    fn relatives_of_what_must_be_absent_count_too() {
        let tree = "a v0.1.0\nlapin v4.0.0\ntokio-util v0.7.0\n";
        assert_eq!(faults(&CLAIM, tree), ["tokio should not be there and is"]);
    }

    #[test]
    fn empty_tree_proves_nothing() {
        assert_eq!(faults(&CLAIM, "").len(), 2);
    }
}
