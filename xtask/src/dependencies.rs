//! What every dependency must be: under an accepted licence, from the one registry, and content
//! with the oldest compiler that the project promises.
//!
//! cargo-deny does the first two with more care, but takes minutes to build; this check runs every
//! time, on what cargo tells of every package that any platform or feature could bring.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use semver::Version;
use serde::Deserialize;

use crate::run::{capture, echo};
use crate::workspace::{cargo, root};

/// Looks at every package and prints each fault; returns how many there are.
pub(crate) fn check() -> Result<usize> {
    let arguments = [
        "metadata",
        "--all-features",
        "--format-version",
        "1",
        "--locked",
    ];
    let (ended, output) = capture(cargo(&arguments), LIMIT)?;
    if !ended.success() {
        bail!("cargo metadata {}", ended.describe());
    }
    let metadata: Metadata =
        serde_json::from_str(&output).context("cannot read the answer of cargo metadata")?;
    let deny = fs::read_to_string(root().join("deny.toml")).context("cannot read deny.toml")?;
    let accepted = accepted_licences(&deny).context("deny.toml")?;
    let promised = compiler(PROMISED_COMPILER)?;

    let mut faults = Vec::new();
    for package in &metadata.packages {
        faults.extend(faults_of(package, &accepted, &promised)?);
    }
    for fault in &faults {
        echo(fault);
    }
    echo(&format!(
        "{} packages: licences, registries and minimum compilers, {} faults",
        metadata.packages.len(),
        faults.len()
    ));
    Ok(faults.len())
}

/// The version of a compiler, of which the last part is mostly left out.
pub(crate) fn compiler(text: &str) -> Result<Version> {
    let parts = text.split('.').count();
    let full = format!("{text}{}", ".0".repeat(3_usize.saturating_sub(parts)));
    Version::parse(&full).with_context(|| format!("`{text}` is no version of a compiler"))
}

/// The minimum that the workspace states.
pub(crate) const PROMISED_COMPILER: &str = env!("CARGO_PKG_RUST_VERSION");

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: Version,
    license: Option<String>,
    /// Absent for the members of the workspace.
    source: Option<String>,
    rust_version: Option<String>,
}

fn accepted_licences(deny: &str) -> Result<BTreeSet<String>> {
    #[derive(Deserialize)]
    struct Deny {
        licenses: Section,
    }
    #[derive(Deserialize)]
    struct Section {
        allow: BTreeSet<String>,
    }
    Ok(toml::from_str::<Deny>(deny)?.licenses.allow)
}

fn faults_of(
    package: &Package,
    accepted: &BTreeSet<String>,
    promised: &Version,
) -> Result<Vec<String>> {
    let Package { name, version, .. } = package;
    let mut faults = Vec::new();
    match package.license.as_deref() {
        None => faults.push(format!("{name} {version}: names no licence")),
        Some(licence) if !accepts(licence, accepted) => faults.push(format!(
            "{name} {version}: its licence `{licence}` is not accepted in deny.toml"
        )),
        Some(_) => {}
    }
    if let Some(source) = package.source.as_deref()
        && source != REGISTRY
    {
        faults.push(format!("{name} {version}: comes from {source}"));
    }
    if let Some(demanded) = package.rust_version.as_deref()
        && compiler(demanded)? > *promised
    {
        faults.push(format!(
            "{name} {version}: demands Rust {demanded}, and {PROMISED_COMPILER} is promised"
        ));
    }
    Ok(faults)
}

/// Tells whether the expression can be met by accepted licences; one that cannot be read cannot.
fn accepts(expression: &str, accepted: &BTreeSet<String>) -> bool {
    // Before there were expressions, a stroke stood for a choice.
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let mut words = Words {
        rest: spaced.split_whitespace().collect(),
        accepted,
    };
    let met = words.choice();
    met == Some(true) && words.rest.is_empty()
}

/// What is left of a licence expression, which is read from its beginning.
struct Words<'a> {
    rest: VecDeque<&'a str>,
    accepted: &'a BTreeSet<String>,
}

impl Words<'_> {
    /// `A OR B`, which binds loosest; both sides are read in any case.
    fn choice(&mut self) -> Option<bool> {
        let mut met = self.sum()?;
        while self.take("OR") {
            met |= self.sum()?;
        }
        Some(met)
    }

    /// `A AND B`
    fn sum(&mut self) -> Option<bool> {
        let mut met = self.single()?;
        while self.take("AND") {
            met &= self.single()?;
        }
        Some(met)
    }

    /// One licence, with its exception if it has one, or an expression in brackets.
    fn single(&mut self) -> Option<bool> {
        if self.take("(") {
            let met = self.choice()?;
            return self.take(")").then_some(met);
        }
        let mut licence = self.rest.pop_front()?.to_owned();
        if self.take("WITH") {
            licence = format!("{licence} WITH {}", self.rest.pop_front()?);
        }
        Some(self.accepted.contains(&licence))
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.rest.front() == Some(&word);
        if found {
            self.rest.pop_front();
        }
        found
    }
}

/// The one registry, as cargo names it.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Packages for other platforms may have to be fetched first.
const LIMIT: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted() -> BTreeSet<String> {
        let deny = "[licenses]\nallow = [\"MIT\", \"ISC\", \"Apache-2.0 WITH LLVM-exception\"]\n";
        accepted_licences(deny).expect("a list")
    }

    fn package() -> Package {
        Package {
            name: "p".into(),
            version: Version::new(1, 2, 3),
            license: Some("MIT".into()),
            source: Some(REGISTRY.into()),
            rust_version: None,
        }
    }

    fn faults(package: &Package) -> Vec<String> {
        let promised = compiler("1.95").expect("a version");
        faults_of(package, &accepted(), &promised).expect("a readable package")
    }

    #[test]
    fn licence_is_accepted_when_a_choice_of_accepted_ones_meets_it() {
        for expression in [
            "MIT",
            "GPL-3.0 OR MIT",
            "Unlicense/MIT",
            "(GPL-3.0 OR MIT) AND ISC",
            "GPL-3.0 AND X OR MIT",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(accepts(expression, &accepted()), "{expression}");
        }
        for expression in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "MIT AND (GPL-3.0 OR X)",
            "Apache-2.0",
            "MIT WITH LLVM-exception",
            "",
            "MIT OR",
            "(MIT",
            "MIT MIT",
        ] {
            assert!(!accepts(expression, &accepted()), "{expression}");
        }
    }

    #[test]
    fn package_without_a_licence_or_from_elsewhere_is_a_fault() {
        assert!(faults(&package()).is_empty());
        let unlicensed = Package {
            license: None,
            ..package()
        };
        assert_eq!(faults(&unlicensed), ["p 1.2.3: names no licence"]);
        let foreign = Package {
            source: Some("git+https://example.org/p".into()),
            ..package()
        };
        assert_eq!(
            faults(&foreign),
            ["p 1.2.3: comes from git+https://example.org/p"]
        );
    }

    #[test]
    fn package_may_not_demand_a_newer_compiler_than_is_promised() {
        for (demanded, count) in [("1.95", 0), ("1.95.0", 0), ("1.60", 0), ("1.96", 1)] {
            let package = Package {
                rust_version: Some(demanded.into()),
                ..package()
            };
            assert_eq!(faults(&package).len(), count, "{demanded}");
        }
        assert!(compiler("new").is_err());
        assert!(compiler(PROMISED_COMPILER).is_ok());
    }

    #[test]
    fn list_of_the_project_can_be_read() {
        let deny = fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
        assert!(accepted_licences(&deny).expect("a list").contains("MIT"));
    }
}
