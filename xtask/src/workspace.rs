//! Where the workspace is, how its cargo is called, and what cargo tells about it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::run::capture;

/// The root directory of the workspace.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// A cargo command in the root directory.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    // What cargo set for this program would be seen by build scripts that watch these variables,
    // which would then build their crates anew each time.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_NAME",
            "CARGO_CRATE_NAME",
            "OUT_DIR",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        {
            command.env_remove(&*name);
        }
    }
    command
}

/// What is needed of the answer of `cargo metadata`.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) target_directory: PathBuf,
}

/// A package of the workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) targets: Vec<Target>,
}

/// Something that cargo builds.
#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) kind: Vec<String>,
    pub(crate) name: String,
    #[serde(default, rename = "required-features")]
    pub(crate) required_features: Vec<String>,
}

impl Metadata {
    /// Asks cargo.
    pub(crate) fn load() -> Result<Self> {
        let arguments = ["metadata", "--no-deps", "--format-version", "1", "--locked"];
        let (ended, output) = capture(cargo(&arguments), Duration::from_secs(120))?;
        if !ended.success() {
            bail!("cargo metadata {}", ended.describe());
        }
        serde_json::from_str(&output).context("cannot read the answer of cargo metadata")
    }

    /// The examples of a package, in the order of their names.
    pub(crate) fn examples(&self, package: &str) -> Vec<&Target> {
        let packages = self
            .packages
            .iter()
            .filter(|candidate| candidate.name == package);
        let mut examples: Vec<_> = packages
            .flat_map(|package| &package.targets)
            .filter(|target| target.kind.iter().any(|kind| kind == "example"))
            .collect();
        examples.sort_by(|a, b| a.name.cmp(&b.name));
        examples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_the_workspace_manifest() {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
        assert!(manifest.contains("[workspace]"));
    }

    #[test]
    fn examples_are_those_of_the_package_in_order() {
        let text = r#"{"target_directory": "/t", "packages": [
            {"id": "1", "name": "rpc-examples", "targets": [
                {"kind": ["lib"], "name": "l"},
                {"kind": ["example"], "name": "b", "required-features": ["f"]},
                {"kind": ["example"], "name": "a"}]},
            {"id": "2", "name": "other", "targets": [{"kind": ["example"], "name": "c"}]}]}"#;
        let metadata: Metadata = serde_json::from_str(text).expect("metadata");
        let examples = metadata.examples("rpc-examples");
        let names: Vec<_> = examples.iter().map(|target| target.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(examples[1].required_features, ["f"]);
    }
}
