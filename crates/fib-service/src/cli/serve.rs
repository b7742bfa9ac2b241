//! `serve`: answers requests until it is told to stop.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fib_service::ServiceOptions;
use rpc_core::{DrainReport, ErrorKind, TransportError};

use super::args::Serve;
use super::backend::Backend;
use super::link::Worker;
use super::output::say;
use super::{Failure, session, signals};

pub(crate) fn run(args: &Serve) -> Result<ExitCode, Failure> {
    let stop = signals::stop()?;
    let backend = Backend::choose(&args.connect)?;
    let link = backend.connect()?;
    let watch = if args.quiet {
        std::convert::identity
    } else {
        print_requests
    };
    let mut worker = session::serve(&link, &args.connect, &args.service, watch)?;
    if backend.is_local() {
        eprintln!("note: `memory` stays in this process, so nobody can call this service");
    }
    say(" [x] Awaiting RPC requests")?;
    let end = wait(&mut worker, || stop.load(Ordering::Relaxed));
    if let End::Told = end {
        eprintln!("stopping: what has begun is finished first; a second signal stops at once");
    }
    let report = worker.drain(grace(&end));
    link.close();
    say(Stopped(report))?;
    match end {
        End::Lost(cause) => Err(Failure::Serve(cause)),
        End::Told if report.unfinished > 0 => Ok(ExitCode::FAILURE),
        End::Told => Ok(ExitCode::SUCCESS),
    }
}

/// Has each request printed as it comes.
pub(crate) fn print_requests(options: ServiceOptions) -> ServiceOptions {
    options.with_observer(|index| {
        // That nobody reads any more is no reason to refuse the request.
        let _ = writeln!(io::stdout().lock(), " [.] fib({index})");
    })
}

/// Why a server stops.
#[derive(Debug)]
enum End {
    /// By a signal.
    Told,
    /// There are no more requests to be had.
    Lost(TransportError),
}

fn wait(worker: &mut Worker, told: impl Fn() -> bool) -> End {
    /// How long a signal may go unnoticed.
    const GLANCE: Duration = Duration::from_millis(100);
    loop {
        if told() {
            return End::Told;
        }
        match worker.ended(GLANCE) {
            None => {}
            Some(Err(cause)) => return End::Lost(cause),
            Some(Ok(())) => {
                let cause = TransportError::new(ErrorKind::Closed, "fib-service", "serve");
                return End::Lost(cause.with_detail("there are no more requests to be had"));
            }
        }
    }
}

/// How long those requests may take that have begun.
fn grace(end: &End) -> Duration {
    match end {
        // Their replies have nowhere to go, and they will be delivered again.
        End::Lost(cause) if cause.kind() == ErrorKind::Closed => Duration::ZERO,
        End::Lost(_) | End::Told => Duration::from_secs(30),
    }
}

struct Stopped(DrainReport);

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let DrainReport {
            stats, unfinished, ..
        } = self.0;
        write!(
            f,
            " [x] Stopped: {} received, {} ok, {} failed, {} refused, {} handed back, {unfinished} unfinished",
            stats.received, stats.ok, stats.failed, stats.refused, stats.requeued
        )
    }
}
