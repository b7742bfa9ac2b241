//! Hooks for metrics and logs: what happens is told, and nothing waits for the listener.

#[cfg(any(feature = "tokio", feature = "blocking"))]
use std::fmt;
#[cfg(any(feature = "tokio", feature = "blocking"))]
use std::sync::Arc;
use std::time::Duration;

use crate::proto::link::LinkState;
use crate::{CallError, Status};

/// Told what happens to a client or a server, as it happens.
///
/// Every method does nothing by default. They are called on the task or thread on which it happened,
/// with no lock held: return soon, and do not panic.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use rpc_core::proto::link::LinkState;
/// use rpc_core::{CallEvent, ClientOptions, Observer, ShortString};
///
/// #[derive(Default)]
/// struct Metrics {
///     failed: AtomicU64,
///     retried: AtomicU64,
/// }
///
/// impl Observer for Metrics {
///     fn link_changed(&self, state: &LinkState) {
///         if let LinkState::Connecting { failed, cause: Some(cause), .. } = state {
///             eprintln!("not connected, {failed} attempts failed: {cause}");
///         }
///     }
///
///     fn call_ended(&self, call: &CallEvent<'_>) {
///         self.failed.fetch_add(u64::from(call.error.is_some()), Ordering::Relaxed);
///         self.retried.fetch_add(u64::from(call.attempts > 1), Ordering::Relaxed);
///     }
/// }
///
/// let metrics = Arc::new(Metrics::default());
/// let options = ClientOptions::new(ShortString::from_static("numbers"))
///     .with_observer(metrics.clone());
/// # let _ = options;
/// ```
pub trait Observer: Send + Sync + 'static {
    /// The connection came, went, or failed to come.
    fn link_changed(&self, state: &LinkState) {
        let _ = state;
    }

    /// A call of a client has ended, with all its attempts.
    fn call_ended(&self, call: &CallEvent<'_>) {
        let _ = call;
    }

    /// A server is done with a request: answered, acknowledged without an answer, or handed back.
    ///
    /// Told once of deliveries that were answered together, and of what is passed on to quarantine when
    /// it is done with there. What is lost with the process or its runtime, nobody is told of.
    fn request_ended(&self, request: &RequestEvent<'_>) {
        let _ = request;
    }
}

/// How a call went.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CallEvent<'a> {
    /// How many attempts it took; none when there was no connection to make one on.
    pub attempts: u32,
    /// Why it has no result, if it has none and its caller waited for one.
    pub error: Option<&'a CallError>,
    /// Whether its caller gave it up.
    pub given_up: bool,
    /// The method; empty for the service's default method.
    pub method: &'a str,
    /// From its beginning to its end.
    pub took: Duration,
}

/// How a request went.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RequestEvent<'a> {
    /// The method as the request names it; empty for the service's default method.
    pub method: &'a str,
    /// Whether its handler began.
    pub ran: bool,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// The error that it was answered with, if it was.
    pub status: Option<&'a Status>,
    /// From its arrival to its settlement.
    pub took: Duration,
}

/// An observer, if there is one, in options that can be printed.
#[cfg(any(feature = "tokio", feature = "blocking"))]
#[derive(Clone, Default)]
pub(crate) struct Observers(pub(crate) Option<Arc<dyn Observer>>);

#[cfg(any(feature = "tokio", feature = "blocking"))]
impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Some" } else { "None" })
    }
}
