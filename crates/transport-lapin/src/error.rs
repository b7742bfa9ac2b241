//! lapin's errors as ours: a kind, the broker's words, no secret.

use std::fmt;

use amqp_broker::{
    AmqpUrl, ENDED_EARLY, NOT_AMQP, conflicting_argument, is_hang_up, kind_of_login_code,
    kind_of_reply_code, scrub,
};
use rpc_core::{ErrorKind, TransportError};

/// The name that all errors carry.
pub(crate) const NAME: &str = "lapin";

/// An error of ours in `operation`.
pub(crate) fn new(kind: ErrorKind, operation: &'static str) -> TransportError {
    TransportError::new(kind, NAME, operation)
}

/// What `error` means as the answer to one verb.
pub(crate) fn of_verb(
    operation: &'static str,
    error: &lapin::Error,
    url: &AmqpUrl,
) -> TransportError {
    let kind = match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => kind_of_reply_code(error.get_id()),
        lapin::ErrorKind::ChannelsLimitReached => ErrorKind::Other,
        _ => ErrorKind::Closed,
    };
    build(kind, operation, error, url)
}

/// What `error` means in a handshake.
pub(crate) fn of_login(error: &lapin::Error, url: &AmqpUrl) -> TransportError {
    let kind = match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => kind_of_login_code(error.get_id()),
        lapin::ErrorKind::InvalidProtocolVersion(_) => {
            let said = format!("{url}: {NOT_AMQP}: it speaks another version");
            return new(ErrorKind::Connect, "connect").with_detail(said);
        }
        // What the parser stumbled over says nothing to anybody.
        lapin::ErrorKind::ParsingError(_) => {
            return new(ErrorKind::Connect, "connect").with_detail(format!("{url}: {NOT_AMQP}"));
        }
        lapin::ErrorKind::IOError(error) if is_hang_up(error.kind()) => {
            return new(ErrorKind::Connect, "connect").with_detail(format!("{url}: {ENDED_EARLY}"));
        }
        _ => ErrorKind::Connect,
    };
    build(kind, "connect", error, url)
}

/// What `error` means for every publish that was under way when it ended their channel: about
/// none of them in particular.
pub(crate) fn of_publish(error: &lapin::Error, url: &AmqpUrl) -> TransportError {
    let kind = match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => match kind_of_reply_code(error.get_id()) {
            kind @ (ErrorKind::Denied | ErrorKind::NotFound) => kind,
            _ => ErrorKind::Closed,
        },
        _ => ErrorKind::Closed,
    };
    build(kind, "publish", error, url)
}

/// `error` as the end of a connection, whatever the broker gave as its reason.
pub(crate) fn of_connection(error: &lapin::Error, url: &AmqpUrl) -> TransportError {
    build(ErrorKind::Closed, "connection", error, url)
}

/// `error` as the end of a channel in `operation`, whatever the broker gave as its reason.
pub(crate) fn of_channel(
    operation: &'static str,
    error: &lapin::Error,
    url: &AmqpUrl,
) -> TransportError {
    build(ErrorKind::Closed, operation, error, url)
}

fn build(
    kind: ErrorKind,
    operation: &'static str,
    error: &lapin::Error,
    url: &AmqpUrl,
) -> TransportError {
    let built = new(kind, operation);
    match error.kind() {
        // The broker's own words name the queue, and the argument that differs; lapin's error says
        // the same once more.
        lapin::ErrorKind::ProtocolError(error) => {
            let said = error.get_message().as_str();
            let built = match conflicting_argument(said) {
                Some(name) => built.with_conflicting_argument(name),
                None => built,
            };
            built.with_detail(scrub(said, url))
        }
        _ => built.with_source(Cause(scrub(&error.to_string(), url))),
    }
}

/// The words of an error of lapin. The error itself is not kept: its `Debug` may show what was
/// scrubbed from its words.
#[derive(Debug)]
struct Cause(String);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Cause {}
