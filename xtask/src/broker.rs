//! `cargo xtask broker`: a private RabbitMQ that outlives the command, for a person to play with.

use std::path::PathBuf;

use anyhow::{Result, bail};
use rabbitmq_node::{Error, Installation, Node};
use serde::Serialize;

use crate::Verdict;
use crate::provision;
use crate::run::{announced, echo};
use crate::workspace::Metadata;

/// What to do with the broker.
#[derive(Clone, Copy, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Start the broker, unless it runs, and say how to reach it
    Start {
        /// Print one JSON object instead of sentences
        #[arg(long)]
        json: bool,
    },
    /// Stop the broker; its data stays for the next start
    Stop {
        /// Print one JSON object instead of sentences
        #[arg(long)]
        json: bool,
    },
    /// Say whether the broker runs, by the exit code too: 0 when it does, 1 when not
    Status {
        /// Print one JSON object instead of sentences
        #[arg(long)]
        json: bool,
    },
}

/// What is told about the broker.
#[derive(Debug, Serialize)]
struct Report {
    running: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<PathBuf>,
    dir: PathBuf,
}

/// The command `broker`.
pub(crate) fn run(command: &Command) -> Result<Verdict> {
    let metadata = Metadata::load()?;
    match *command {
        Command::Start { json } => start(json, &metadata),
        Command::Stop { json } => stop(json, &metadata),
        Command::Status { json } => status(json, &metadata),
    }
}

/// Attaches to the broker if it runs and starts it if not; tells whether it ran.
pub(crate) fn start_or_attach(
    installation: Installation,
    metadata: &Metadata,
) -> Result<(Node, bool)> {
    if let Some(node) = running(metadata)? {
        return Ok((node, true));
    }
    let builder = Node::builder()
        .name("broker")
        .installation(installation)
        .dir(dir(metadata));
    Ok((provision::start_node(builder)?, false))
}

fn start(json: bool, metadata: &Metadata) -> Result<Verdict> {
    if let Some(node) = running(metadata)? {
        tell(json, "RabbitMQ is running already", &node)?;
        return Ok(Verdict::Passed);
    }
    let node = if json {
        // Nothing but the object may be printed, which rules out installing anything.
        Node::builder().name("broker").dir(dir(metadata)).start()?
    } else {
        start_or_attach(provision::rabbitmq()?, metadata)?.0
    };
    let node = Node::attach(node.detach()?)?;
    tell(json, "RabbitMQ is running", &node)?;
    Ok(Verdict::Passed)
}

fn stop(json: bool, metadata: &Metadata) -> Result<Verdict> {
    let Some(mut node) = running(metadata)? else {
        tell_stopped(json, "RabbitMQ was not running", metadata)?;
        return Ok(Verdict::Passed);
    };
    if json {
        node.stop()?;
    } else {
        announced("stopping RabbitMQ", || Ok(node.stop()?))?;
    }
    tell_stopped(json, "RabbitMQ is stopped", metadata)?;
    Ok(Verdict::Passed)
}

fn status(json: bool, metadata: &Metadata) -> Result<Verdict> {
    match running(metadata)? {
        Some(node) => {
            tell(json, "RabbitMQ is running", &node)?;
            Ok(Verdict::Passed)
        }
        None => {
            tell_stopped(json, "RabbitMQ is stopped", metadata)?;
            Ok(Verdict::Failed)
        }
    }
}

/// The broker, if it runs.
fn running(metadata: &Metadata) -> Result<Option<Node>> {
    match Node::attach(dir(metadata)) {
        Ok(node) => Ok(Some(node)),
        Err(Error::NotInstalled { .. } | Error::NotRunning { .. } | Error::State { .. }) => {
            Ok(None)
        }
        Err(error) => bail!(error),
    }
}

fn dir(metadata: &Metadata) -> PathBuf {
    metadata.target_directory.join("broker")
}

fn tell(json: bool, sentence: &str, node: &Node) -> Result<()> {
    let url = node.url();
    if json {
        return print_json(&Report {
            running: true,
            url: Some(url),
            pid: node.pid(),
            log: Some(node.log_path()),
            dir: node.dir().to_path_buf(),
        });
    }
    echo(&format!("{sentence}: {url}"));
    echo(&format!(
        "    export AMQP_URL={url}        # for fib-service and the examples"
    ));
    echo(&format!(
        "    export RPC_AMQP_URL={url}    # for tests and benches"
    ));
    echo(&format!("    log: {}", node.log_path().display()));
    echo("    cargo xtask broker stop ends it; its data and its port are kept for the next start");
    Ok(())
}

fn tell_stopped(json: bool, sentence: &str, metadata: &Metadata) -> Result<()> {
    let dir = dir(metadata);
    if json {
        return print_json(&Report {
            running: false,
            url: None,
            pid: None,
            log: None,
            dir,
        });
    }
    echo(sentence);
    Ok(())
}

fn print_json(report: &Report) -> Result<()> {
    echo(&serde_json::to_string(report)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stopped_broker_is_told_without_empty_fields() {
        let report = Report {
            running: false,
            url: None,
            pid: None,
            log: None,
            dir: PathBuf::from("/d"),
        };
        let text = serde_json::to_string(&report).expect("JSON");
        assert_eq!(text, r#"{"running":false,"dir":"/d"}"#);
    }
}
