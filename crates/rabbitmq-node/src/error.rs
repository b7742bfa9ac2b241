//! Everything that can go wrong with a node, worded for the person who reads a failed test.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The result of anything done to a node.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be done to a node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tool of the broker ran and reported failure.
    #[error("`{command}` failed ({status}): {output}")]
    Command {
        /// The command line, without its environment.
        command: String,
        /// What it wrote.
        output: String,
        /// How it ended.
        status: String,
    },

    /// The operating system refused something.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was being done.
        action: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },

    /// No usable RabbitMQ server is on this machine.
    #[error("RabbitMQ is not installed, or not where it was looked for: {searched}")]
    NotInstalled {
        /// The places that were searched, and what each lacked.
        searched: String,
    },

    /// The node has no running process, or the process of that id is no longer this node.
    #[error("node {name} is not running")]
    NotRunning {
        /// The name of the node.
        name: String,
    },

    /// The node did not come up.
    #[error("node {name} did not start: {reason}; its last words:\n{}", last_lines(.tail))]
    Start {
        /// The name of the node.
        name: String,
        /// What was waited for in vain.
        reason: String,
        /// The end of the node's own output.
        tail: String,
    },

    /// The directory holds no node that can be attached to.
    #[error("{} holds no usable node: {reason}", .dir.display())]
    State {
        /// The directory that was looked into.
        dir: PathBuf,
        /// What is missing or malformed.
        reason: String,
    },

    /// Something did not end within its time.
    #[error("{action} did not end within {limit:?}")]
    TimedOut {
        /// What was waited for.
        action: String,
        /// How long it was waited for.
        limit: Duration,
    },
}

/// What a person reads of them: the first errors, which tell the cause, and the last lines, which tell
/// how far it came. The rest is in the log, whose path leads the part that is from it.
fn last_lines(tail: &str) -> String {
    let lines: Vec<&str> = tail.lines().filter(|line| !line.is_empty()).collect();
    let (before, last) = lines.split_at(lines.len().saturating_sub(TAIL_SHOWN));
    let is_error = |line: &&&str| line.contains("[error]") && line.trim_end().len() > EMPTY_ERROR;
    let first = before.iter().filter(is_error).take(ERRORS_SHOWN);
    let shown: Vec<&str> = first.chain(last).copied().collect();
    shown.join("\n")
}

const TAIL_SHOWN: usize = 10;

const ERRORS_SHOWN: usize = 10;

/// Time, level and process alone.
const EMPTY_ERROR: usize = "2026-11-25 10:04:01.912321+00:00 [error] <0.130.0>".len();

impl Error {
    /// Makes the closure that turns an I/O error into one of ours, for `map_err`.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action: action.into(),
            source,
        }
    }

    /// Like [`Self::io`], for an action on a path.
    pub(crate) fn path(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::io(format!("{verb} {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_start_prints_the_last_ten_lines_only() {
        let lines: Vec<String> = (0..60).map(|line| format!("line {line}")).collect();
        let error = Error::Start {
            name: "n".into(),
            reason: "r".into(),
            tail: lines.join("\n"),
        };
        let text = error.to_string();
        assert!(
            text.contains("line 50") && !text.contains("line 49"),
            "{text}"
        );
    }
}
