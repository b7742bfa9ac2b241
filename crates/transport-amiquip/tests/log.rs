//! What amiquip writes into the log. Alone in its process, which has one logger.
#![cfg(feature = "redact-log")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Mutex;

use rpc_core::ErrorKind;
use support::{url, url_with_password};
use transport_amiquip::{AmiquipConfig, AmiquipTransport};

const CANARY: &str = "C4N4RY";

struct Lines(Mutex<Vec<String>>);

static LINES: Lines = Lines(Mutex::new(Vec::new()));

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{}: {}", record.target(), record.args());
        self.0.lock().unwrap().push(line);
    }

    fn flush(&self) {}
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn no_password_is_logged_even_by_who_asks_for_everything() {
    log::set_logger(&LINES).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    log::info!("the logger works");
    let url = url_with_password(&url(), CANARY);
    let error = AmiquipTransport::connect(AmiquipConfig::new(url)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    let lines = LINES.0.lock().unwrap();
    assert!(lines.iter().any(|line| line.contains("the logger works")));
    let leaks = lines.iter().filter(|line| line.contains(CANARY)).count();
    assert_eq!(leaks, 0);
}
