//! How a client calls: what service, in which encoding, for how long, and what it tries again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rpc_proto::client::{Limits, RetryPolicy};
use rpc_proto::link::Backoff;
use rpc_proto::{Address, DeliveryMode, ShortString};

use crate::codec::{Codec, Codecs};
use crate::observe::Observers;
use crate::{Inbox, Observer};

/// How a client calls, for all its calls.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientOptions {
    /// How a client that connects by itself comes back.
    pub backoff: Backoff,
    /// The codecs that replies may come in.
    pub codecs: Codecs,
    /// Whether the broker keeps requests over a restart, given a durable queue.
    pub delivery_mode: DeliveryMode,
    /// The methods that may run twice: their calls are tried again when nobody can tell whether they
    /// have run. An empty name stands for the service's default method.
    pub idempotent: BTreeSet<ShortString>,
    /// How replies come back.
    pub inbox: Inbox,
    /// What is refused before it is sent.
    pub limits: Limits,
    /// How often calls are tried again.
    pub retry: RetryPolicy,
    /// Whether a client that connects by itself sends itself a message over each new connection, and
    /// counts as connected only when that has come back. Not over a named exchange: who is held to
    /// one may not write to the default exchange.
    pub self_check: bool,
    /// Where the service listens.
    pub service: Address,
    /// How long a call may take, all its attempts together, when nothing else is said.
    pub timeout: Duration,
    /// Whether calls wait, within their deadlines, for a connection and for somebody to listen.
    /// Otherwise those fail at once.
    pub wait_for_ready: bool,
    /// What calls do while the broker takes nothing from publishers.
    pub when_blocked: WhenBlocked,
    pub(crate) codec: Option<Arc<dyn Codec>>,
    pub(crate) observer: Observers,
}

/// What a call does while the broker, short of memory or disk, takes nothing from publishers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenBlocked {
    /// It fails at once, as far as the transport knows by then.
    FailFast,
    /// It waits, within its deadline.
    #[default]
    Wait,
}

impl WhenBlocked {
    /// Whether a call must not be sent now.
    pub(crate) const fn refuses(self, blocked: bool) -> bool {
        matches!(self, Self::FailFast) && blocked
    }
}

impl ClientOptions {
    /// Calls to the service on this queue: 30 seconds each, persistent, answered through an
    /// exclusive queue, encoded as JSON if that is built in.
    #[must_use]
    pub fn new(queue: ShortString) -> Self {
        Self::to(Address::queue(queue))
    }

    /// Calls to the service at this address.
    #[must_use]
    pub fn to(service: Address) -> Self {
        let codecs = Codecs::built_in();
        let json = ShortString::from_static("application/json");
        let codec = codecs
            .find(Some(&json))
            .or_else(|| codecs.find(None))
            .cloned();
        Self {
            backoff: Backoff::default(),
            codec,
            codecs,
            delivery_mode: DeliveryMode::Persistent,
            idempotent: BTreeSet::new(),
            inbox: Inbox::default(),
            limits: Limits::default(),
            observer: Observers::default(),
            retry: RetryPolicy::default(),
            self_check: true,
            service,
            timeout: Duration::from_secs(30),
            wait_for_ready: false,
            when_blocked: WhenBlocked::default(),
        }
    }

    /// Encodes requests with this codec.
    #[must_use]
    pub fn with_codec(mut self, codec: impl Codec + Clone) -> Self {
        self.codecs = self.codecs.with(codec.clone());
        self.codec = Some(Arc::new(codec));
        self
    }

    /// Sets how long a call may take when nothing else is said.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how replies come back.
    #[must_use]
    pub const fn with_inbox(mut self, inbox: Inbox) -> Self {
        self.inbox = inbox;
        self
    }

    /// Sets whether the broker keeps requests over a restart.
    #[must_use]
    pub const fn with_delivery_mode(mut self, delivery_mode: DeliveryMode) -> Self {
        self.delivery_mode = delivery_mode;
        self
    }

    /// Sets what is refused before it is sent.
    #[must_use]
    pub const fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Declares methods that may run twice.
    ///
    /// # Panics
    ///
    /// When a name is over 255 bytes: no method has it.
    #[must_use]
    pub fn with_idempotent<M: AsRef<str>>(mut self, methods: impl IntoIterator<Item = M>) -> Self {
        for method in methods {
            let name = ShortString::new(method.as_ref());
            assert!(name.is_ok(), "a method's name has 255 bytes at most");
            self.idempotent.extend(name);
        }
        self
    }

    /// Sets how often calls are tried again.
    #[must_use]
    pub const fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Sets whether calls wait for a connection, and for somebody to listen.
    #[must_use]
    pub const fn with_wait_for_ready(mut self, wait: bool) -> Self {
        self.wait_for_ready = wait;
        self
    }

    /// Sets what calls do while the broker takes nothing from publishers.
    #[must_use]
    pub const fn with_when_blocked(mut self, when_blocked: WhenBlocked) -> Self {
        self.when_blocked = when_blocked;
        self
    }

    /// Sets whether the client checks each new connection before it calls over it.
    #[must_use]
    pub const fn with_self_check(mut self, check: bool) -> Self {
        self.self_check = check;
        self
    }

    /// Sets how a client that connects by itself comes back.
    #[must_use]
    pub const fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets who is told what happens.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<impl Observer>) -> Self {
        self.observer = Observers(Some(observer));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "255 bytes")]
    fn a_name_that_no_method_has_is_not_declared_idempotent() {
        let options = ClientOptions::new(ShortString::from_static("q"));
        let _ = options.with_idempotent(["x".repeat(256)]);
    }
}
