//! A real node through its whole life, and the promises about what it leaves behind.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rabbitmq_node::{Cluster, Error, Node};

fn accepts(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Tells whether any process has the directory in its command line.
fn mentioned_by_a_process(dir: &Path) -> bool {
    let dir = dir.display().to_string();
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .any(|line| String::from_utf8_lossy(&line).contains(&dir))
}

#[test]
#[ignore = "needs RabbitMQ installed: run cargo xtask test"]
fn node_is_killed_restarted_frozen_and_stopped() {
    let mut node = Node::builder()
        .config("heartbeat = 17")
        .start()
        .expect("a node");
    let (port, first) = (node.port(), node.pid());
    assert!(accepts(port));
    assert_eq!(
        node.url(),
        format!("amqp://guest:guest@127.0.0.1:{port}/%2f")
    );
    node.ctl(&["await_startup"]).expect("ready when started");
    let value = node
        .ctl(&["eval", "application:get_env(rabbit, heartbeat)."])
        .expect("eval");
    assert_eq!(value.trim(), "{ok,17}");
    node.ctl(&["add_vhost", "kept"]).expect("a virtual host");

    node.kill().expect("killed");
    assert!(!node.is_running() && !accepts(port));
    assert!(matches!(node.kill(), Err(Error::NotRunning { .. })));
    assert!(matches!(node.pause(), Err(Error::NotRunning { .. })));

    node.restart().expect("restarted");
    assert!(accepts(port) && node.pid() != first);
    assert!(node.ctl(&["list_vhosts"]).expect("list").contains("kept"));

    node.pause().expect("paused");
    let started = Instant::now();
    let limit = Duration::from_secs(2);
    assert!(matches!(
        node.tool("rabbitmqctl", &["status"], limit),
        Err(Error::TimedOut { .. })
    ));
    assert!(started.elapsed() < Duration::from_secs(10));
    node.resume().expect("resumed");
    node.ctl(&["status"]).expect("alive again");
    assert!(matches!(
        node.ctl(&["no_such_command"]),
        Err(Error::Command { .. })
    ));

    node.stop().expect("stopped");
    node.stop().expect("stopped twice");
    assert!(!accepts(port));
    let dir = node.dir().to_path_buf();
    drop(node);
    assert!(!dir.exists() && !mentioned_by_a_process(&dir));
}

#[test]
#[ignore = "needs RabbitMQ installed: run cargo xtask test"]
fn two_nodes_do_not_meet_unless_they_are_peers() {
    let one = Node::builder().name("one").start().expect("a node");
    let two = Node::builder()
        .name("two")
        .peer_of(&one)
        .start()
        .expect("a peer");
    let stranger = Node::builder()
        .name("one")
        .start()
        .expect("a node of the same name");
    assert_ne!(one.port(), stranger.port());
    let ping = "net_adm:ping('two@localhost').";
    assert_eq!(one.ctl(&["eval", ping]).expect("eval").trim(), "pong");
    assert_eq!(stranger.ctl(&["eval", ping]).expect("eval").trim(), "pang");
    let dir = one.dir().to_path_buf();
    drop(one);
    assert!(!mentioned_by_a_process(&dir));
    two.ctl(&["status"])
        .expect("the peer keeps its name server");
}

#[test]
#[ignore = "needs RabbitMQ installed: run cargo xtask test"]
fn detached_node_is_found_again() {
    let base = tempfile::tempdir().expect("a temporary directory");
    assert!(matches!(
        Node::attach(base.path()),
        Err(Error::State { .. })
    ));
    let node = Node::builder().dir(base.path()).start().expect("a node");
    let (port, pid) = (node.port(), node.pid());
    let dir = node.detach().expect("detached");
    drop(Node::attach(&dir).expect("attached"));
    let mut node = Node::attach(&dir).expect("attached again");
    assert_eq!((node.port(), node.pid()), (port, pid));
    assert!(accepts(port));
    node.ctl(&["status"]).expect("reachable");
    node.restart().expect("restarted");
    drop(node);
    let mut node = Node::attach(&dir).expect("still there");
    assert!(accepts(port));
    node.ctl(&["status"]).expect("reachable after its restart");
    node.kill().expect("killed by its id");
    assert!(matches!(Node::attach(&dir), Err(Error::NotRunning { .. })));
    node.stop().expect("its name server too");
    assert!(matches!(Node::attach(&dir), Err(Error::State { .. })));
}

#[test]
#[ignore = "needs RabbitMQ installed: run cargo xtask test"]
fn failed_start_quotes_the_node() {
    let error = Node::builder()
        .config("no_such_setting = 1")
        .start()
        .expect_err("a bad setting");
    let text = error.to_string();
    assert!(
        matches!(error, Error::Start { .. }) && text.contains("no_such_setting"),
        "{text}"
    );
}

#[test]
#[ignore = "needs RabbitMQ installed: run cargo xtask test"]
fn nodes_of_a_cluster_know_each_other_and_come_back() {
    let mut cluster = Cluster::start(3, Node::builder).expect("a cluster");
    let declare = "rabbit_amqqueue:declare(rabbit_misc:r(<<\"/\">>, queue, <<\"q\">>), true, false, \
         [{<<\"x-queue-type\">>, longstr, <<\"quorum\">>}], none, <<\"guest\">>).";
    cluster.nodes()[1].ctl(&["eval", declare]).expect("a queue");
    let leader = cluster.leader("q").expect("asked").expect("a leader");
    assert_eq!(cluster.leader("no-such-queue").expect("asked"), None);
    cluster.nodes_mut()[leader].kill().expect("killed");
    let deadline = Instant::now() + Duration::from_secs(30);
    while cluster
        .leader("q")
        .expect("asked")
        .is_none_or(|now| now == leader)
    {
        assert!(Instant::now() < deadline, "the others elect another");
    }
    cluster.nodes_mut()[leader].restart().expect("restarted");
    assert_eq!(cluster.urls().len(), 3);
    let dirs: Vec<_> = cluster
        .nodes()
        .iter()
        .map(|node| node.dir().to_path_buf())
        .collect();
    drop(cluster);
    assert!(dirs.iter().all(|dir| !mentioned_by_a_process(dir)));
}
