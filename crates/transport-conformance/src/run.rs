//! Runs one case under a watchdog.

use std::panic;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::backend::Backend;
use crate::cases::{CASES, Case};

/// How long a case may take. Most take milliseconds.
pub const CASE_LIMIT: Duration = Duration::from_secs(60);

/// Runs a case of the suite on one row. [`suite!`](crate::suite) calls this for each of them.
///
/// # Panics
///
/// When the case fails, when it takes longer than [`CASE_LIMIT`], and when there is no such case.
pub fn run(case: &str, backend: impl Backend + 'static) {
    let Some(&(name, body)) = CASES.iter().find(|(name, _)| *name == case) else {
        panic!("there is no case {case}");
    };
    watch((name, body), backend, CASE_LIMIT);
}

/// The names of all cases, as `group::case`.
pub fn cases() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|&(name, _)| name)
}

fn watch((name, body): (&'static str, Case), backend: impl Backend + 'static, limit: Duration) {
    let (done, over) = mpsc::channel::<()>();
    let running = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // Dropped on every way out, which is the news.
            let _done = done;
            body(&backend);
        })
        .expect("the system has threads left");
    match over.recv_timeout(limit) {
        Ok(()) | Err(RecvTimeoutError::Disconnected) => {
            if let Err(cause) = running.join() {
                panic::resume_unwind(cause);
            }
        }
        // The thread is left behind: nothing can end it, and the other cases go on.
        Err(RecvTimeoutError::Timeout) => panic!("{name} did not end within {limit:?}"),
    }
}

#[cfg(test)]
mod tests {
    use transport_memory::MemoryBroker;

    use super::*;
    use crate::BlockingRow;

    fn row() -> BlockingRow {
        let broker = MemoryBroker::new();
        BlockingRow::new(move || Ok(broker.connect()))
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = cases().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    #[should_panic(expected = "there is no case")]
    fn a_name_that_is_no_case_fails() {
        run("publish::forgotten", row());
    }

    #[test]
    #[should_panic(expected = "no broker today")]
    fn a_case_that_panics_fails_with_its_own_words() {
        let refuse = || {
            Err::<transport_memory::MemoryTransport, _>(
                rpc_core::TransportError::new(rpc_core::ErrorKind::Connect, "none", "connect")
                    .with_detail("no broker today"),
            )
        };
        run(
            "publish::what_is_published_is_consumed",
            BlockingRow::new(refuse),
        );
    }

    #[test]
    fn a_case_that_hangs_fails_by_name_and_frees_the_run() {
        let hangs = |_: &dyn Backend| thread::sleep(Duration::from_secs(3600));
        let failed = panic::catch_unwind(|| {
            watch(("group::hangs", hangs), row(), Duration::from_millis(20));
        });
        let said = failed.expect_err("it does not end");
        let said = said.downcast_ref::<String>().expect("a sentence");
        assert!(said.contains("group::hangs did not end"), "{said}");
    }
}
