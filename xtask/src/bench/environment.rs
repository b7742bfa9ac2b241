//! Where and with what it was measured: a number without that says nothing.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::run::capture;
use crate::workspace::root;

/// What goes with every result.
#[derive(Debug, Serialize)]
pub(super) struct Environment {
    /// `+` at the end when files differ from it.
    pub(super) commit: String,
    pub(super) date: String,
    pub(super) processor: String,
    pub(super) cores: usize,
    pub(super) kernel: String,
    pub(super) rustc: String,
    pub(super) broker: String,
    /// Client libraries and what they are compared with.
    pub(super) versions: Vec<(String, String)>,
    /// How many processes wanted to run in the minute before.
    pub(super) load: f64,
}

impl Environment {
    pub(super) fn look(broker: String) -> Result<Self> {
        let first_line = |program: &str, arguments: &[&str]| -> Result<String> {
            let mut command = Command::new(program);
            command.current_dir(root()).args(arguments);
            let (_, output) = capture(command, Duration::from_secs(20))?;
            Ok(output.lines().next().unwrap_or_default().to_owned())
        };
        let git = |arguments: &[&str]| {
            first_line("git", &[&["-c", "safe.directory=*"], arguments].concat())
        };
        let mut commit = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_default();
        if git(&["status", "--porcelain"]).is_ok_and(|changed| !changed.is_empty()) {
            commit.push('+');
        }
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let load = read("/proc/loadavg");
        Ok(Self {
            commit,
            date: first_line("date", &["-u", "+%Y-%m-%d %H:%M UTC"])?,
            processor: processor(&read("/proc/cpuinfo")),
            cores: std::thread::available_parallelism()?.get(),
            kernel: first_line("uname", &["-sr"])?,
            rustc: first_line("rustc", &["--version"])?,
            broker,
            versions: versions(&fs::read_to_string(root().join(Path::new("Cargo.lock")))?)?,
            load: load
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(0.0),
        })
    }

    /// Lines for a person.
    pub(super) fn describe(&self) -> String {
        let versions: Vec<_> = self
            .versions
            .iter()
            .map(|(name, version)| format!("{name} {version}"))
            .collect();
        format!(
            "commit {}, {}\n{}, {} cores, {}; load before: {}\n{}; {}; {}",
            self.commit,
            self.date,
            self.processor,
            self.cores,
            self.kernel,
            self.load,
            self.broker,
            versions.join(", "),
            self.rustc,
        )
    }

    /// Whether others were at work, so that the numbers are worth little.
    pub(super) fn is_busy(&self) -> bool {
        self.load > self.cores as f64 / 4.0
    }
}

fn processor(cpuinfo: &str) -> String {
    cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim())
        .to_owned()
}

/// The versions of what is compared, newest where there are several.
fn versions(lock: &str) -> Result<Vec<(String, String)>> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        version: String,
    }
    let lock: Lock = toml::from_str(lock)?;
    let of = |name: &&str| {
        let mut packages = lock.package.iter().rev();
        packages
            .find(|package| package.name == **name)
            .map(|package| (package.name.clone(), package.version.clone()))
    };
    Ok(COMPARED.iter().filter_map(of).collect())
}

const COMPARED: [&str; 5] = ["lapin", "amiquip", "amqprs", "tarpc", "tokio"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_is_named_once() {
        let text = "processor\t: 0\nmodel name\t: Abc 9\nmodel name\t: Abc 9\n";
        assert_eq!(processor(text), "Abc 9");
        assert_eq!(processor(""), "unknown processor");
    }

    #[test]
    fn versions_come_from_the_lock_file() {
        let lock = "[[package]]\nname = \"lapin\"\nversion = \"4.1.0\"\n\
            [[package]]\nname = \"other\"\nversion = \"1.0.0\"\n";
        let versions = versions(lock).expect("a lock file");
        assert_eq!(versions, [("lapin".to_owned(), "4.1.0".to_owned())]);
    }
}
