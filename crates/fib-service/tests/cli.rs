//! The program as its users run it: arguments in, lines and exit codes out.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg_attr(
    not(any(feature = "memory", feature = "lapin", feature = "amiquip")),
    allow(dead_code, unused_imports)
)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

fn fib_service(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fib-service"));
    command.args(arguments).env_remove("AMQP_URL");
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str]) -> Output {
    fib_service(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn finish(child: Child) -> Output {
    child.wait_with_output().unwrap()
}

/// Succeeds with these lines, in any order.
#[cfg(feature = "memory")]
fn succeeds(arguments: &[&str], lines: &[&str]) {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for line in lines {
        let found = stdout(&output).lines().any(|printed| printed == *line);
        assert!(found, "{line}: {output:?}");
    }
}

/// Ends with a usage error that says this.
fn is_refused(arguments: &[&str], said: &str) {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).contains(said), "{output:?}");
}

#[cfg(feature = "memory")]
mod memory {
    use super::*;

    const FACES: [&str; 2] = ["async", "blocking"];

    #[test]
    fn the_demonstration_prints_what_the_tutorial_prints() {
        succeeds(
            &["demo"],
            &[
                " [x] Awaiting RPC requests",
                " [x] Requesting fib(30)",
                " [.] fib(30)",
                " [.] Got 832040",
            ],
        );
        for face in FACES {
            let slow = ["--algorithm", "naive", "--delay-ms", "1"];
            let arguments = [&["demo", "--face", face, "10", "20"][..], &slow].concat();
            succeeds(&arguments, &[" [.] Got 55", " [.] Got 6765"]);
        }
    }

    #[test]
    fn calls_are_printed_in_order_by_every_codec_and_face() {
        for face in FACES {
            for codec in ["text", "json", "bincode"] {
                let output = run(&[
                    "call",
                    "--transport",
                    "memory",
                    "--face",
                    face,
                    "--codec",
                    codec,
                    "186",
                    "0",
                    "30",
                ]);
                let printed = stdout(&output);
                let got: Vec<_> = printed
                    .lines()
                    .filter(|line| line.contains("Got"))
                    .collect();
                assert_eq!(
                    got,
                    [
                        " [.] Got 332825110087067562321196029789634457848",
                        " [.] Got 0",
                        " [.] Got 832040"
                    ],
                    "{output:?}"
                );
            }
        }
    }

    #[test]
    fn a_call_that_fails_says_why_and_whether_it_ran_and_the_others_succeed() {
        let output = run(&["call", "--transport", "memory", "30", "187", "-1", "10"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stdout(&output).contains("Got 832040") && stdout(&output).contains("Got 55"));
        let errors = stderr(&output);
        let errors: Vec<_> = errors.lines().collect();
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors[0].starts_with("error: OUT_OF_RANGE (executed): fib(187): "));
        assert!(errors[1].starts_with("error: INVALID_ARGUMENT (not executed): fib(-1): "));
    }

    #[test]
    fn json_has_one_object_a_line_with_a_result_or_an_error() {
        let huge = "9".repeat(100_000);
        let output = run(&["call", "--transport", "memory", "--json", "186", &huge]);
        assert_eq!(output.status.code(), Some(1));
        let lines: Vec<serde_json::Value> = stdout(&output)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines[0]["n"], "186");
        assert_eq!(
            lines[0]["result"],
            "332825110087067562321196029789634457848"
        );
        assert_eq!(lines[1]["error"]["code"], "OUT_OF_RANGE");
        assert_eq!(lines[1]["error"]["certainty"], "executed");
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn a_call_ends_by_its_timeout() {
        for face in FACES {
            let begun = Instant::now();
            let output = run(&[
                "call",
                "--transport",
                "memory",
                "--face",
                face,
                "--delay-ms",
                "60000",
                "--timeout",
                "1s",
                "1",
            ]);
            assert!(begun.elapsed() < Duration::from_secs(30));
            assert_eq!(output.status.code(), Some(1));
            let said = "error: DEADLINE_EXCEEDED (maybe executed): fib(1): ";
            assert!(stderr(&output).starts_with(said), "{output:?}");
        }
    }

    #[test]
    fn load_checks_every_answer_and_reports_in_one_line_of_json() {
        for face in FACES {
            let output = run(&[
                "load",
                "--transport",
                "memory",
                "--face",
                face,
                "--calls",
                "500",
                "--inflight",
                "8",
                "--json",
            ]);
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
            assert_eq!(report["transport"], "memory");
            assert_eq!(report["face"], face);
            assert_eq!(
                (&report["calls"], &report["ok"]),
                (&500.into(), &500.into())
            );
            assert_eq!(
                (&report["errors"], &report["inflight"]),
                (&0.into(), &8.into())
            );
            let number = |name: &str| report[name].as_f64().unwrap();
            assert!(number("p50_us") > 0.0 && number("p50_us") <= number("max_us"));
            assert!(number("calls_per_sec") > 0.0 && number("secs") > 0.0);
            for name in ["p90_us", "p99_us", "p999_us", "cpu_us_per_call"] {
                number(name);
            }
        }
    }

