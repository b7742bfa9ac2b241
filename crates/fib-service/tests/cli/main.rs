//! The program as its users run it: arguments in, lines and exit codes out.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg_attr(
    not(any(feature = "memory", feature = "lapin", feature = "amiquip")),
    allow(dead_code, unused_imports)
)]

#[cfg(any(feature = "lapin", feature = "amiquip"))]
mod broker;
#[cfg(feature = "memory")]
mod memory;
#[cfg(any(feature = "lapin", feature = "amiquip"))]
mod unsteady;

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

#[test]
fn what_cannot_be_is_a_usage_error() {
    for (arguments, said) in [
        (&["call"][..], "<N>"),
        (&["call", "--codec", "json", "abc"], "text"),
        (&["call", "--timeout", "0s", "1"], "--timeout"),
        (&["call", "--queue", "", "1"], "must have a name"),
        (&["load", "--calls", "1", "--duration", "1s"], "--duration"),
        (&["serve", "--concurrency", "0"], "--concurrency"),
        (&["serve", "--transport", "smoke"], "--transport"),
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
fn help_offers_the_transports_that_are_built_in_and_says_how_to_get_the_others() {
    let built_in = [
        ("memory", cfg!(feature = "memory")),
        ("lapin", cfg!(feature = "lapin")),
        ("amiquip", cfg!(feature = "amiquip")),
    ];
    let (long, short) = (run(&["call", "--help"]), run(&["call", "-h"]));
    let (long, short) = (stdout(&long), stdout(&short));
    // The values of `--transport` in the short form: `[possible values: memory, lapin]`.
    let after = short.split("--transport").nth(1).unwrap();
    let offered = after.split("--face").next().unwrap();
    let offered = offered
        .split("[possible values:")
        .nth(1)
        .unwrap_or_default();
    let missing: Vec<_> = built_in
        .iter()
        .filter_map(|(name, there)| (!there).then_some(*name))
        .collect();
    for (name, there) in built_in {
        assert_eq!(offered.contains(name), there, "{name}: {short}");
        assert_eq!(
            long.contains(&format!("- {name}:")),
            there,
            "{name}: {long}"
        );
    }
    let hint = format!("Build with `--features {}`", missing.join(","));
    assert_eq!(long.contains(&hint), !missing.is_empty(), "{long}");
}

#[test]
fn without_exactly_one_transport_to_rabbitmq_it_must_be_named() {
    if cfg!(feature = "lapin") == cfg!(feature = "amiquip") {
        for arguments in [&["serve"][..], &["call", "1"], &["load"]] {
            is_refused(arguments, "--transport");
        }
    }
}
