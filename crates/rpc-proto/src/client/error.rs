//! How a call fails: what to branch on, and whether the work was done.

use std::error::Error;
use std::fmt;

use crate::link::needs_operator;
use crate::mutants::{Mutant, is};
use crate::{Certainty, Code, ErrorKind, Origin, Reason, Status, TransportError};

/// Why a call has no result.
///
/// [`certainty`](Self::certainty) says whether the handler ran, [`code`](Self::code) what kind of
/// failure it is, [`reason`](Self::reason) which one exactly and [`origin`](Self::origin) whose.
/// No text needs to be compared.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CallError {
    /// There is no connection now, another one is being made, and the call was not to wait for it.
    BrokerDown(TransportError),
    /// Nobody needs the result any more: the work that the call was made for was given up.
    GivenUp {
        /// Not executed when nothing had been sent yet, otherwise open.
        certainty: Certainty,
    },
    /// The client was closed by its owner.
    Closed {
        /// Not executed when the call came after the close, otherwise open.
        certainty: Certainty,
    },
    /// The connection ended while the call was open.
    ConnectionLost(TransportError),
    /// No reply came in time.
    DeadlineExceeded {
        /// Not executed when nothing had been sent yet, otherwise open.
        certainty: Certainty,
        /// Whether the broker had confirmed that it has the request.
        confirmed: bool,
    },
    /// The connection had ended before the call began, and there will be no other.
    NotSent(TransportError),
    /// The request could not be published, or was returned or refused by the broker.
    Publish(TransportError),
    /// The service answered with an error.
    Remote(Status),
    /// The reply is over the limit.
    ReplyTooLarge {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The reply came and could not be decoded.
    ReplyUndecodable(String),
    /// The request is over the limit.
    RequestTooLarge {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The arguments could not be encoded, or the method has a name that cannot travel.
    RequestUnencodable(String),
    /// Too many calls are open already.
    TooManyInFlight {
        /// The limit.
        limit: usize,
    },
}

impl CallError {
    /// The kind of failure.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::BrokerDown(error) if needs_operator(error.kind()) => error.kind().code(),
            // Not of an inbox that is gone, say: the next connection has another one.
            Self::ConnectionLost(error) if error.kind() == ErrorKind::Denied => error.kind().code(),
            Self::Remote(status) => status.code(),
            Self::NotSent(error) | Self::Publish(error) => error.kind().code(),
            Self::DeadlineExceeded { .. } => Code::DeadlineExceeded,
            other => other.reason().code(),
        }
    }

    /// Which failure exactly. For an answer of the service without a reason, that of its code.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::BrokerDown(_) => Reason::BrokerDown,
            Self::GivenUp { .. } => Reason::GivenUp,
            Self::Closed { .. } => Reason::ClientClosed,
            Self::ConnectionLost(_) => Reason::ConnectionLost,
            Self::DeadlineExceeded {
                certainty: Certainty::NotExecuted,
                ..
            } => Reason::NotSent,
            Self::DeadlineExceeded {
                confirmed: true, ..
            } => Reason::Unanswered,
            Self::DeadlineExceeded {
                confirmed: false, ..
            } => Reason::Unconfirmed,
            Self::NotSent(_) => Reason::NotSent,
            Self::Publish(error) => match error.kind() {
                ErrorKind::Blocked => Reason::BrokerBlocked,
                ErrorKind::NoRoute => Reason::NoRoute,
                ErrorKind::Refused => Reason::BrokerRefused,
                ErrorKind::TooLarge => Reason::MessageTooLarge,
                _ if error.certainty() == Certainty::NotExecuted => Reason::NotSent,
                ErrorKind::Closed => Reason::ConnectionLost,
                _ => Reason::TransportFailed,
            },
            Self::Remote(status) => status.reason().cloned().unwrap_or_else(|| {
                Reason::Other(crate::ShortString::from_static(status.code().name()))
            }),
            Self::ReplyTooLarge { .. } => Reason::ReplyTooLarge,
            Self::ReplyUndecodable(_) => Reason::ReplyUndecodable,
            Self::RequestTooLarge { .. } => Reason::MessageTooLarge,
            Self::RequestUnencodable(_) => Reason::RequestUnencodable,
            Self::TooManyInFlight { .. } => Reason::TooManyInFlight,
        }
    }

    /// Whether the handler ran.
    #[must_use]
    pub fn certainty(&self) -> Certainty {
        match self {
            Self::GivenUp { certainty }
            | Self::Closed { certainty }
            | Self::DeadlineExceeded { certainty, .. } => *certainty,
            Self::BrokerDown(_) | Self::NotSent(_) => Certainty::NotExecuted,
            Self::ConnectionLost(_) if is(Mutant::LossIsNotExecuted) => Certainty::NotExecuted,
            Self::Publish(error) => error.certainty(),
            Self::Remote(status) => status.certainty(),
            other => other.reason().certainty(),
        }
    }

    /// Who failed it.
    #[must_use]
    pub const fn origin(&self) -> Origin {
        match self {
            Self::BrokerDown(_) | Self::ConnectionLost(_) | Self::NotSent(_) | Self::Publish(_) => {
                Origin::Broker
            }
            Self::Remote(status) => status.origin(),
            _ => Origin::Client,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BrokerDown(_) => f.write_str("there is no connection to the broker"),
            Self::GivenUp { .. } => f.write_str("the work that the call was for was given up"),
            Self::Closed { .. } => f.write_str("the client was closed"),
            Self::ConnectionLost(_) => f.write_str("the connection was lost during the call"),
            Self::DeadlineExceeded {
                certainty: Certainty::NotExecuted,
                ..
            } => f.write_str("the deadline passed before the request was sent"),
            Self::DeadlineExceeded {
                confirmed: true, ..
            } => f.write_str(
                "the broker has the request, and no worker answered within the deadline",
            ),
            Self::DeadlineExceeded {
                confirmed: false, ..
            } => f.write_str("neither the broker's confirm nor a reply came within the deadline"),
            Self::NotSent(_) => f.write_str("the connection had ended before the call"),
            Self::Publish(_) => f.write_str("the request could not be delivered"),
            Self::Remote(status) => f.write_str(status.message()),
            Self::ReplyTooLarge { len, limit } => {
                write!(f, "a reply of {len} bytes, and the limit is {limit}")
            }
            Self::ReplyUndecodable(why) => write!(f, "the reply does not decode: {why}"),
            Self::RequestTooLarge { len, limit } => {
                write!(f, "a request of {len} bytes, and the limit is {limit}")
            }
            Self::RequestUnencodable(why) => write!(f, "the request does not encode: {why}"),
            Self::TooManyInFlight { limit } => write!(f, "{limit} calls are open already"),
        }
    }
}

impl Error for CallError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::BrokerDown(error)
            | Self::ConnectionLost(error)
            | Self::NotSent(error)
            | Self::Publish(error) => Some(error),
            _ => None,
        }
    }
}

/// The error of a call that a handler made, as the answer of that handler: it keeps code and message.
///
/// The handler has run, so its caller reads *executed*, whatever is certain of the call that it made;
/// that one's reason and push-back are about another request, and stay behind.
///
/// ```
/// use rpc_proto::{CallError, Certainty, Code, Status};
///
/// let inner = CallError::TooManyInFlight { limit: 8 };
/// assert_eq!(inner.certainty(), Certainty::NotExecuted);
/// let outer = Status::from(inner);
/// assert_eq!(outer.code(), Code::ResourceExhausted);
/// assert_eq!(outer.certainty(), Certainty::Executed);
/// ```
impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        let message = match error.source() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        Self::new(error.code(), message)
    }
}
