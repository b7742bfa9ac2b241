//! How long each kind of verb may take.

use std::time::Duration;

use crate::AmqpUrl;

/// How long each kind of verb may take before its socket is cut.
///
/// Neither client library bounds anything by itself, so these are the only bounds there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// Name resolution, TCP, TLS, login and the opening of the virtual host together, per
    /// connection attempt. RabbitMQ gives up on a handshake of its own after ten seconds.
    pub connect: Duration,
    /// Any verb that the broker answers.
    pub verb: Duration,
    /// An orderly goodbye.
    pub close: Duration,
}

impl Timeouts {
    /// The defaults, with `connection_timeout` of the URL for [`Timeouts::connect`] where given.
    #[must_use]
    pub fn of(url: &AmqpUrl) -> Self {
        let defaults = Self::default();
        Self {
            connect: url.connection_timeout().unwrap_or(defaults.connect),
            ..defaults
        }
    }

    /// Sets [`Timeouts::connect`].
    #[must_use]
    pub const fn with_connect(mut self, connect: Duration) -> Self {
        self.connect = connect;
        self
    }

    /// Sets [`Timeouts::verb`].
    #[must_use]
    pub const fn with_verb(mut self, verb: Duration) -> Self {
        self.verb = verb;
        self
    }

    /// Sets [`Timeouts::close`].
    #[must_use]
    pub const fn with_close(mut self, close: Duration) -> Self {
        self.close = close;
        self
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(8),
            verb: Duration::from_secs(10),
            close: Duration::from_secs(2),
        }
    }
}
