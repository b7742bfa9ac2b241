//! Finds the scripts that really start a RabbitMQ server.
//!
//! What lies in `PATH` will often not do: Debian's `rabbitmq-server` is a wrapper that changes
//! user and loses the environment, which is exactly what makes a node private.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A RabbitMQ server on this machine, and the Erlang name server that goes with it.
#[derive(Clone, Debug)]
pub struct Installation {
    sbin: PathBuf,
    epmd: PathBuf,
}

impl Installation {
    /// Finds an installed RabbitMQ.
    ///
    /// The variable `RABBITMQ_SBIN` names the directory of the server's scripts and decides alone
    /// when it is set.
    /// Otherwise the usual package directories are searched, then `PATH` is followed to the end of
    /// its symbolic links.
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`] with the places that were searched.
    pub fn find() -> Result<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let path: Vec<PathBuf> = env::split_paths(&path).collect();
        let candidates = match env::var_os(SBIN_VARIABLE) {
            Some(sbin) => vec![PathBuf::from(sbin)],
            None => candidates(&path),
        };
        let Some(sbin) = candidates.iter().find(|dir| holds_server_scripts(dir)) else {
            let searched: Vec<_> = candidates
                .iter()
                .map(|dir| dir.display().to_string())
                .collect();
            return Err(Error::NotInstalled {
                searched: if searched.is_empty() {
                    "no rabbitmq-server in PATH or in the usual directories".into()
                } else {
                    format!("no server scripts in {}", searched.join(", "))
                },
            });
        };
        let Some(epmd) = epmd_beside_erl(&path) else {
            return Err(Error::NotInstalled {
                searched: "no Erlang (erl, epmd) in PATH".into(),
            });
        };
        Ok(Self {
            sbin: sbin.clone(),
            epmd,
        })
    }

    /// The directory of the server's scripts.
    pub fn sbin(&self) -> &Path {
        &self.sbin
    }

    /// The version of the server, as far as its directory tells.
    pub fn version(&self) -> Option<String> {
        let home = self.sbin.parent()?;
        let plugins = fs::read_dir(home.join("plugins"))
            .into_iter()
            .flatten()
            .flatten();
        let versioned = |name: &str, prefix: &str| {
            let rest = name.strip_prefix(prefix)?.trim_end_matches(".ez");
            rest.starts_with(|c: char| c.is_ascii_digit())
                .then(|| rest.to_owned())
        };
        plugins
            .filter_map(|entry| versioned(&entry.file_name().to_string_lossy(), "rabbit-"))
            .next()
            .or_else(|| versioned(&home.file_name()?.to_string_lossy(), "rabbitmq_server-"))
    }

    /// The path of one of the server's scripts.
    pub(crate) fn script(&self, name: &str) -> PathBuf {
        self.sbin.join(name)
    }

    /// The path of the Erlang name server.
    pub(crate) fn epmd(&self) -> &Path {
        &self.epmd
    }
}

/// Lists the directories worth looking into, best first.
fn candidates(path: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for parent in PACKAGE_PARENTS {
        let mut versions: Vec<PathBuf> = fs::read_dir(parent)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| {
                entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with("rabbitmq_server-")
            })
            .map(|entry| entry.path().join("sbin"))
            .collect();
        versions.sort_by_key(|dir| version_key(dir));
        found.extend(versions.into_iter().rev());
    }
    let in_path = path.iter().map(|dir| dir.join("rabbitmq-server"));
    // A link leads to the real script, whose siblings are then the real ones too.
    let resolved = in_path.filter_map(|script| script.canonicalize().ok());
    found.extend(resolved.filter_map(|script| script.parent().map(Path::to_path_buf)));
    found.dedup();
    found
}

/// Tells a directory of real scripts from one that only has the wrappers.
fn holds_server_scripts(dir: &Path) -> bool {
    ["rabbitmq-server", "rabbitmqctl", "rabbitmq-env"]
        .iter()
        .all(|name| dir.join(name).is_file())
}

/// Finds the name server in `PATH`, or beside the real `erl` where only that is linked.
fn epmd_beside_erl(path: &[PathBuf]) -> Option<PathBuf> {
    let erl = path
        .iter()
        .find_map(|dir| dir.join("erl").canonicalize().ok())?;
    let beside = erl.parent().map(|bin| bin.join("epmd"));
    beside
        .into_iter()
        .chain(path.iter().map(|dir| dir.join("epmd")))
        .find(|epmd| epmd.is_file())
}

/// Orders version directories by number, so that 3.13 comes after 3.9.
fn version_key(dir: &Path) -> Vec<u64> {
    let text = dir.to_string_lossy();
    let version = text.rsplit("rabbitmq_server-").next().unwrap_or_default();
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

/// Overrides the search.
const SBIN_VARIABLE: &str = "RABBITMQ_SBIN";

/// Where packages put a directory per server version.
const PACKAGE_PARENTS: &[&str] = &[
    "/usr/lib/rabbitmq/lib",
    "/usr/local/lib/rabbitmq/lib",
    "/opt/rabbitmq/lib",
    "/opt",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_number() {
        let key =
            |version: &str| version_key(Path::new(&format!("/x/rabbitmq_server-{version}/sbin")));
        assert!(key("3.13.1") > key("3.9.29"));
        assert!(key("4.0.0") > key("3.13.1"));
    }

    #[test]
    fn wrappers_alone_are_no_server() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in ["rabbitmq-server", "rabbitmqctl"] {
            fs::write(dir.path().join(name), "").expect("a file");
        }
        assert!(!holds_server_scripts(dir.path()));
        fs::write(dir.path().join("rabbitmq-env"), "").expect("a file");
        assert!(holds_server_scripts(dir.path()));
    }

    #[test]
    fn version_comes_from_the_directory_when_there_are_no_plugins() {
        let installation = Installation {
            sbin: PathBuf::from("/nowhere/rabbitmq_server-3.12.1/sbin"),
            epmd: PathBuf::from("/nowhere/epmd"),
        };
        assert_eq!(installation.version().as_deref(), Some("3.12.1"));
    }
}