    #[test]
    fn load_counts_what_fails_by_its_code() {
        let output = run(&[
            "load",
            "--transport",
            "memory",
            "--algorithm",
            "naive",
            "--max-n",
            "5",
            "--delay-ms",
            "60000",
            "--timeout",
            "50ms",
            "--calls",
            "3",
        ]);
        // The call that goes ahead fails already.
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        // Whose clock is first decides whether the worker has been heard.
        assert!(stderr(&output).starts_with("error: DEADLINE_EXCEEDED ("));
    }

    #[test]
    fn load_ends_early_by_a_signal_and_prints_what_it_has() {
        let child = fib_service(&[
            "load",
            "--transport",
            "memory",
            "--duration",
            "10m",
            "--inflight",
            "2",
        ])
        .spawn()
        .unwrap();
        // Before it watches for signals one would just kill it.
        wait_until_watching(&child);
        signal(&child, Signal::INT);
        let output = finish(child);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(stdout(&output).contains("calls "), "{output:?}");
    }

    #[test]
    fn serve_stops_by_a_signal_in_good_order() {
        for (face, which) in [("async", Signal::TERM), ("blocking", Signal::INT)] {
            let mut child = fib_service(&["serve", "--transport", "memory", "--face", face])
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            assert_eq!(first, " [x] Awaiting RPC requests");
            signal(&child, which);
            let last = lines.next().unwrap().unwrap();
            assert!(last.starts_with(" [x] Stopped: 0 received"), "{last}");
            assert_eq!(finish(child).status.code(), Some(0));
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn serve_outlives_a_log_that_cannot_be_written_and_says_so_once() {
        let full = || std::fs::File::create("/dev/full").unwrap();
        for face in FACES {
            let serve = || fib_service(&["serve", "--transport", "memory", "--face", face]);
            let mut child = serve().stdout(full()).spawn().unwrap();
            let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
            let warned = |line: &String| line.starts_with("cannot write to standard output");
            // The first line of its log: it is up.
            lines.by_ref().map(Result::unwrap).find(warned).unwrap();
            signal(&child, Signal::TERM);
            let rest: Vec<_> = lines.map(Result::unwrap).collect();
            assert!(!rest.iter().any(warned), "{rest:?}");
            assert_eq!(finish(child).status.code(), Some(0));
            // Nor does it need the other one.
            let mut child = serve().stderr(full()).spawn().unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            lines.next().unwrap().unwrap();
            signal(&child, Signal::TERM);
            assert!(lines.next().unwrap().unwrap().contains("Stopped"));
            assert_eq!(finish(child).status.code(), Some(0));
        }
    }

    /// Waits until the process catches SIGINT, as Linux tells.
    fn wait_until_watching(child: &Child) {
        const SIGINT_BIT: u64 = 1 << 1;
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
            if caught & SIGINT_BIT != 0 {
                return;
            }
            assert!(Instant::now() < deadline, "it never watches for signals");
            std::thread::yield_now();
        }
    }

    #[test]
    fn demo_never_leaves_the_process() {
        is_refused(&["demo", "--transport", "lapin"], "stays in this process");
    }
}

#[test]
fn what_cannot_be_is_a_usage_error() {
    for (arguments, said) in [
        (&["call"][..], "<N>"),
        (&["call", "--codec", "json", "abc"], "text"),
        (&["call", "--timeout", "0s", "1"], "--timeout"),
        (&["call", "--queue", "", "1"], "must have a name"),
        (&["load", "--calls", "1", "--duration", "1s"], "--duration"),
        (&["serve", "--concurrency", "0"], "--concurrency"),
        (&["serve", "--transport", "smoke"], "memory"),
        (&["frobnicate"], "frobnicate"),
    ] {
        is_refused(arguments, said);
    }
}

#[test]
fn a_transport_that_is_not_built_in_names_its_feature() {
    let built_in = [
        ("memory", cfg!(feature = "memory")),
        ("lapin", cfg!(feature = "lapin")),
        ("amiquip", cfg!(feature = "amiquip")),
    ];
    for (name, _) in built_in.iter().filter(|(_, there)| !there) {
        let feature = format!("--features {name}");
        is_refused(&["call", "--transport", name, "1"], &feature);
    }
}

#[test]
fn without_exactly_one_transport_to_rabbitmq_it_must_be_named() {
    if cfg!(feature = "lapin") == cfg!(feature = "amiquip") {
        for arguments in [&["serve"][..], &["call", "1"], &["load"]] {
            is_refused(arguments, "--transport");
        }
    }
}

#[cfg(any(feature = "lapin", feature = "amiquip"))]
mod broker {
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
    type Row = (&'static str, &'static str);

    fn rows() -> impl Iterator<Item = Row> {
        let pair = |transport: &&'static str| {
            let transport = *transport;
            faces().iter().map(move |face| (transport, *face))
        };
        TRANSPORTS.iter().flat_map(pair)
    }

    fn on_broker(command: &str, (transport, face): Row, queue: &str) -> Command {
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
}
