//! The table of endings: every way that a call can end, with its code, its reason and its certainty.

use Certainty::{Executed, MaybeExecuted, NotExecuted};

use super::*;

/// How the one call of a bench ends when this happens to it.
fn ends(happens: impl FnOnce(&mut Bench)) -> CallError {
    let mut bench = Bench::new();
    bench.start(1).unwrap();
    happens(&mut bench);
    bench.only_error()
}

fn publish(kind: ErrorKind) -> CallError {
    let error = TransportError::new(kind, "fake", "publish");
    ends(|bench| bench.calls.handle_publish(call_id(1), Err(error)))
}

fn unsent(kind: ErrorKind) -> CallError {
    let error = TransportError::new(kind, "fake", "publish").unsent();
    ends(|bench| bench.calls.handle_publish(call_id(1), Err(error)))
}

fn down(kind: ErrorKind) -> CallError {
    let mut bench = Bench::new();
    let cause = TransportError::new(kind, "fake", "connect");
    bench.calls.handle_disconnect(bench.generation, cause);
    bench.start(1).unwrap_err()
}

/// The service answers with an error.
fn answered(status: &Status) -> CallError {
    let mut message = wire::encode_status(status);
    message.correlation_id = Some(call_id(1).to_correlation_id());
    ends(|bench| bench.receive(message))
}

fn framework(reason: Reason) -> CallError {
    answered(&Status::framework(reason, "no"))
}

fn again(reason: Reason) -> CallError {
    answered(&Status::framework(reason, "no").of_redelivered(true))
}

fn refused(limits: Limits, request: Request) -> CallError {
    let mut bench = Bench::with(limits);
    bench.start_with(1, request, TIMEOUT).unwrap_err()
}

