//! How an [`AmiquipTransport`](crate::AmiquipTransport) is set up.

use amqp_broker::{AmqpUrl, Confirms, DirectReplyTo, Timeouts};

/// What an [`AmiquipTransport`](crate::AmiquipTransport) needs to know.
#[derive(Clone, Debug)]
pub struct AmiquipConfig {
    pub(crate) url: AmqpUrl,
    pub(crate) confirms: Confirms,
    pub(crate) connection_name: String,
    pub(crate) direct_reply_to: DirectReplyTo,
    pub(crate) timeouts: Timeouts,
}

impl AmiquipConfig {
    /// For the broker at `url`, with confirms on, the URL's own timeouts, and no direct reply-to
    /// where it is dangerous.
    #[must_use]
    pub fn new(url: AmqpUrl) -> Self {
        Self {
            confirms: Confirms::default(),
            connection_name: "rpc".to_owned(),
            direct_reply_to: DirectReplyTo::default(),
            timeouts: Timeouts::of(&url),
            url,
        }
    }

    /// Sets whether publishes are confirmed.
    #[must_use]
    pub const fn with_confirms(mut self, confirms: Confirms) -> Self {
        self.confirms = confirms;
        self
    }

    /// Sets what the connections call themselves.
    ///
    /// amiquip cannot set `connection_name`, so this is seen under `information` in the client
    /// properties, followed by what the connection is for.
    #[must_use]
    pub fn with_connection_name(mut self, name: impl Into<String>) -> Self {
        self.connection_name = name.into();
        self
    }

    /// Sets with which brokers a direct inbox may be opened, and a direct reply address answered.
    #[must_use]
    pub const fn with_direct_reply_to(mut self, direct_reply_to: DirectReplyTo) -> Self {
        self.direct_reply_to = direct_reply_to;
        self
    }

    /// Sets how long connecting, a verb, and closing may take.
    #[must_use]
    pub const fn with_timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }
}
