//! What the broker's reply codes mean to who called.

use rpc_core::ErrorKind;

/// The kind of error that closes a channel or a connection with this reply code.
///
/// It says what the answer to *one verb* means. A code that ended a channel on which many
/// publishes were under way says nothing about any single one of them.
///
/// 405 (resource locked: the queue is exclusive to another connection) counts as a conflict,
/// since that is an attribute of the queue which the operator has to change.
#[must_use]
pub const fn kind_of_reply_code(code: u16) -> ErrorKind {
    match code {
        311 => ErrorKind::TooLarge,
        312 => ErrorKind::NoRoute,
        403 | 530 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        405 | 406 => ErrorKind::Conflict,
        // 320 is an operator's or a stopping broker's goodbye; 501 to 506 and 541 are its answer to
        // a stream that it cannot make sense of. The connection is gone in all of them.
        320 | 501..=506 | 541 => ErrorKind::Closed,
        540 => ErrorKind::Unsupported,
        _ => ErrorKind::Other,
    }
}

/// The kind of error that ends a handshake with this reply code.
#[must_use]
pub const fn kind_of_login_code(code: u16) -> ErrorKind {
    match code {
        403 => ErrorKind::Unauthenticated,
        // The virtual host is not there, or not for this user, or full.
        402 | 530 => ErrorKind::Denied,
        _ => ErrorKind::Connect,
    }
}

/// The kind of every error that a transport gives once it has ended of an error of this `kind`.
///
/// Where the broker does not allow us to publish, a new connection is of no use, and whoever looks
/// for the reason must find that one; whatever else it was, the transport is closed.
#[must_use]
pub const fn kind_of_end(kind: ErrorKind) -> ErrorKind {
    match kind {
        ErrorKind::Denied => ErrorKind::Denied,
        _ => ErrorKind::Closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_refused_means_another_thing_at_the_door() {
        assert_eq!(kind_of_reply_code(403), ErrorKind::Denied);
        assert_eq!(kind_of_login_code(403), ErrorKind::Unauthenticated);
    }

    #[test]
    fn the_end_of_a_connection_is_closed_and_in_a_handshake_connect() {
        for code in [320, 501, 502, 503, 504, 505, 506, 541] {
            assert_eq!(kind_of_reply_code(code), ErrorKind::Closed, "{code}");
            assert_eq!(kind_of_login_code(code), ErrorKind::Connect, "{code}");
        }
        assert_eq!(kind_of_reply_code(402), ErrorKind::Other);
        assert_eq!(kind_of_end(kind_of_reply_code(541)), ErrorKind::Closed);
        assert_eq!(kind_of_end(kind_of_reply_code(404)), ErrorKind::Closed);
        assert_eq!(kind_of_end(kind_of_reply_code(403)), ErrorKind::Denied);
        assert_eq!(kind_of_reply_code(0), ErrorKind::Other);
    }
}
