//! Connections that are lost while a command runs, and what it says of them.

use fault_proxy::{Direction, End, Proxy};

use super::broker::{on_broker, rows};
use super::*;

/// A proxy before the broker, and the URL of the broker by way of it.
fn proxied() -> (Proxy, String) {
    let url = std::env::var("RPC_AMQP_URL").expect("RPC_AMQP_URL names the broker");
    let direct: amqp_broker::AmqpUrl = url.parse().unwrap();
    let proxy = Proxy::to((direct.host(), direct.port())).unwrap();
    let (who, rest) = url.split_once('@').expect("the URL names a user");
    let path = rest.find('/').map_or("", |slash| &rest[slash..]);
    let url = format!("{who}@{}{path}", proxy.address());
    (proxy, url)
}

fn wait_until(what: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !what() {
        assert!(Instant::now() < deadline, "it never happens");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A server that is up, and its log.
fn serving(row: (&'static str, &'static str), queue: &str) -> Child {
    let mut server = on_broker("serve", row, queue)
        .arg("--quiet")
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.as_mut().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), " [x] Awaiting RPC requests");
    server
}

/// Waits until calls go through the proxy.
fn wait_for_load(proxy: &Proxy) {
    const SOME: u64 = 200_000;
    wait_until(|| proxy.carried(Direction::Up) > SOME);
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_load_that_loses_its_connection_says_that_it_was_cut_short() {
    for row in rows() {
        let queue = format!("fib-service.cli.cut.{}.{}", row.0, row.1);
        let server = serving(row, &queue);
        let (proxy, url) = proxied();
        let load = on_broker("load", row, &queue)
            .args(["--retry", "no", "--duration", "10m", "--json"])
            .env("AMQP_URL", url)
            .spawn()
            .unwrap();
        wait_for_load(&proxy);
        proxy.end_all(End::Reset);
        let output = finish(load);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(report["cut_short"], "connection lost", "{report}");
        let said = stderr(&output);
        let cut = |line: &str| line.starts_with("error: cut short after ");
        assert!(said.lines().any(cut), "{said}");
        assert!(said.contains(" of 600 s: UNAVAILABLE "), "{said}");
        signal(&server, Signal::TERM);
        assert_eq!(finish(server).status.code(), Some(0));
    }
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_load_that_waits_says_that_it_is_connected_again_and_is_not_cut_short() {
    for row in rows() {
        let queue = format!("fib-service.cli.wait.{}.{}", row.0, row.1);
        let server = serving(row, &queue);
        let (proxy, url) = proxied();
        let mut load = on_broker("load", row, &queue)
            .args(["--wait-for-ready", "yes", "--duration", "10m", "--json"])
            .env("AMQP_URL", url)
            .spawn()
            .unwrap();
        wait_for_load(&proxy);
        proxy.end_all(End::Reset);
        let mut told = BufReader::new(load.stderr.take().unwrap()).lines();
        let again = |line: &String| line.ends_with("connected again");
        told.by_ref().map(Result::unwrap).find(again).unwrap();
        signal(&load, Signal::INT);
        let output = finish(load);
        let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(report["cut_short"], "signal", "{report}");
        signal(&server, Signal::TERM);
        assert_eq!(finish(server).status.code(), Some(0));
    }
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_server_says_that_it_is_connected_again() {
    for row in rows() {
        let queue = format!("fib-service.cli.again.{}.{}", row.0, row.1);
        let (proxy, url) = proxied();
        let mut server = on_broker("serve", row, &queue)
            .env("AMQP_URL", url)
            .spawn()
            .unwrap();
        let mut log = BufReader::new(server.stdout.take().unwrap()).lines();
        let awaiting = " [x] Awaiting RPC requests";
        assert_eq!(log.next().unwrap().unwrap(), awaiting);
        proxy.refuse(true);
        proxy.end_all(End::Reset);
        let mut told = BufReader::new(server.stderr.take().unwrap()).lines();
        let first = told.next().unwrap().unwrap();
        assert!(
            first.starts_with("not connected, trying again: "),
            "{first}"
        );
        proxy.heal();
        let down = |line: &String| line.starts_with("not connected");
        let next = told.by_ref().map(Result::unwrap).find(|line| !down(line));
        assert_eq!(next.unwrap(), "connected again");
        assert_eq!(log.next().unwrap().unwrap(), awaiting);
        signal(&server, Signal::TERM);
        assert_eq!(finish(server).status.code(), Some(0));
    }
}
