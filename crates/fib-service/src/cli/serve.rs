//! `serve`: answers requests until it is told to stop.

use std::fmt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fib_service::ServiceOptions;
use rpc_core::proto::link::needs_operator;
use rpc_core::proto::server::Stats;
use rpc_core::{LinkState, TransportError};

use super::args::Serve;
use super::backend::Backend;
use super::link::Worker;
use super::output::{complain, log};
use super::watch::{News, Watch};
use super::{Failure, session, signals};

pub(crate) fn run(args: &Serve) -> Result<ExitCode, Failure> {
    let stop = signals::stop()?;
    let backend = Backend::choose(&args.connect)?;
    let watch = if args.quiet {
        std::convert::identity
    } else {
        print_requests
    };
    let worker = session::serve(&backend.link(), args, watch);
    if backend.is_local() {
        complain("note: `memory` stays in this process, so nobody can call this service");
    }
    let end = wait(&worker, &stop, args.guarantees.once, backend.endpoints());
    if let End::Told = end {
        complain("stopping: what has begun is finished first; a second signal stops at once");
    }
    let report = worker.drain(grace(&end));
    log(Stopped {
        stats: report.stats,
        unfinished: report.unfinished,
    });
    match end {
        End::Lost(cause) => Err(Failure::Serve(cause)),
        End::Told if report.unfinished > 0 => Ok(ExitCode::FAILURE),
        End::Told => Ok(ExitCode::SUCCESS),
    }
}

/// Has each request printed as it comes.
pub(crate) fn print_requests(options: ServiceOptions) -> ServiceOptions {
    options.with_observer(|index| log(format_args!(" [.] fib({index})")))
}

/// Why a server stops.
#[derive(Debug)]
enum End {
    /// By a signal.
    Told,
    /// There are no more requests to be had.
    Lost(TransportError),
}

/// Watches the worker until it stops, and tells whoever looks at the terminal how it is connected.
fn wait(worker: &Worker, stop: &AtomicBool, once: bool, addresses: u32) -> End {
    /// How long a change may go unnoticed.
    const GLANCE: Duration = Duration::from_millis(50);
    let mut watch = Watch::default();
    while !stop.load(Ordering::Relaxed) {
        let state = worker.state();
        match &state {
            LinkState::Connecting {
                failed,
                cause: Some(cause),
                ..
            } => {
                // At the very start it is the command line that is wrong, more likely than not.
                let hopeless = !watch.was_up() && needs_operator(cause.kind());
                // Where a broker is down at the start, another one may be up.
                let all_tried = watch.was_up() || *failed >= addresses;
                if all_tried && (once || hopeless) {
                    return End::Lost(cause.clone());
                }
            }
            LinkState::Lost(cause) => return End::Lost(cause.clone()),
            _ => {}
        }
        if let Some(news) = watch.look(&state) {
            if news.is_worth_telling() {
                complain(&news);
            }
            if let News::Up { .. } = news {
                log(" [x] Awaiting RPC requests");
            }
        }
        thread::sleep(GLANCE);
    }
    End::Told
}

/// How long those requests may take that have begun.
fn grace(end: &End) -> Duration {
    match end {
        // Their replies have nowhere to go, and they will be delivered again.
        End::Lost(_) => Duration::ZERO,
        End::Told => Duration::from_secs(30),
    }
}

/// What became of all that came. Each figure is one of fates that a request may share: one that ran
/// well and whose reply went nowhere is in both. So those that are rare are named where they are not 0.
struct Stopped {
    stats: Stats,
    unfinished: usize,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stats, unfinished } = self;
        write!(
            f,
            " [x] Stopped: {} received, {} ok, {} failed, {} refused, {} dropped",
            stats.received, stats.ok, stats.failed, stats.refused, stats.discarded
        )?;
        for (number, fate) in [
            (stats.cancelled, "cancelled"),
            (stats.joined, "joined with another"),
            (stats.replayed, "answered from the store"),
            (stats.forwarded, "put in quarantine"),
            (stats.unacknowledged, "not acknowledged"),
            (stats.undeliverable, "with a reply that nobody got"),
        ] {
            if number > 0 {
                write!(f, ", {number} {fate}")?;
            }
        }
        let requeued = stats.requeued;
        write!(f, ", {requeued} handed back, {unfinished} unfinished")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_dropped_is_named_and_what_is_rare_where_there_is_any() {
        let mut stats = Stats::default();
        (stats.received, stats.ok, stats.failed) = (53_354, 33_650, 202);
        (stats.refused, stats.discarded, stats.requeued) = (4_849, 14_640, 3);
        let unfinished = 1;
        assert_eq!(
            Stopped { stats, unfinished }.to_string(),
            " [x] Stopped: 53354 received, 33650 ok, 202 failed, 4849 refused, 14640 dropped, \
             3 handed back, 1 unfinished"
        );
        (stats.cancelled, stats.undeliverable) = (2, 7);
        assert_eq!(
            Stopped { stats, unfinished }.to_string(),
            " [x] Stopped: 53354 received, 33650 ok, 202 failed, 4849 refused, 14640 dropped, \
             2 cancelled, 7 with a reply that nobody got, 3 handed back, 1 unfinished"
        );
    }
}
