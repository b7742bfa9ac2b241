//! Over RabbitMQ, and what is said where there is none.

use super::*;

const TRANSPORTS: &[&str] = &[
    #[cfg(feature = "lapin")]
    "lapin",
    #[cfg(feature = "amiquip")]
    "amiquip",
];

fn faces() -> &'static [&'static str] {
    if cfg!(feature = "async") {
        &["async", "blocking"]
    } else {
        &["blocking"]
    }
}

#[test]
fn a_bad_url_is_a_usage_error_that_quotes_no_password() {
    for transport in TRANSPORTS {
        for url in ["amqp://u:12/CANARY@h", "CANARY", "http://u:CANARY@h"] {
            let output = run(&["call", "--transport", transport, "--url", url, "1"]);
            assert_eq!(output.status.code(), Some(2), "{output:?}");
            assert!(!stderr(&output).contains("CANARY"), "{output:?}");
        }
    }
}

#[test]
fn a_password_that_is_not_encoded_is_told_how_to_be() {
    for transport in TRANSPORTS {
        for delimiter in ["/", "?", "#"] {
            let url = format!("amqp://u:CANARY{delimiter}x@h/v");
            let output = run(&["call", "--transport", transport, "--url", &url, "1"]);
            assert_eq!(output.status.code(), Some(2), "{output:?}");
            let said = stderr(&output);
            assert!(said.contains("%2F for `/`"), "{said}");
            assert!(!said.contains("CANARY"), "{said}");
        }
    }
}

#[test]
fn no_broker_is_known_within_five_seconds_and_no_password_is_shown() {
    // Bound and never accepted from, and one that nobody has.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().port();
    for transport in TRANSPORTS {
        for face in faces() {
            for port in [1, silent] {
                let url = format!("amqp://me:CANARY@127.0.0.1:{port}/%2f");
                let begun = Instant::now();
                let output = fib_service(&["call", "--transport", transport, "--face", face])
                    .args(["30"])
                    .env("AMQP_URL", url)
                    .output()
                    .unwrap();
                assert!(begun.elapsed() < Duration::from_secs(6), "{output:?}");
                assert_eq!(output.status.code(), Some(1), "{output:?}");
                let said = stderr(&output);
                assert!(
                    said.starts_with("error: UNAVAILABLE (not executed): "),
                    "{said}"
                );
                assert_eq!(said.lines().count(), 1, "{said}");
                assert!(!said.contains("CANARY"), "{said}");
            }
        }
    }
}

#[test]
fn a_call_that_cannot_connect_ends_by_its_timeout() {
    // Bound and never accepted from.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("amqp://127.0.0.1:{}", silent.local_addr().unwrap().port());
    for transport in TRANSPORTS {
        for (face, wait, urls) in faces()
            .iter()
            .flat_map(|face| [(face, "no", 1), (face, "no", 2), (face, "yes", 1)])
        {
            let begun = Instant::now();
            let output = fib_service(&["call", "--transport", transport, "--face", face])
                .args(["--timeout", "500ms", "--wait-for-ready", wait, "30"])
                .env("AMQP_URL", vec![&*silent; urls].join(" "))
                .output()
                .unwrap();
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(3), "{took:?} {output:?}");
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            let said = stderr(&output);
            assert!(
                said.starts_with("error: UNAVAILABLE (not executed): "),
                "{said}"
            );
        }
    }
}

#[test]
fn json_says_for_each_number_that_there_was_no_connection() {
    for transport in TRANSPORTS {
        let output = fib_service(&["call", "--transport", transport, "--json", "30", "31"])
            .env("AMQP_URL", "amqp://me:CANARY@127.0.0.1:1")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let printed = stdout(&output);
        assert!(!printed.contains("CANARY"), "{printed}");
        let lines: Vec<serde_json::Value> = printed
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2, "{printed}");
        for (line, n) in lines.iter().zip(["30", "31"]) {
            assert_eq!(line["n"], n);
            let error = &line["error"];
            assert_eq!(error["code"], "UNAVAILABLE", "{line}");
            assert_eq!(error["certainty"], "not executed", "{line}");
            assert_eq!(error["reason"], "BROKER_DOWN", "{line}");
            let said = error["message"].as_str().unwrap();
            assert!(said.contains("127.0.0.1:1"), "{line}");
        }
    }
}

