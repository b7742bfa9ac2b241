//! Where a message is sent: an exchange and a routing key.

use std::fmt;

use crate::{ShortString, TooLong};

/// Where a message is sent.
///
/// Both parts are checked when they are made, so an address that exists fits the wire.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    exchange: ShortString,
    routing_key: ShortString,
}

impl Address {
    /// The queue of this name, by way of the default exchange.
    #[must_use]
    pub const fn queue(name: ShortString) -> Self {
        Self {
            exchange: ShortString::from_static(""),
            routing_key: name,
        }
    }

    /// A routing key on a named exchange, for set-ups where clients may not use the default one.
    #[must_use]
    pub const fn exchange(exchange: ShortString, routing_key: ShortString) -> Self {
        Self {
            exchange,
            routing_key,
        }
    }

    /// The exchange; empty for the default one.
    #[must_use]
    pub const fn exchange_name(&self) -> &ShortString {
        &self.exchange
    }

    /// The routing key; on the default exchange the name of a queue.
    #[must_use]
    pub const fn routing_key(&self) -> &ShortString {
        &self.routing_key
    }
}

/// A queue by its name.
impl TryFrom<&str> for Address {
    type Error = TooLong;

    fn try_from(queue: &str) -> Result<Self, TooLong> {
        Ok(Self::queue(ShortString::new(queue)?))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.exchange.is_empty() {
            write!(f, "{}", self.routing_key)
        } else {
            write!(f, "{}/{}", self.exchange, self.routing_key)
        }
    }
}
