//! amiquip's errors as those of the contract.

use amiquip::Error as Library;
use amqp_broker::{
    AmqpUrl, ENDED_EARLY, conflicting_argument, is_hang_up, kind_of_login_code, kind_of_reply_code,
    scrub,
};
use rpc_core::{ErrorKind, TransportError};

/// What people read as the name of the transport.
pub(crate) const NAME: &str = "amiquip";

/// An error of ours in `operation`.
pub(crate) fn new(kind: ErrorKind, operation: &'static str) -> TransportError {
    TransportError::new(kind, NAME, operation)
}

/// Whether the broker's own words are in it, so that nothing better can be learnt by joining.
pub(crate) const fn says_why(error: &Library) -> bool {
    matches!(
        error,
        Library::ServerClosedChannel { .. } | Library::ServerClosedConnection { .. }
    )
}

/// What the broker answered to a request on a channel: its reply code decides the kind.
pub(crate) fn of_channel(
    error: &Library,
    operation: &'static str,
    url: &AmqpUrl,
) -> TransportError {
    let kind = match error {
        Library::ServerClosedChannel { code, .. } => kind_of_reply_code(*code),
        _ => ErrorKind::Other,
    };
    with_library(new(kind, operation), error, url)
}

/// What ended a connection that was open.
///
/// Every open publish gets it, whichever of them is at fault. So it is never of a kind that says of
/// one message that it was not consumed.
pub(crate) fn of_lost_connection(error: &Library, url: &AmqpUrl) -> TransportError {
    let kind = match error {
        Library::ServerClosedChannel { code, .. } => match kind_of_reply_code(*code) {
            kind @ (ErrorKind::Conflict | ErrorKind::Denied | ErrorKind::NotFound) => kind,
            _ => ErrorKind::Closed,
        },
        _ => ErrorKind::Closed,
    };
    with_library(new(kind, "connection"), error, url)
}

/// What kept a connection from opening.
pub(crate) fn of_handshake(error: &Library, url: &AmqpUrl) -> TransportError {
    let kind = match error {
        Library::InvalidCredentials => ErrorKind::Unauthenticated,
        Library::ServerClosedConnection { code, .. } => kind_of_login_code(*code),
        Library::UnsupportedAuthMechanism { .. }
        | Library::UnsupportedLocale { .. }
        | Library::SaslSecureNotSupported
        | Library::FrameMaxTooSmall { .. } => ErrorKind::Unsupported,
        error if has_hung_up(error) => {
            return new(ErrorKind::Connect, "connect").with_detail(format!("{url}: {ENDED_EARLY}"));
        }
        _ => ErrorKind::Connect,
    };
    with_library(new(kind, "connect"), error, url)
}

/// Whether all that is left of the peer is the end of its connection.
fn has_hung_up(error: &Library) -> bool {
    match error {
        Library::UnexpectedSocketClose | Library::EventLoopDropped => true,
        Library::IoErrorReadingSocket { source } | Library::IoErrorWritingSocket { source } => {
            is_hang_up(source.kind())
        }
        _ => false,
    }
}

/// Adds the broker's own words, which name the queue, and the argument that differs; or else those
/// of the library, as the source.
///
/// The library's error itself is not kept: its `Debug` may show what was scrubbed from its words.
pub(crate) fn with_library(
    error: TransportError,
    library: &Library,
    url: &AmqpUrl,
) -> TransportError {
    let (Library::ServerClosedChannel { message, .. }
    | Library::ServerClosedConnection { message, .. }) = library
    else {
        return error.with_source(scrub(&library.to_string(), url));
    };
    let error = match conflicting_argument(message) {
        Some(name) => error.with_conflicting_argument(name),
        None => error,
    };
    error.with_detail(scrub(message, url))
}
