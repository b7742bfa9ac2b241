//! What a row of a comparison is, and how criterion runs one.

use std::cell::OnceCell;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId};
use rpc_core::{Transport, TransportError, blocking};

use crate::async_row::AsyncRow;
use crate::blocking_row::BlockingRow;
use crate::setting;

/// A service that is up and a client that calls it.
pub(crate) trait Row {
    /// Makes so many calls, `in_flight` of them open at any time, checks every answer, and returns
    /// the time from the first call to the last answer.
    fn round_trips(&self, in_flight: usize, calls: u64) -> Result<Duration>;

    /// Ends everything in order, and checks that the service saw no failure either.
    fn close(self: Box<Self>) -> Result<()>;
}

/// A row that is opened when its first benchmark is to run, so that a filter on the command line
/// keeps the others from connecting.
pub struct Plan {
    name: String,
    open: Box<dyn Fn() -> Result<Box<dyn Row>>>,
}

impl Plan {
    /// A row with the async face in front of what `connect` gives. It is called twice: the service
    /// and the client have a transport each.
    pub fn asynchronous<T: Transport>(
        transport: &str,
        connect: impl AsyncFn() -> Result<T, TransportError> + 'static,
    ) -> Self {
        Self {
            name: format!("{transport}-async"),
            open: Box::new(move || Ok(Box::new(AsyncRow::open(&connect)?))),
        }
    }

    /// A row with the blocking face in front of what `connect` gives. It is called twice: the
    /// service and the client have a transport each.
    pub fn blocking<T: blocking::Transport>(
        transport: &str,
        connect: impl Fn() -> Result<T, TransportError> + 'static,
    ) -> Self {
        Self {
            name: format!("{transport}-blocking"),
            open: Box::new(move || Ok(Box::new(BlockingRow::open(&connect)?))),
        }
    }

    /// Opens the row and makes the calls that nobody measures: they fill pools, grow tables, and
    /// show that the row works with as many calls in flight as it will have.
    fn open(&self) -> Result<Box<dyn Row>> {
        let row = (self.open)()?;
        row.round_trips(setting::MOST_IN_FLIGHT, setting::WARM_UP_CALLS)?;
        Ok(row)
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Runs a row with each of these numbers of calls in flight. One iteration is one call.
///
/// # Panics
///
/// When the row cannot be opened or closed, or a call fails or is answered wrongly: a number that
/// was measured on the way to a failure is of no use.
pub fn bench(group: &mut BenchmarkGroup<'_, WallTime>, plan: &Plan, in_flight: &[usize]) {
    let row = OnceCell::new();
    let fail = |error: anyhow::Error| -> ! { panic!("{}: {error:#}", plan.name) };
    for &in_flight in in_flight {
        group.bench_function(BenchmarkId::new(&plan.name, in_flight), |bencher| {
            // Criterion comes here once for each batch of iterations.
            let row = row.get_or_init(|| plan.open().unwrap_or_else(|error| fail(error)));
            bencher.iter_custom(|calls| {
                row.round_trips(in_flight, calls)
                    .unwrap_or_else(|error| fail(error))
            });
        });
    }
    if let Some(row) = row.into_inner() {
        row.close().unwrap_or_else(|error| fail(error));
    }
}

/// The calls still to make. Callers draw from one heap, so that all of them stay busy to the end.
#[derive(Debug)]
pub(crate) struct Tickets(AtomicU64);

impl Tickets {
    pub(crate) const fn new(calls: u64) -> Self {
        Self(AtomicU64::new(calls))
    }

    /// Takes one; `false` when there are none left.
    pub(crate) fn take(&self) -> bool {
        self.0
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            })
            .is_ok()
    }
}

/// From when to when one caller was at work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
}

impl Span {
    /// From the first beginning to the last end.
    pub(crate) fn over(spans: impl IntoIterator<Item = Self>) -> Duration {
        spans
            .into_iter()
            .reduce(|all, one| Self {
                began: all.began.min(one.began),
                ended: all.ended.max(one.ended),
            })
            .map_or(Duration::ZERO, |all| all.ended - all.began)
    }
}
