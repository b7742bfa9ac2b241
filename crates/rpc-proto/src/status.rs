//! What a failed call says of itself: a code, who failed it, and whether it ran.

use std::fmt;
use std::time::Duration;

use crate::Reason;

/// The kind of failure, with gRPC's names and numbers.
///
/// `OK` (0) is not among them: a status is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Code {
    /// The caller gave up.
    Cancelled = 1,
    /// An error of no known kind.
    Unknown = 2,
    /// The request cannot be understood, whatever the state of the service.
    InvalidArgument = 3,
    /// The deadline passed.
    DeadlineExceeded = 4,
    /// What was asked for is not there.
    NotFound = 5,
    /// What was to be made is there already.
    AlreadyExists = 6,
    /// The caller may not do this.
    PermissionDenied = 7,
    /// A limit was reached: size, number in flight, quota.
    ResourceExhausted = 8,
    /// The system is not in the state that this needs.
    FailedPrecondition = 9,
    /// Given up half-way, such as a request that keeps killing its workers.
    Aborted = 10,
    /// A valid request beyond what the service can answer.
    OutOfRange = 11,
    /// No such method, or no such encoding.
    Unimplemented = 12,
    /// An invariant broke, such as a panic in a handler.
    Internal = 13,
    /// The service cannot be reached now.
    Unavailable = 14,
    /// Data was lost for good.
    DataLoss = 15,
    /// The caller is not known.
    Unauthenticated = 16,
}

impl Code {
    /// Its number on the wire, 1 to 16.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The code of this number; [`Code::Unknown`] for numbers that nobody defined.
    #[must_use]
    pub const fn from_number(number: i64) -> Self {
        match number {
            1 => Self::Cancelled,
            3 => Self::InvalidArgument,
            4 => Self::DeadlineExceeded,
            5 => Self::NotFound,
            6 => Self::AlreadyExists,
            7 => Self::PermissionDenied,
            8 => Self::ResourceExhausted,
            9 => Self::FailedPrecondition,
            10 => Self::Aborted,
            11 => Self::OutOfRange,
            12 => Self::Unimplemented,
            13 => Self::Internal,
            14 => Self::Unavailable,
            15 => Self::DataLoss,
            16 => Self::Unauthenticated,
            _ => Self::Unknown,
        }
    }

    /// Its name in capitals, as gRPC writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether the handler of a failed call ran.
///
/// What may be done about an error follows from this: not executed, try again; maybe executed, try
/// again if the method is idempotent; executed, do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "there is no fourth answer, and callers match all three"
)]
pub enum Certainty {
    /// It ran, to its end or to its failure.
    Executed,
    /// Nobody can tell.
    MaybeExecuted,
    /// It did not run and will not. Said only when it is certain.
    NotExecuted,
}

impl fmt::Display for Certainty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Executed => "executed",
            Self::MaybeExecuted => "maybe executed",
            Self::NotExecuted => "not executed",
        })
    }
}

/// Who failed the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// The broker, or the connection to it.
    Broker,
    /// The calling side.
    Client,
    /// The framework on the serving side.
    Framework,
    /// The handler.
    Handler,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broker => "broker",
            Self::Client => "client",
            Self::Framework => "framework",
            Self::Handler => "handler",
        })
    }
}

/// When a caller may try again, as the service wants it: it knows its load, and the caller does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a retry must decide on both")]
pub enum Pushback {
    /// After this long, and not before.
    After(Duration),
    /// Not at all.
    Never,
}

impl Pushback {
    /// As it travels: whole milliseconds, rounded up; -1 for never.
    #[must_use]
    pub fn to_millis(self) -> i64 {
        match self {
            Self::After(wait) => {
                i64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
            }
            Self::Never => -1,
        }
    }

    /// Reads a number of milliseconds. A negative one, or none, means never, as in gRPC: what cannot
    /// be understood was meant to hold the caller back.
    #[must_use]
    pub fn from_millis(millis: Option<i64>) -> Self {
        millis
            .and_then(|millis| u64::try_from(millis).ok())
            .map_or(Self::Never, |millis| {
                Self::After(Duration::from_millis(millis))
            })
    }
}

/// An error answer, as a handler gives it and as it comes back to the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Status {
    code: Code,
    message: String,
    origin: Origin,
    reason: Option<Reason>,
    pushback: Option<Pushback>,
    /// An earlier delivery of the same request may have run, whatever became of this one.
    redelivered: bool,
}

impl Status {
    /// The longest message that travels, in bytes. A longer one is cut: it rides in a header, and
    /// oversized headers cost the connection.
    pub const MAX_MESSAGE: usize = 1024;

