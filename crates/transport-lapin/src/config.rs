//! What a transport is made from.

use amqp_broker::{AmqpUrl, Confirms, DirectReplyTo, Timeouts};

/// How to reach a broker through lapin.
#[derive(Clone, Debug)]
pub struct LapinConfig {
    pub(crate) url: AmqpUrl,
    pub(crate) confirms: Confirms,
    pub(crate) connection_name: String,
    pub(crate) direct_reply_to: DirectReplyTo,
    pub(crate) timeouts: Timeouts,
}

impl LapinConfig {
    /// The defaults for the broker at `url`.
    #[must_use]
    pub fn new(url: AmqpUrl) -> Self {
        let timeouts = Timeouts::of(&url);
        Self {
            url,
            confirms: Confirms::default(),
            connection_name: "rpc".to_owned(),
            direct_reply_to: DirectReplyTo::default(),
            timeouts,
        }
    }

    /// Whether the broker confirms each publish.
    #[must_use]
    pub const fn with_confirms(mut self, confirms: Confirms) -> Self {
        self.confirms = confirms;
        self
    }

    /// The name under which the broker's operator sees the connections.
    #[must_use]
    pub fn with_connection_name(mut self, name: impl Into<String>) -> Self {
        self.connection_name = name.into();
        self
    }

    /// With which brokers a direct inbox may be opened, and a direct reply be sent.
    ///
    /// lapin does not tell the broker's version, so for [`DirectReplyTo::WhereSafe`] it is asked
    /// for on a connection of its own, which ends before the login, when it is first needed.
    #[must_use]
    pub const fn with_direct_reply_to(mut self, direct_reply_to: DirectReplyTo) -> Self {
        self.direct_reply_to = direct_reply_to;
        self
    }

    /// How long each kind of verb may take.
    #[must_use]
    pub const fn with_timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }
}
