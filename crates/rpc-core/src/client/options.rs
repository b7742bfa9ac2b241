//! How a client calls: what service, in which encoding, for how long.

use std::sync::Arc;
use std::time::Duration;

use rpc_proto::client::Limits;
use rpc_proto::{Address, DeliveryMode, ShortString};

use crate::Inbox;
use crate::codec::{Codec, Codecs};

/// How a client calls, for all its calls.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientOptions {
    /// The codecs that replies may come in.
    pub codecs: Codecs,
    /// Whether the broker keeps requests over a restart, given a durable queue.
    pub delivery_mode: DeliveryMode,
    /// How replies come back.
    pub inbox: Inbox,
    /// What is refused before it is sent.
    pub limits: Limits,
    /// Where the service listens.
    pub service: Address,
    /// How long a call may take when nothing else is said.
    pub timeout: Duration,
    pub(crate) codec: Option<Arc<dyn Codec>>,
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
            codec,
            codecs,
            delivery_mode: DeliveryMode::Persistent,
            inbox: Inbox::default(),
            limits: Limits::default(),
            service,
            timeout: Duration::from_secs(30),
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
}

/// How one call differs from the others of its client.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct CallOptions {
    /// How long it may take; none means the client's timeout, never "for ever".
    pub timeout: Option<Duration>,
}

impl CallOptions {
    /// A call that may take this long.
    #[must_use]
    pub const fn timeout(timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
        }
    }
}
