//! What every transport to RabbitMQ is made from, whichever client library it uses.

use crate::{AmqpUrl, Confirms, DirectReplyTo, Timeouts};

/// How to reach a broker, and what to ask of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AmqpConfig {
    /// Where the broker is, and who we are.
    pub url: AmqpUrl,
    /// Whether the broker confirms each publish.
    pub confirms: Confirms,
    /// The name under which the broker's operator sees the connections.
    ///
    /// amiquip cannot set `connection_name`: there it is seen under `information` in the client
    /// properties, followed by what the connection is for.
    pub connection_name: String,
    /// With which brokers a direct inbox may be opened, and a direct reply address answered.
    ///
    /// lapin does not tell the broker's version, so for [`DirectReplyTo::WhereSafe`] it is asked for
    /// on a connection of its own, which ends before the login, when it is first needed.
    pub direct_reply_to: DirectReplyTo,
    /// How long connecting, a verb, and closing may take.
    pub timeouts: Timeouts,
}

impl AmqpConfig {
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

    /// Sets [`confirms`](Self::confirms).
    #[must_use]
    pub const fn with_confirms(mut self, confirms: Confirms) -> Self {
        self.confirms = confirms;
        self
    }

    /// Sets [`connection_name`](Self::connection_name).
    #[must_use]
    pub fn with_connection_name(mut self, name: impl Into<String>) -> Self {
        self.connection_name = name.into();
        self
    }

    /// Sets [`direct_reply_to`](Self::direct_reply_to).
    #[must_use]
    pub const fn with_direct_reply_to(mut self, direct_reply_to: DirectReplyTo) -> Self {
        self.direct_reply_to = direct_reply_to;
        self
    }

    /// Sets [`timeouts`](Self::timeouts).
    #[must_use]
    pub const fn with_timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }
}
