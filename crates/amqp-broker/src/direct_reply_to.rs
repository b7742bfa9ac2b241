//! Whether a broker may be asked for direct reply-to.

use rpc_core::{Address, ShortString};

/// RabbitMQ's pseudo-queue: consumed from, it makes the channel's publishes with this `reply_to`
/// answerable without any queue.
pub const DIRECT_REPLY_TO: ShortString = ShortString::from_static("amq.rabbitmq.reply-to");

/// What the routing key of every direct reply address begins with.
const PREFIX: &str = "amq.rabbitmq.reply-to.";

/// Whether a message to `address` goes to the direct inbox of a requester, past any queue.
///
/// RabbitMQ 3.10 returns a mandatory one although it has delivered it, and a version with the defect
/// of [`direct_reply_to_is_safe`] may close the connection that publishes it.
#[must_use]
pub fn is_direct_reply_address(address: &Address) -> bool {
    address.exchange_name().is_empty() && address.routing_key().as_str().starts_with(PREFIX)
}

/// Whether direct reply-to can be used with a broker of this product and version, as it names them
/// in its server properties.
///
/// RabbitMQ 3.10.0 to 3.10.11 and 3.11.0 to 3.11.3 close the whole connection of a *responder* that
/// publishes to a direct address which is no longer valid, after a node of the requester's went
/// down for example. The unanswered request is delivered again and does the same to the next one.
///
/// # Errors
///
/// [`DirectReplyToRefused`] for these, for another product, and for what cannot be read.
pub fn direct_reply_to_is_safe(product: &str, version: &str) -> Result<(), DirectReplyToRefused> {
    let unknown = || DirectReplyToRefused::Unknown {
        // A broker's text, so it is cut short before it can get into a log.
        product: product.chars().take(64).collect(),
        version: version.chars().take(64).collect(),
    };
    if product != "RabbitMQ" {
        return Err(unknown());
    }
    let (major, minor, patch) = parse(version).ok_or_else(unknown)?;
    match (major, minor, patch) {
        (3, 10, ..=11) | (3, 11, ..=3) => Err(DirectReplyToRefused::Affected {
            major,
            minor,
            patch,
        }),
        _ => Ok(()),
    }
}

/// Why direct reply-to is not used with a broker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DirectReplyToRefused {
    /// A version with the defect.
    #[error(
        "RabbitMQ {major}.{minor}.{patch} closes the connection of a responder whose requester is gone; fixed in 3.10.12 and 3.11.4"
    )]
    #[non_exhaustive]
    Affected {
        /// The first number of the version.
        major: u32,
        /// The second.
        minor: u32,
        /// The third.
        patch: u32,
    },
    /// Not a broker, or not a version, of which anything is known.
    #[error("nothing is known of direct reply-to with product {product:?} version {version:?}")]
    #[non_exhaustive]
    Unknown {
        /// What it calls itself.
        product: String,
        /// Its version.
        version: String,
    },
}

/// The three numbers of `3.10.8`, `4.0.0-rc.1`, `3.13.7+2.gabcdef`.
fn parse(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.splitn(3, '.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    let rest = parts.next()?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let patch = rest[..end].parse().ok()?;
    Some((major, minor, patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_default_exchange_knows_direct_reply_addresses() {
        let key = ShortString::from_static("amq.rabbitmq.reply-to.g1h.x");
        assert!(is_direct_reply_address(&Address::queue(key.clone())));
        assert!(!is_direct_reply_address(&Address::queue(DIRECT_REPLY_TO)));
        let exchange = ShortString::from_static("e");
        assert!(!is_direct_reply_address(&Address::exchange(exchange, key)));
    }

    fn safe(version: &str) -> bool {
        direct_reply_to_is_safe("RabbitMQ", version).is_ok()
    }

    #[test]
    fn exactly_the_affected_versions_are_refused() {
        for version in [
            "3.10.0",
            "3.10.8",
            "3.10.11",
            "3.11.0",
            "3.11.3",
            "3.11.0-rc.1",
        ] {
            assert!(!safe(version), "{version}");
        }
        for version in [
            "3.9.29",
            "3.10.12",
            "3.11.4",
            "3.12.0",
            "3.13.7+2.gabcdef",
            "4.0.0-rc.1",
            "4.2.1",
        ] {
            assert!(safe(version), "{version}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for version in ["", "3", "3.12", "3.12.", "3.12.x", "v3.12.0", "-3.12.0"] {
            assert!(!safe(version), "{version}");
        }
        assert!(direct_reply_to_is_safe("LavinMQ", "3.12.0").is_err());
    }
}
