//! The broker under a scenario, with what an operator may do to it.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fault_proxy::Proxy;
use rabbitmq_node::{Cluster, Node};
use rpc_core::ShortString;
use transport_memory::MemoryBroker;
use url::Url;

use crate::ledger::{Micros, now};
use crate::session::StuckBroker;

/// A broker.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "scenarios look at what they got")]
#[expect(clippy::large_enum_variant, reason = "there is one in a run")]
pub enum Ground {
    /// Inside this process.
    Memory(MemoryBroker),
    /// Somebody's, named by its URL: it may be used and not be touched.
    Given(String),
    /// A private node, to be killed at will.
    Own(Node),
    /// Several private nodes that are one broker, each to be killed at will.
    Cluster(Cluster),
    /// None.
    Nothing,
}

/// Where clients and workers connect.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "sessions look at what they got")]
pub enum Place {
    /// To the broker of this process.
    Memory(MemoryBroker),
    /// To the same, through transports that may hang.
    Stuck(StuckBroker),
    /// To one of these addresses.
    Urls(Vec<String>),
}

/// How many messages a queue has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a queue has these two")]
pub struct Depth {
    /// Those that wait.
    pub ready: u64,
    /// Those that consumers hold.
    pub unacked: u64,
}

impl Ground {
    /// Where clients connect.
    ///
    /// # Errors
    ///
    /// When there is no broker.
    pub fn place(&self) -> Result<Place> {
        Ok(match self {
            Self::Memory(broker) => Place::Memory(broker.clone()),
            Self::Given(url) => Place::Urls(vec![url.clone()]),
            Self::Own(node) => Place::Urls(vec![node.url()]),
            Self::Cluster(cluster) => Place::Urls(cluster.urls()),
            Self::Nothing => bail!("the scenario needs a broker, and has none"),
        })
    }

    /// The URL of the broker.
    ///
    /// # Errors
    ///
    /// When it has none.
    pub fn url(&self) -> Result<String> {
        match self {
            Self::Given(url) => Ok(url.clone()),
            Self::Own(node) => Ok(node.url()),
            _ => bail!("the scenario needs a broker with one URL"),
        }
    }

    /// The node, for scenarios that break it.
    ///
    /// # Errors
    ///
    /// When it is not ours.
    pub fn node(&mut self) -> Result<&mut Node> {
        match self {
            Self::Own(node) => Ok(node),
            _ => bail!("the scenario needs a private RabbitMQ node, to break it"),
        }
    }

    /// Kills the broker, brings it back on the same data, and tells when it could be reached again.
    ///
    /// # Errors
    ///
    /// When it is not ours, or does not come back.
    pub fn kill_broker(&mut self) -> Result<Micros> {
        match self {
            Self::Memory(broker) => {
                broker.stop();
                std::thread::sleep(MEMORY_DOWN);
                broker.start();
                Ok(now())
            }
            _ => kill_and_restart(self.node()?),
        }
    }

    /// Raises or clears the alarm by which a broker that is short of memory blocks publishers.
    ///
    /// # Errors
    ///
    /// When it is not ours, or cannot be told.
    pub fn set_alarm(&mut self, on: bool) -> Result<()> {
        match self {
            Self::Memory(broker) => {
                broker.block_publishers(on);
                Ok(())
            }
            _ => set_memory_alarm(self.node()?, on),
        }
    }

    /// Whether it can be seen what is in a queue: the tools are for brokers that are ours.
    #[must_use]
    pub const fn tells(&self) -> bool {
        matches!(self, Self::Memory(_) | Self::Own(_) | Self::Cluster(_))
    }

    /// How many messages a queue has; nothing when there is no such queue, or when the broker does not
    /// [tell](Self::tells).
    ///
    /// # Errors
    ///
    /// When the broker cannot be asked.
    pub fn depth(&self, queue: &str) -> Result<Option<Depth>> {
        match self {
            Self::Memory(broker) => Ok(broker.queue_len(queue).map(|ready| Depth {
                ready: ready as u64,
                unacked: broker.unsettled(queue).unwrap_or(0) as u64,
            })),
            Self::Own(node) => depth(node, queue),
            Self::Cluster(cluster) => {
                // Any of them knows, if it runs.
                let mut told = cluster.nodes().iter().map(|node| depth(node, queue));
                let told = told.find(Result::is_ok);
                told.context("no node of the cluster answers")?
            }
            Self::Given(_) | Self::Nothing => Ok(None),
        }
    }

    /// Waits until a queue is empty and nobody holds anything of it; what is left if it does not come
    /// to that. Of a broker that does not [tell](Self::tells) nothing is left as far as is known.
    ///
    /// # Errors
    ///
    /// When the broker cannot be asked.
    pub fn drains_within(&self, queue: &str, limit: Duration) -> Result<Option<Depth>> {
        let deadline = Instant::now() + limit;
        loop {
            let depth = self.depth(queue)?.unwrap_or_default();
            if depth == Depth::default() {
                return Ok(None);
            }
            if Instant::now() >= deadline {
                return Ok(Some(depth));
            }
            std::thread::sleep(POLL);
        }
    }

    /// The names of all queues; nothing where it does not [tell](Self::tells) them.
    ///
    /// # Errors
    ///
    /// When the broker cannot be asked.
    pub fn queues(&self) -> Result<Option<BTreeSet<String>>> {
        let Self::Own(node) = self else {
            return Ok(None);
        };
        let listed = node.ctl(&["list_queues", "name"])?;
        Ok(Some(listed.lines().map(str::to_owned).collect()))
    }

