//! The wire form: which property and which header says what.
//!
//! A plain peer sets `reply_to` and `correlation_id`, sends a body, and gets a body back under the
//! same `correlation_id`; everything of ours beyond that is optional, so scripts and this framework
//! serve and call each other. A reply without [`STATUS`] is a success.

use bytes::Bytes;

use crate::mutants::{Mutant, is};
use crate::{Code, HeaderValue, Headers, Message, Origin, Pushback, Reason, ShortString, Status};

/// The `type` of every reply. A message that carries it is never taken for a request, which is what
/// stops a reply sent to a service's own queue from being answered in turn, for ever.
pub const REPLY_TYPE: ShortString = ShortString::from_static("rpc.reply");

/// The `type` by which a worker tells the caller that its request has been running for a while, and,
/// in `reply_to`, where a [`CANCEL_TYPE`] for it may be sent. Only to callers that asked with
/// [`NOTICES`]: a plain peer would take it for the reply.
pub const STARTED_TYPE: ShortString = ShortString::from_static("rpc.started");

/// The `type` by which a caller tells the worker that nobody awaits the reply any more.
pub const CANCEL_TYPE: ShortString = ShortString::from_static("rpc.cancel");

/// The `type` of a message that somebody sends to itself, to see whether the whole path works.
pub const CHECK_TYPE: ShortString = ShortString::from_static("rpc.check");

/// Whether a message of this `type` is one of the framework's own, and therefore never a request.
#[must_use]
pub fn is_reserved(kind: &ShortString) -> bool {
    [REPLY_TYPE, STARTED_TYPE, CANCEL_TYPE, CHECK_TYPE].contains(kind)
}

/// Header of a request: which attempt of its call this is, from 1. Absent means 1.
pub const ATTEMPT: &str = "x-rpc-attempt";
/// Header of a request: when it is of no use any more, in milliseconds of Unix time. Only a hint,
/// since two clocks are involved.
pub const DEADLINE_MS: &str = "x-rpc-deadline-ms";
/// Header of a request: how many services it has come through. Absent means 0.
pub const HOPS: &str = "x-rpc-hops";
/// Header of a request: the caller understands [`STARTED_TYPE`].
pub const NOTICES: &str = "x-rpc-notices";
/// Header of a request: the time that the call had when this attempt was published, in
/// milliseconds.
pub const TIMEOUT_MS: &str = "x-rpc-timeout-ms";
/// Header that a queue which counts them puts on what it has delivered before: how often it has.
pub const DELIVERY_COUNT: &str = "x-delivery-count";
/// Header of a request: the trace it belongs to, as the W3C defines it. Passed on and never read.
pub const TRACEPARENT: &str = "traceparent";

/// Header of an error reply: how many milliseconds to wait before the next attempt. A negative one,
/// or none that can be read, means that there shall be none.
pub const PUSHBACK: &str = "x-rpc-retry-pushback-ms";

/// Header of an error reply: the number of its [`Code`].
pub const STATUS: &str = "x-rpc-status";
/// Header of an error reply: what went wrong, in words.
pub const MESSAGE: &str = "x-rpc-message";
/// Header of an error reply: `handler`, or `framework` when the handler did not say it.
pub const ORIGIN: &str = "x-rpc-origin";
/// Header of an error reply: the word of its [`Reason`].
pub const REASON: &str = "x-rpc-reason";

/// Header of an error reply, set when the request had been delivered before: an earlier delivery may
/// have run, so the reason proves nothing.
pub const REDELIVERED: &str = "x-rpc-redelivered";

/// The content type of error replies, and of requests that name none.
pub const TEXT: ShortString = ShortString::from_static("text/plain");

/// What a reply says.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The result, encoded.
    pub body: Bytes,
    /// How it is encoded; plain peers may leave it out.
    pub content_type: Option<ShortString>,
}

/// Turns a handler's error into a message that programs and scripts both understand.
///
/// The body begins with a word, never with a digit: a script that reads it as a number fails
/// loudly instead of taking the error for an answer.
#[must_use]
pub fn encode_status(status: &Status) -> Message {
    let mut headers = Headers::new();
    let origin = if status.origin() == Origin::Handler {
        "handler"
    } else {
        "framework"
    };
    // At most 1,024 bytes of message and 255 of reason, in headers that hold 16 KiB.
    let _ = headers.insert(STATUS, i64::from(status.code().number()));
    let _ = headers.insert(MESSAGE, status.message());
    let _ = headers.insert(ORIGIN, origin);
    if let Some(reason) = status.reason() {
        let _ = headers.insert(REASON, reason.as_str());
    }
    if let Some(pushback) = status.pushback() {
        let _ = headers.insert(PUSHBACK, pushback.to_millis());
    }
    if status.is_of_redelivered() {
        let _ = headers.insert(REDELIVERED, HeaderValue::Flag(true));
    }
    let body = Bytes::from(format!("error {status}"));
    Message {
        body,
        content_type: Some(TEXT),
        headers,
        ..Message::default()
    }
}