#[test]
fn options_of_the_service_do_not_go_with_a_call() {
    for transport in TRANSPORTS {
        let arguments = ["call", "--transport", transport, "--delay-ms", "1", "1"];
        is_refused(&arguments, "serve");
    }
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn served_over_one_transport_and_called_over_every_other() {
    for serving in rows() {
        let queue = format!("fib-service.cli.{}.{}", serving.0, serving.1);
        let mut server = on_broker("serve", serving, &queue).spawn().unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        assert_eq!(first, " [x] Awaiting RPC requests");
        for calling in rows() {
            let call = on_broker("call", calling, &queue)
                .args(["--codec", "json", "30", "187"])
                .output()
                .unwrap();
            assert!(stdout(&call).contains(" [.] Got 832040"), "{call:?}");
            assert!(
                stderr(&call).contains("OUT_OF_RANGE (executed)"),
                "{call:?}"
            );
            let load = on_broker("load", calling, &queue)
                .args(["--calls", "200", "--inflight", "8", "--json"])
                .output()
                .unwrap();
            assert_eq!(load.status.code(), Some(0), "{load:?}");
        }
        signal(&server, Signal::TERM);
        let last = lines.last().unwrap().unwrap();
        assert!(last.ends_with(" 0 handed back, 0 unfinished"), "{last}");
        assert_eq!(finish(server).status.code(), Some(0));
    }
}

#[test]
#[cfg(target_os = "linux")]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn requests_are_answered_while_the_disk_of_the_log_is_full() {
    for row in rows() {
        let queue = format!("fib-service.cli.full.{}.{}", row.0, row.1);
        let full = std::fs::File::create("/dev/full").unwrap();
        let mut server = on_broker("serve", row, &queue)
            .stdout(full)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
        let warning = lines.next().unwrap().unwrap();
        assert!(warning.starts_with("cannot write"), "{warning}");
        let call = on_broker("call", row, &queue)
            .args(["30", "31"])
            .output()
            .unwrap();
        assert_eq!(call.status.code(), Some(0), "{call:?}");
        signal(&server, Signal::TERM);
        assert_eq!(finish(server).status.code(), Some(0));
    }
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn an_address_that_is_dead_ends_nothing_while_another_one_is_alive() {
    for row in rows() {
        let queue = format!("fib-service.cli.addresses.{}.{}", row.0, row.1);
        // Which address comes first is left to chance.
        let mut server = beside_a_dead_address("serve", row, &queue)
            .arg("--once")
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), " [x] Awaiting RPC requests");
        for _ in 0..6 {
            let call = beside_a_dead_address("call", row, &queue)
                .arg("30")
                .output()
                .unwrap();
            assert!(stdout(&call).contains(" [.] Got 832040"), "{call:?}");
        }
        signal(&server, Signal::TERM);
        assert_eq!(finish(server).status.code(), Some(0));
    }
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn that_nobody_listens_is_known_before_the_timeout() {
    for row in rows() {
        let begun = Instant::now();
        let call = on_broker("call", row, "fib-service.cli.nobody")
            .arg("30")
            .output()
            .unwrap();
        let said = stderr(&call);
        assert!(
            said.starts_with("error: UNAVAILABLE (not executed): "),
            "{said}"
        );
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_request_that_has_begun_is_answered_before_the_server_stops() {
    for row in rows() {
        let queue = format!("fib-service.cli.drain.{}.{}", row.0, row.1);
        let mut server = on_broker("serve", row, &queue)
            .args(["--delay-ms", "500"])
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        lines.next().unwrap().unwrap();
        let call = on_broker("call", row, &queue).arg("30").spawn().unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), " [.] fib(30)");
        signal(&server, Signal::TERM);
        let call = finish(call);
        assert!(stdout(&call).contains(" [.] Got 832040"), "{call:?}");
        assert_eq!(finish(server).status.code(), Some(0));
    }
}

/// Transport and face.
pub(super) type Row = (&'static str, &'static str);

pub(super) fn rows() -> impl Iterator<Item = Row> {
    let pair = |transport: &&'static str| {
        let transport = *transport;
        faces().iter().map(move |face| (transport, *face))
    };
    TRANSPORTS.iter().flat_map(pair)
}

pub(super) fn on_broker(command: &str, (transport, face): Row, queue: &str) -> Command {
    let url = std::env::var("RPC_AMQP_URL").expect("RPC_AMQP_URL names the broker");
    let mut command = fib_service(&[command, "--transport", transport, "--face", face]);
    command.args(["--queue", queue, "--queue-type", "transient"]);
    command.env("AMQP_URL", url);
    command
}

/// Two addresses, and nobody listens at one.
fn beside_a_dead_address(command: &str, row: Row, queue: &str) -> Command {
    let mut command = on_broker(command, row, queue);
    let url = std::env::var("RPC_AMQP_URL").unwrap();
    command.env("AMQP_URL", format!("amqp://127.0.0.1:1 {url}"));
    command
}
