//! What is the same for all rows, so that only the transport and the face differ.

use std::num::{NonZeroU16, NonZeroUsize};
use std::time::Duration;

use anyhow::{Result, ensure};
use fib_service::{Index, ServiceOptions};
use rpc_core::codec::Json;
use rpc_core::{
    CallError, ClientOptions, DeliveryMode, DrainReport, Inbox, QueueKind, QueueSpec, Router,
    ServerOptions, ShortString,
};
use uuid::Uuid;

/// The numbers of calls in flight to compare.
pub const IN_FLIGHT: [usize; 3] = [1, 16, MOST_IN_FLIGHT];

/// The most calls that any row has in flight.
pub const MOST_IN_FLIGHT: usize = 64;

/// Requests that the service holds unsettled: as many as can be in flight.
pub const PREFETCH: NonZeroU16 = NonZeroU16::new(64).unwrap();

/// Threads of an async row's runtime, which service and client share; and threads that the service
/// of a blocking row answers on.
pub const WORKERS: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// How many calls a row makes before it is measured.
pub(crate) const WARM_UP_CALLS: u64 = 1000;

/// How long a row may take over its last requests.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);

/// The method that is called.
pub(crate) const METHOD: &str = fib_service::METHOD;

/// What it is called with: the handler adds up thirty numbers, which is nothing beside a round trip.
pub(crate) const ARGUMENT: Index = Index::new(30);

/// The service as it comes, which answers where a request was received.
pub(crate) fn service() -> Router {
    fib_service::service(ServiceOptions::default())
}

/// A queue of its own for each row, which goes with its consumer.
pub(crate) fn queue() -> Result<ShortString> {
    Ok(ShortString::new(format!(
        "rpc-benches.{}",
        Uuid::new_v4().simple()
    ))?)
}

/// How the service of any row is served.
pub(crate) fn server_options(queue: &ShortString) -> ServerOptions {
    ServerOptions::new(QueueSpec::new(queue.clone(), QueueKind::Transient))
        .with_concurrency(WORKERS)
        .with_prefetch(PREFETCH)
}

/// How the client of any row calls.
pub(crate) fn client_options(queue: ShortString) -> ClientOptions {
    ClientOptions::new(queue)
        .with_codec(Json)
        .with_delivery_mode(DeliveryMode::Transient)
        .with_inbox(Inbox::Exclusive)
}

/// Checks the answer to one call.
pub(crate) fn check(answer: Result<u64, CallError>) -> Result<()> {
    let answer = answer?;
    ensure!(
        answer == 832_040,
        "fib({ARGUMENT}) was answered with {answer}"
    );
    Ok(())
}

/// Checks what the service says of all the calls together.
pub(crate) fn check_drained(report: &DrainReport) -> Result<()> {
    let stats = report.stats;
    let smooth = report.unfinished == 0 && stats.ok == stats.received && stats.replied == stats.ok;
    ensure!(
        smooth,
        "not every request was answered in order: {report:?}"
    );
    Ok(())
}