    /// An error of a handler.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: cut(message.into()),
            origin: Origin::Handler,
            reason: None,
            pushback: None,
            redelivered: false,
        }
    }

    /// An error that the framework answers for the handler.
    #[must_use]
    pub fn framework(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            code: reason.code(),
            message: cut(message.into()),
            origin: Origin::Framework,
            reason: Some(reason),
            pushback: None,
            redelivered: false,
        }
    }

    /// A request that cannot be understood.
    #[must_use]
    pub fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// A valid request beyond what the service can answer.
    #[must_use]
    pub fn out_of_range(message: impl Into<String>) -> Self {
        Self::new(Code::OutOfRange, message)
    }

    /// Work that nobody awaits any more.
    #[must_use]
    pub fn cancelled(message: impl Into<String>) -> Self {
        Self::new(Code::Cancelled, message)
    }

    /// What was asked for is not there.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// What was to be made is there already.
    #[must_use]
    pub fn already_exists(message: impl Into<String>) -> Self {
        Self::new(Code::AlreadyExists, message)
    }

    /// The caller may not do this.
    #[must_use]
    pub fn permission_denied(message: impl Into<String>) -> Self {
        Self::new(Code::PermissionDenied, message)
    }

    /// A limit was reached: size, number in flight, quota.
    #[must_use]
    pub fn resource_exhausted(message: impl Into<String>) -> Self {
        Self::new(Code::ResourceExhausted, message)
    }

    /// The system is not in the state that this needs.
    #[must_use]
    pub fn failed_precondition(message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, message)
    }

    /// Given up half-way: a conflict with other work, as a rule.
    #[must_use]
    pub fn aborted(message: impl Into<String>) -> Self {
        Self::new(Code::Aborted, message)
    }

    /// An invariant broke.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// What this needs cannot be reached now.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    /// The caller is not known.
    #[must_use]
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(Code::Unauthenticated, message)
    }

    /// The same error, with word on when the caller may try again.
    #[must_use]
    pub const fn with_pushback(mut self, pushback: Pushback) -> Self {
        self.pushback = Some(pushback);
        self
    }

    /// The same error, as the answer of a handler, whoever said it first.
    ///
    /// A handler that passes on the error of a service it called has run itself: what that error
    /// says of the other one's handler is not true of this one.
    #[must_use]
    pub fn of_handler(mut self) -> Self {
        self.origin = Origin::Handler;
        self
    }

    /// The same error, about a request that was delivered before: it may have run then.
    pub(crate) fn of_redelivered(mut self, redelivered: bool) -> Self {
        self.redelivered = redelivered;
        self
    }

    pub(crate) const fn is_of_redelivered(&self) -> bool {
        self.redelivered
    }

    pub(crate) fn received(
        code: Code,
        message: String,
        origin: Origin,
        reason: Option<Reason>,
    ) -> Self {
        Self {
            code,
            message: cut(message),
            origin,
            reason,
            pushback: None,
            redelivered: false,
        }
    }

    /// The kind of failure.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// What went wrong, in words.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Who failed the call: the handler, or the framework in its place.
    #[must_use]
    pub const fn origin(&self) -> Origin {
        self.origin
    }

    /// What exactly the framework objected to.
    #[must_use]
    pub const fn reason(&self) -> Option<&Reason> {
        self.reason.as_ref()
    }

    /// When the caller may try again, if the service said.
    #[must_use]
    pub const fn pushback(&self) -> Option<Pushback> {
        self.pushback
    }

    /// Whether the handler ran.
    ///
    /// A handler that answers has run. The framework says by its reason; a reason that this version
    /// does not know leaves it open, and so does one for not running a request that was delivered
    /// before.
    #[must_use]
    pub fn certainty(&self) -> Certainty {
        match (self.origin, &self.reason) {
            (Origin::Framework, Some(reason)) => match reason.certainty() {
                Certainty::NotExecuted if self.redelivered => Certainty::MaybeExecuted,
                certainty => certainty,
            },
            (Origin::Framework, None) => Certainty::MaybeExecuted,
            _ => Certainty::Executed,
        }
    }
}

fn cut(mut message: String) -> String {
    if message.len() > Status::MAX_MESSAGE {
        message.truncate(message.floor_char_boundary(Status::MAX_MESSAGE));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_reads_back_and_unknown_ones_stay_unknown() {
        for number in 1..=16 {
            assert_eq!(i64::from(Code::from_number(number).number()), number);
        }
        assert_eq!(Code::from_number(17), Code::Unknown);
        assert_eq!(Code::from_number(-1), Code::Unknown);
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let status = Status::new(Code::Internal, "é".repeat(1000));
        assert_eq!(status.message().len(), 1024);
        let status = Status::new(Code::Internal, format!("x{}", "é".repeat(1000)));
        assert_eq!(status.message().len(), 1023);
    }
}
