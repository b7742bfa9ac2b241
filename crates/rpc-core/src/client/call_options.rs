//! How one call differs from the others of its client.

use std::time::{Duration, Instant};

use rpc_proto::{Cancellation, ShortString};

use crate::Context;

/// How one call differs from the others of its client.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CallOptions {
    /// Whether it may run twice; none means what the client says of its method.
    pub idempotent: Option<bool>,
    /// The key that all its attempts carry, by which a service knows that they are one. Without one
    /// the client makes it, and it is new for each call.
    pub message_id: Option<ShortString>,
    /// How long it may take, all its attempts together; none means the client's timeout, never "for
    /// ever". Longer than [`max_timeout`](rpc_proto::client::Limits::max_timeout) it is cut to that;
    /// zero, it fails without being sent.
    pub timeout: Option<Duration>,
    /// Whether it waits for a connection and for somebody to listen; none means what the client does.
    pub wait_for_ready: Option<bool>,
    /// By which it is given up.
    pub(crate) cancellation: Option<Cancellation>,
    /// Through how many services it has come.
    pub(crate) hops: u32,
    /// The trace it belongs to.
    pub(crate) traceparent: Option<String>,
    /// When it is of no use any more, whatever its timeout.
    pub(crate) until: Option<Instant>,
}

impl CallOptions {
    /// A call that may take this long.
    #[must_use]
    pub fn timeout(timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
            ..Self::default()
        }
    }

    /// A call that is part of the work on a request: it ends with that, at its deadline at the latest,
    /// and belongs to the same trace. It counts as one service further, so that services which call
    /// each other in a circle come to an end.
    ///
    /// ```
    /// # #[cfg(all(feature = "tokio", feature = "json"))] {
    /// use rpc_core::{CallOptions, Client, Context, Router, Status, Transport};
    ///
    /// fn service<T: Transport>(prices: Client<T>) -> Router {
    ///     Router::new().handle_async_with("total", move |context: Context, amount: u64| {
    ///         let prices = prices.clone();
    ///         async move {
    ///             let options = CallOptions::within(&context);
    ///             let price: u64 = prices.call_with(options, "price", &()).await?;
    ///             Ok::<u64, Status>(price * amount)
    ///         }
    ///     })
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn within(context: &Context) -> Self {
        Self {
            cancellation: Some(context.cancellation.clone()),
            hops: context.hops.saturating_add(1),
            traceparent: context.traceparent().map(str::to_owned),
            until: Some(context.deadline),
            ..Self::default()
        }
    }

    /// Sets by what it can be given up, from another thread or task: cancelled, the call ends at once with
    /// [`GivenUp`](crate::CallError::GivenUp), and a worker of ours that has been running it for a while
    /// is told. In place of that of [`within`](Self::within).
    ///
    /// ```
    /// # #[cfg(all(feature = "blocking", feature = "json"))] {
    /// use std::thread;
    ///
    /// use rpc_core::blocking::{Client, Transport};
    /// use rpc_core::{CallError, CallOptions, Cancellation};
    ///
    /// fn call<T: Transport>(client: Client<T>) -> Result<u64, CallError> {
    ///     let stop = Cancellation::new();
    ///     let options = CallOptions::default().with_cancellation(stop.clone());
    ///     let call = thread::spawn(move || client.call_with(options, "sum", &1_000_000));
    ///     stop.cancel();
    ///     call.join().unwrap()
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn with_cancellation(mut self, cancellation: Cancellation) -> Self {
        self.cancellation = Some(cancellation);
        self
    }

    /// Sets how long it may take.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets whether it may run twice.
    #[must_use]
    pub const fn with_idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = Some(idempotent);
        self
    }

    /// Sets whether it waits for a connection and for somebody to listen.
    #[must_use]
    pub const fn with_wait_for_ready(mut self, wait: bool) -> Self {
        self.wait_for_ready = Some(wait);
        self
    }

    /// Sets the key that all its attempts carry.
    #[must_use]
    pub fn with_message_id(mut self, message_id: ShortString) -> Self {
        self.message_id = Some(message_id);
        self
    }

    /// Sets the trace it belongs to, as the W3C writes it.
    #[must_use]
    pub fn with_traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }
}
