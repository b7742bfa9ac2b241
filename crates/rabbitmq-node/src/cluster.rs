//! Several nodes that are one broker.
//!
//! The first node starts alone, and the others join it by their configuration at their first boot:
//! no tool needs to be run, of which each would cost the better part of a second of processor time.

use std::thread;

use crate::builder::Builder;
use crate::error::{Error, Result};
use crate::node::Node;

/// A cluster of private nodes, each of which may be killed and restarted by itself.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
}

impl Cluster {
    /// Starts so many nodes, each described by `describe`, and returns when all are in the cluster.
    ///
    /// Their names are `n1`, `n2` and so on, whatever the description says.
    ///
    /// # Errors
    ///
    /// As [`Builder::start`]; [`Error::Start`] when a node does not join the others.
    pub fn start(size: usize, describe: impl Fn() -> Builder) -> Result<Self> {
        let first = describe().name(name(0)).start()?;
        let join = format!(
            "cluster_formation.classic_config.nodes.1 = {}",
            first.nodename()
        );
        let others: Vec<Builder> = (1..size)
            .map(|number| {
                describe()
                    .name(name(number))
                    .peer_of(&first)
                    .config("cluster_formation.peer_discovery_backend = classic_config")
                    // Nodes that boot at once wait for each other otherwise, for a minute at most.
                    .config("cluster_formation.randomized_startup_delay_range.min = 0")
                    .config("cluster_formation.randomized_startup_delay_range.max = 1")
                    .config(&join)
            })
            .collect();
        let others: Result<Vec<Node>> = thread::scope(|scope| {
            let starting: Vec<_> = others
                .into_iter()
                .map(|builder| scope.spawn(|| builder.start()))
                .collect();
            let joined = starting.into_iter().map(|start| {
                start.join().unwrap_or_else(|_| {
                    Err(Error::TimedOut {
                        action: "starting a node of a cluster".into(),
                        limit: std::time::Duration::ZERO,
                    })
                })
            });
            joined.collect()
        });
        let mut nodes = vec![first];
        nodes.extend(others?);
        let cluster = Self { nodes };
        cluster.check()?;
        Ok(cluster)
    }

    /// Its nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Its nodes, to do something to them.
    pub fn nodes_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// The addresses of all nodes.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Node::url).collect()
    }

    /// The node on which the leader of a quorum queue is, as any node that runs sees it.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] when the tool fails; [`Error::NotRunning`] when no node runs.
    pub fn leader(&mut self, queue: &str) -> Result<Option<usize>> {
        let Some(asked) = self.nodes.iter_mut().position(Node::is_running) else {
            return Err(Error::NotRunning {
                name: "of the cluster, any,".into(),
            });
        };
        let listed = self.nodes[asked].ctl(&["list_queues", "name", "leader"])?;
        let leader = listed.lines().find_map(|line| {
            let (name, leader) = line.split_once('\t')?;
            (name == queue).then(|| leader.trim().to_owned())
        });
        Ok(leader.and_then(|leader| self.nodes.iter().position(|node| node.nodename() == leader)))
    }

    fn check(&self) -> Result<()> {
        let Some(first) = self.nodes.first() else {
            return Ok(());
        };
        let members = first.ctl(&["cluster_status", "--formatter", "json"])?;
        let status: serde_json::Value = serde_json::from_str(&members).unwrap_or_default();
        let runs = |node: &&Node| {
            let running = status["running_nodes"].as_array();
            running.is_some_and(|names| names.iter().any(|name| *name == node.nodename()))
        };
        match self.nodes.iter().find(|node| !runs(node)) {
            None => Ok(()),
            Some(stranger) => Err(Error::Start {
                name: stranger.nodename(),
                reason: "it has not joined the cluster".into(),
                tail: members,
            }),
        }
    }
}

fn name(number: usize) -> String {
    format!("n{}", number + 1)
}