#[test]
#[rustfmt::skip]
fn every_ending_has_its_code_its_reason_and_its_certainty() {
    let deadline = |bench: &mut Bench| bench.calls.handle_timeout(bench.now + TIMEOUT);
    let body = || Request { body: Bytes::from_static(b"four"), ..Request::default() };
    let small = Limits { max_request: 3, ..Limits::default() };
    let reply = || Request { method: Some(wire::REPLY_TYPE), ..Request::default() };
    let none = Limits { max_in_flight: 0, ..Limits::default() };
    let table = [
        ("closed during the call", ends(|b| b.calls.close()), Code::Cancelled, "CLIENT_CLOSED", MaybeExecuted),
        ("closed before the call", { let mut b = Bench::new(); b.calls.close(); b.start(1).unwrap_err() }, Code::Cancelled, "CLIENT_CLOSED", NotExecuted),
        ("given up with the work it was for", ends(|b| b.calls.give_up(call_id(1))), Code::Cancelled, "GIVEN_UP", MaybeExecuted),
        ("no connection", down(ErrorKind::Closed), Code::Unavailable, "BROKER_DOWN", NotExecuted),
        ("no connection: refused", down(ErrorKind::Connect), Code::Unavailable, "BROKER_DOWN", NotExecuted),
        ("no connection: password", down(ErrorKind::Unauthenticated), Code::Unauthenticated, "BROKER_DOWN", NotExecuted),
        ("no connection: vhost", down(ErrorKind::Denied), Code::PermissionDenied, "BROKER_DOWN", NotExecuted),
        ("no connection: arguments", down(ErrorKind::Conflict), Code::FailedPrecondition, "BROKER_DOWN", NotExecuted),
        ("no connection any more", { let mut b = Bench::new(); b.calls.handle_end(lost()); b.start(1).unwrap_err() }, Code::Unavailable, "NOT_SENT", NotExecuted),
        ("blocked", publish(ErrorKind::Blocked), Code::Unavailable, "BROKER_BLOCKED", NotExecuted),
        ("ended before it was sent", unsent(ErrorKind::Closed), Code::Unavailable, "NOT_SENT", NotExecuted),
        ("no room before the deadline", unsent(ErrorKind::Timeout), Code::DeadlineExceeded, "NOT_SENT", NotExecuted),
        ("no route", publish(ErrorKind::NoRoute), Code::Unavailable, "NO_ROUTE", NotExecuted),
        ("a negative confirm", publish(ErrorKind::Refused), Code::ResourceExhausted, "BROKER_REFUSED", MaybeExecuted),
        ("lost while publishing", publish(ErrorKind::Closed), Code::Unavailable, "CONNECTION_LOST", MaybeExecuted),
        ("lost while waiting", ends(Bench::disconnect), Code::Unavailable, "CONNECTION_LOST", MaybeExecuted),
        ("lost over what is not permitted", CallError::ConnectionLost(TransportError::new(ErrorKind::Denied, "fake", "publish")), Code::PermissionDenied, "CONNECTION_LOST", MaybeExecuted),
        ("lost with its inbox", CallError::ConnectionLost(TransportError::new(ErrorKind::NotFound, "fake", "recv")), Code::Unavailable, "CONNECTION_LOST", MaybeExecuted),
        ("exchange missing", publish(ErrorKind::NotFound), Code::FailedPrecondition, "TRANSPORT_FAILED", MaybeExecuted),
        ("not permitted", publish(ErrorKind::Denied), Code::PermissionDenied, "TRANSPORT_FAILED", MaybeExecuted),
        ("exchange missing, unsent", unsent(ErrorKind::NotFound), Code::FailedPrecondition, "NOT_SENT", NotExecuted),
        ("not permitted, unsent", unsent(ErrorKind::Denied), Code::PermissionDenied, "NOT_SENT", NotExecuted),
        ("over the broker's limit", publish(ErrorKind::TooLarge), Code::ResourceExhausted, "MESSAGE_TOO_LARGE", NotExecuted),
        ("publish timed out", publish(ErrorKind::Timeout), Code::DeadlineExceeded, "UNCONFIRMED", MaybeExecuted),
        ("publish failed", publish(ErrorKind::Other), Code::Internal, "TRANSPORT_FAILED", MaybeExecuted),
        ("unconfirmed", ends(deadline), Code::DeadlineExceeded, "UNCONFIRMED", MaybeExecuted),
        ("unanswered", ends(|b| { b.calls.handle_publish(call_id(1), Ok(())); deadline(b); }), Code::DeadlineExceeded, "UNANSWERED", MaybeExecuted),
        ("request over our limit", refused(small, body()), Code::ResourceExhausted, "MESSAGE_TOO_LARGE", NotExecuted),
        ("a word of the framework", refused(Limits::default(), reply()), Code::InvalidArgument, "REQUEST_UNENCODABLE", NotExecuted),
        ("too many calls", refused(none, body()), Code::ResourceExhausted, "TOO_MANY_IN_FLIGHT", NotExecuted),
        ("expired in the queue", framework(Reason::Expired), Code::DeadlineExceeded, "EXPIRED", NotExecuted),
        ("stopped at the deadline", framework(Reason::HandlerTimedOut), Code::DeadlineExceeded, "HANDLER_TIMED_OUT", Executed),
        ("shed", framework(Reason::Shed), Code::ResourceExhausted, "SHED", NotExecuted),
        ("draining", framework(Reason::Draining), Code::Unavailable, "DRAINING", NotExecuted),
        ("draining, at a second delivery", again(Reason::Draining), Code::Unavailable, "DRAINING", MaybeExecuted),
        ("poison", framework(Reason::Poison), Code::Aborted, "POISON", MaybeExecuted),
        ("a circle of services", framework(Reason::HopLimit), Code::FailedPrecondition, "HOP_LIMIT", NotExecuted),
        ("a key of another request", framework(Reason::KeyReused), Code::InvalidArgument, "KEY_REUSED", MaybeExecuted),
        ("undecodable", framework(Reason::RequestUndecodable), Code::InvalidArgument, "REQUEST_UNDECODABLE", NotExecuted),
        ("unknown method", framework(Reason::UnknownMethod), Code::Unimplemented, "UNKNOWN_METHOD", NotExecuted),
        ("unknown encoding", framework(Reason::UnknownContentType), Code::Unimplemented, "UNKNOWN_CONTENT_TYPE", NotExecuted),
        ("panic", framework(Reason::HandlerPanicked), Code::Internal, "HANDLER_PANICKED", Executed),
        ("cancelled by its caller", framework(Reason::HandlerCancelled), Code::Cancelled, "HANDLER_CANCELLED", Executed),
        ("an error of the handler", answered(&Status::out_of_range("94")), Code::OutOfRange, "OUT_OF_RANGE", Executed),
        ("an error that a handler passes on", answered(&Status::framework(Reason::NoRoute, "").of_handler()), Code::Unavailable, "NO_ROUTE", Executed),
        ("a word of a later version", framework(Reason::Other(ShortString::from_static("QUOTA"))), Code::Unknown, "QUOTA", MaybeExecuted),
    ];
    for (what, error, code, reason, certainty) in table {
        assert_eq!(
            (error.code(), error.reason().as_str(), error.certainty()),
            (code, reason, certainty),
            "{what}: {error:?}"
        );
        assert!(!error.to_string().is_empty() || what.contains("passes on"), "{what}");
    }
}

#[test]
fn a_word_of_the_framework_is_no_method_whether_or_not_there_is_a_connection() {
    for word in [
        wire::REPLY_TYPE,
        wire::STARTED_TYPE,
        wire::CANCEL_TYPE,
        wire::CHECK_TYPE,
    ] {
        let request = Request {
            method: Some(word.clone()),
            ..Request::default()
        };
        let mut down = Bench::down(Limits::default());
        let error = down.start_with(1, request, TIMEOUT).unwrap_err();
        assert_eq!(error.reason(), Reason::RequestUnencodable);
        assert!(error.to_string().contains(word.as_str()), "{error}");
        assert_eq!((down.calls.in_flight(), down.calls.stats().started), (0, 0));
    }
}