/// Reads a reply: the result, or the error that the peer answered.
///
/// # Errors
///
/// The peer's [`Status`]. A status header that is no number becomes [`Code::Internal`], one that
/// nobody defined [`Code::Unknown`]: a peer cannot make an error look like a success.
pub fn decode_reply(message: Message) -> Result<Reply, Status> {
    let Some(status) = message.headers.get(STATUS) else {
        return Ok(Reply {
            body: message.body,
            content_type: message.content_type,
        });
    };
    let text = |name| message.headers.get(name).and_then(HeaderValue::as_text);
    let code = match status.as_int() {
        Some(0) => {
            return Ok(Reply {
                body: message.body,
                content_type: message.content_type,
            });
        }
        Some(17..) if is(Mutant::UnknownStatusIsSuccess) => {
            return decode_reply(Message::new(message.body));
        }
        Some(number) => Code::from_number(number),
        None => {
            return Err(Status::framework(
                Reason::ReplyUndecodable,
                "the status header of the reply is no number",
            ));
        }
    };
    let origin = match text(ORIGIN) {
        Some("framework") => Origin::Framework,
        _ => Origin::Handler,
    };
    let reason = text(REASON).and_then(Reason::parse);
    let said = text(MESSAGE).map_or_else(
        || String::from_utf8_lossy(&message.body[..message.body.len().min(256)]).into_owned(),
        str::to_owned,
    );
    let redelivered = message.headers.get(REDELIVERED).is_some();
    let pushback = message
        .headers
        .get(PUSHBACK)
        .map(|value| Pushback::from_millis(value.as_int()));
    let mut status = Status::received(code, said, origin, reason).of_redelivered(redelivered);
    if let Some(pushback) = pushback {
        status = status.with_pushback(pushback);
    }
    Err(status)
}

/// The media type of a `content_type`, without parameters such as `charset`.
#[must_use]
pub fn media_type(content_type: &str) -> &str {
    content_type
        .split(';')
        .next()
        .unwrap_or(content_type)
        .trim()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::Certainty;

    #[test]
    fn a_bare_body_is_a_success() {
        let reply = decode_reply(Message::new("832040")).unwrap();
        assert_eq!(&reply.body[..], b"832040");
    }

    #[test]
    fn an_error_never_reads_as_a_number() {
        let message = encode_status(&Status::out_of_range("187"));
        assert!(!message.body[0].is_ascii_digit());
    }

    #[test]
    fn peers_may_write_the_status_in_any_type_of_number() {
        for value in [HeaderValue::Int(11), HeaderValue::from("11")] {
            let mut message = Message::new("too big");
            message.headers.insert(STATUS, value).unwrap();
            let status = decode_reply(message).unwrap_err();
            assert_eq!(
                (status.code(), status.message()),
                (Code::OutOfRange, "too big")
            );
            assert_eq!(status.certainty(), Certainty::Executed);
        }
    }

    #[test]
    fn a_status_that_is_no_number_is_an_error_all_the_same() {
        let mut message = Message::new("1");
        message.headers.insert(STATUS, "fine, thanks").unwrap();
        assert_eq!(decode_reply(message).unwrap_err().code(), Code::Internal);
    }

    #[test]
    fn what_is_no_time_to_wait_means_do_not_try_again() {
        for (value, read) in [
            (
                HeaderValue::Int(250),
                Pushback::After(Duration::from_millis(250)),
            ),
            (
                HeaderValue::from("250"),
                Pushback::After(Duration::from_millis(250)),
            ),
            (HeaderValue::Int(-1), Pushback::Never),
            (HeaderValue::from("soon"), Pushback::Never),
        ] {
            let mut message = encode_status(&Status::framework(Reason::Shed, "busy"));
            message.headers.insert(PUSHBACK, value).unwrap();
            assert_eq!(decode_reply(message).unwrap_err().pushback(), Some(read));
        }
    }

    #[test]
    fn a_push_back_survives_the_wire() {
        let pushback = Pushback::After(Duration::from_millis(40));
        let sent = Status::framework(Reason::Shed, "busy").with_pushback(pushback);
        assert_eq!(decode_reply(encode_status(&sent)).unwrap_err(), sent);
    }

    proptest! {
        #[test]
        fn a_status_survives_the_wire(number in 1i64..=16, text in "\\PC{0,300}") {
            let sent = Status::new(Code::from_number(number), text);
            prop_assert_eq!(decode_reply(encode_status(&sent)).unwrap_err(), sent);
        }
    }
}