    /// Where the broker's logs end now, for [`complaints`](Self::complaints).
    #[must_use]
    pub fn log_mark(&self) -> LogMark {
        let length = |node: &Node| fs::metadata(node.log_path()).map_or(0, |log| log.len());
        LogMark(self.nodes().iter().map(length).collect())
    }

    /// What the broker has logged since the mark about peers that broke the protocol: 406, 501, 541.
    /// Nothing where the log cannot be read, for it is not ours or there is none.
    #[must_use]
    pub fn complaints(&self, mark: &LogMark) -> Option<Vec<String>> {
        let nodes = self.nodes();
        if nodes.is_empty() || nodes.len() != mark.0.len() {
            return None;
        }
        let mut complaints = Vec::new();
        for (node, mark) in nodes.iter().zip(&mark.0) {
            let log = fs::read(node.log_path()).ok()?;
            let since = usize::try_from(*mark).unwrap_or(0).min(log.len());
            let text = String::from_utf8_lossy(&log[since..]).into_owned();
            let words = ["precondition_failed", "frame_error", "internal_error"];
            let bad = |line: &&str| words.iter().any(|word| line.contains(word));
            complaints.extend(text.lines().filter(bad).map(str::to_owned));
        }
        Some(complaints)
    }

    fn nodes(&self) -> &[Node] {
        match self {
            Self::Own(node) => std::slice::from_ref(node),
            Self::Cluster(cluster) => cluster.nodes(),
            _ => &[],
        }
    }
}

/// Where the logs of a broker ended at a moment, one for each node.
#[derive(Clone, Debug, Default)]
pub struct LogMark(Vec<u64>);

impl Place {
    /// How many addresses there are.
    #[must_use]
    pub const fn endpoints(&self) -> usize {
        match self {
            Self::Memory(_) | Self::Stuck(_) => 1,
            Self::Urls(urls) => urls.len(),
        }
    }
}

/// The broker of a URL through a proxy.
///
/// # Errors
///
/// When the URL is none, or there is no port left.
pub fn proxied(url: &str) -> Result<(Proxy, Place)> {
    let mut url = Url::parse(url).context("the URL of the broker")?;
    let host = url.host_str().context("the URL names no host")?.to_owned();
    let proxy = Proxy::to((host.as_str(), url.port().unwrap_or(5672)))?;
    let port = proxy.port();
    if url.set_host(Some("127.0.0.1")).is_err() || url.set_port(Some(port)).is_err() {
        bail!("the URL takes no address");
    }
    Ok((proxy, Place::Urls(vec![url.into()])))
}

/// A URL with a query parameter more.
///
/// # Errors
///
/// When the URL is none.
pub fn with_query(url: &str, name: &str, value: &str) -> Result<String> {
    let mut url = Url::parse(url).context("the URL of the broker")?;
    url.query_pairs_mut().append_pair(name, value);
    Ok(url.into())
}

/// How many messages a queue of a node has.
///
/// # Errors
///
/// When the node cannot be asked.
pub fn depth(node: &Node, queue: &str) -> Result<Option<Depth>> {
    let columns = ["name", "messages_ready", "messages_unacknowledged"];
    let listed = node.ctl(&[&["list_queues"], &columns[..]].concat())?;
    let found = listed.lines().find_map(|line| {
        let mut words = line.split('\t');
        (words.next()? == queue).then_some(())?;
        Some(Depth {
            ready: words.next()?.trim().parse().ok()?,
            unacked: words.next()?.trim().parse().ok()?,
        })
    });
    Ok(found)
}

/// Raises or clears the memory alarm of a node.
///
/// # Errors
///
/// When the node cannot be told.
pub fn set_memory_alarm(node: &Node, on: bool) -> Result<()> {
    let level: &[&str] = if on { &["absolute", "1MB"] } else { &["0.4"] };
    let command = [&["set_vm_memory_high_watermark"], level].concat();
    node.ctl(&command).context("the memory watermark")?;
    Ok(())
}

/// Kills a node, starts it again on the same data, and tells when its port was open again.
///
/// # Errors
///
/// When it does not come back.
pub fn kill_and_restart(node: &mut Node) -> Result<Micros> {
    node.kill()?;
    start_again(node)
}

/// Starts a node that has ended, and tells when its port was open again.
///
/// # Errors
///
/// When it does not come back.
pub fn start_again(node: &mut Node) -> Result<Micros> {
    let port = node.port();
    let opened = std::thread::spawn(move || port_opens(port, Duration::from_secs(90)));
    node.restart()?;
    let opened = opened.join().ok().flatten();
    opened.context("the port of the broker did not open")
}

fn port_opens(port: u16, limit: Duration) -> Option<Micros> {
    let deadline = Instant::now() + limit;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    while Instant::now() < deadline {
        if std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok() {
            return Some(now());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

/// A queue name that begins with `about` and is used by nobody else.
///
/// # Panics
///
/// When `about` is over 200 bytes.
#[must_use]
pub fn queue(about: &str) -> ShortString {
    let unique = uuid::Uuid::new_v4().simple();
    ShortString::new(format!("torture-{about}-{unique}")).expect("it is short")
}

/// How long a broker in the process stays away: long enough for calls to come meanwhile.
const MEMORY_DOWN: Duration = Duration::from_millis(200);

/// A command of the server's tools costs the better part of a second of processor time.
const POLL: Duration = Duration::from_millis(300);
