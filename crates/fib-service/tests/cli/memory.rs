//! What needs no broker: the demonstration, calls, load and signals inside one process.

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
    assert!(stderr(&output).contains("cut short after"), "{output:?}");
    assert!(stderr(&output).contains("by a signal"), "{output:?}");
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
