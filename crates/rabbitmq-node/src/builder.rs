//! The choices that a node is started with.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::epmd::Epmd;
use crate::error::{Error, Result};
use crate::installation::Installation;
use crate::node::{DEFAULT_START_LIMIT, Node};
use crate::ports::{free_port, take};
use crate::settings::Settings;

/// Describes a node that is to be started.
#[derive(Debug, Default)]
pub struct Builder {
    config: Vec<String>,
    cookie: Option<String>,
    dir: Option<PathBuf>,
    epmd: Option<Arc<Epmd>>,
    installation: Option<Installation>,
    name: Option<String>,
    port: Option<u16>,
    start_limit: Option<Duration>,
}

impl Builder {
    /// Adds a line to the node's `rabbitmq.conf`.
    #[must_use]
    pub fn config(mut self, line: impl Into<String>) -> Self {
        self.config.push(line.into());
        self
    }

    /// Sets the secret shared by Erlang nodes that may speak to each other; random by default.
    #[must_use]
    pub fn cookie(mut self, cookie: impl Into<String>) -> Self {
        self.cookie = Some(cookie.into());
        self
    }

    /// Keeps everything of the node in this directory, and keeps the directory.
    ///
    /// By default it is a temporary one that goes with the node.
    /// Data found in the directory is used again.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Uses this installation rather than the one that [`Installation::find`] finds.
    #[must_use]
    pub fn installation(mut self, installation: Installation) -> Self {
        self.installation = Some(installation);
        self
    }

    /// Sets the name before the `@`; letters, digits, `-` and `_`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Shares the cookie and the name server of `node`, so that the two can form a cluster.
    ///
    /// The names must then differ.
    #[must_use]
    pub fn peer_of(mut self, node: &Node) -> Self {
        self.cookie = Some(node.settings().cookie.clone());
        self.epmd = Some(Arc::clone(node.epmd()));
        self
    }

    /// Sets the AMQP port. By default it is that of the last node in the same [`dir`](Self::dir) if it
    /// is free, and otherwise any that is.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Sets how long a start may take; 5 minutes by default.
    ///
    /// A node that shows no sign of life for 60 s is given up before: it writes nothing, and its
    /// processes compute nothing.
    #[must_use]
    pub fn start_limit(mut self, limit: Duration) -> Self {
        self.start_limit = Some(limit);
        self
    }

    /// Starts the node and waits until it is ready.
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`] without a server on this machine; [`Error::Start`] with the end of
    /// its output when it does not come up; [`Error::Io`] when files or processes are refused.
    pub fn start(self) -> Result<Node> {
        let name = self.name.unwrap_or_else(|| "rpc".into());
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(legal) {
            let reason = format!("`{name}` is not a name for a node");
            return Err(Error::Start {
                name,
                reason,
                tail: String::new(),
            });
        }
        let installation = match self.installation {
            Some(installation) => installation,
            None => Installation::find()?,
        };
        let (dir, temporary) = match self.dir {
            Some(dir) => {
                fs::create_dir_all(&dir).map_err(Error::path("create", &dir))?;
                (canonical(&dir)?, None)
            }
            None => {
                let temporary = tempfile::Builder::new()
                    .prefix("rabbitmq-node-")
                    .tempdir()
                    .map_err(Error::io("create a temporary directory"))?;
                (canonical(temporary.path())?, Some(temporary))
            }
        };
        let cookie = self.cookie.unwrap_or_else(random_word);
        let limit = self.start_limit.unwrap_or(DEFAULT_START_LIMIT);

        let mut kept = kept_port(&dir);
        let mut temporary: Option<TempDir> = temporary;
        let mut attempt = 1;
        loop {
            let epmd = match &self.epmd {
                Some(epmd) => Arc::clone(epmd),
                None => Arc::new(Epmd::start(&installation)?),
            };
            let settings = Settings {
                installation: installation.clone(),
                dir: dir.clone(),
                name: name.clone(),
                port: match (self.port, kept.take()) {
                    (Some(port), _) => port,
                    // URLs that people have noted go on to be true.
                    (None, Some(port)) if take(port) => port,
                    _ => free_port()?,
                },
                dist_port: free_port()?,
                epmd_port: epmd.port(),
                cookie: cookie.clone(),
                config: self.config.clone(),
            };
            let mut node = Node::new(settings, epmd, temporary.take(), limit);
            match node.boot() {
                Ok(()) => {
                    keep_port(&dir, node.port());
                    return Ok(node);
                }
                // A port that was free when it was picked may be taken by the time it is bound.
                Err(error) if attempt < ATTEMPTS && is_port_clash(&error) => {
                    attempt += 1;
                    temporary = node.take_temporary();
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn canonical(dir: &Path) -> Result<PathBuf> {
    dir.canonicalize().map_err(Error::path("resolve", dir))
}

/// The port of the last node in this directory.
fn kept_port(dir: &Path) -> Option<u16> {
    let text = fs::read_to_string(dir.join(PORT_FILE)).ok()?;
    text.trim().parse().ok()
}

fn keep_port(dir: &Path, port: u16) {
    // Without it the next node has another port, and works.
    let _ = fs::write(dir.join(PORT_FILE), port.to_string());
}

/// Recognises, by its last words, a node that lost the race for a port.
fn is_port_clash(error: &Error) -> bool {
    let Error::Start { tail, .. } = error else {
        return false;
    };
    [
        "eaddrinuse",
        "already_in_use",
        "already_used",
        "already in use",
    ]
    .iter()
    .any(|sign| tail.contains(sign))
}

/// A word that nobody guesses: the hasher's keys come from the system's random source.
fn random_word() -> String {
    (0..2)
        .map(|part| format!("{:016x}", RandomState::new().hash_one(part)))
        .collect()
}

const ATTEMPTS: u32 = 3;

const PORT_FILE: &str = "port";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_that_erlang_would_refuse_is_refused_first() {
        for name in ["", "a b", "a@b", "é"] {
            let error = Node::builder().name(name).start().expect_err(name);
            assert!(matches!(error, Error::Start { .. }), "{error}");
        }
    }

    #[test]
    fn port_is_kept_in_the_directory_and_nonsense_is_no_port() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(kept_port(dir.path()), None);
        keep_port(dir.path(), 5672);
        assert_eq!(kept_port(dir.path()), Some(5672));
        fs::write(dir.path().join(PORT_FILE), "x").expect("written");
        assert_eq!(kept_port(dir.path()), None);
    }

    #[test]
    fn cookies_differ() {
        assert_ne!(random_word(), random_word());
    }
}
