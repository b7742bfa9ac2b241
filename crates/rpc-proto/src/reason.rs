//! Why a call failed, as a word that programs can compare: finer than a code, and stable.

use std::fmt;

use crate::{Certainty, Code, ShortString};

/// Declares [`Reason`] with the word, the code and the certainty of each variant in one row, so
/// that a new reason cannot be added without deciding all three.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $word:literal, $code:ident, $certainty:ident;)+) => {
        /// Why a call failed, as a stable word.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
            /// A word that this version does not know.
            Other(ShortString),
        }

        impl Reason {
            /// The word.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Other(word) => word.as_str(),
                }
            }

            /// Reads a word; `None` when it is over 255 bytes.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                Some(match word {
                    $($word => Self::$variant,)+
                    other => Self::Other(ShortString::new(other).ok()?),
                })
            }

            /// The code that goes with it.
            #[must_use]
            pub const fn code(&self) -> Code {
                match self {
                    $(Self::$variant => Code::$code,)+
                    Self::Other(_) => Code::Unknown,
                }
            }

            /// Whether the handler ran, as far as the reason alone can tell.
            #[must_use]
            pub const fn certainty(&self) -> Certainty {
                match self {
                    $(Self::$variant => Certainty::$certainty,)+
                    Self::Other(_) => Certainty::MaybeExecuted,
                }
            }
        }
    };
}

reasons! {
    /// The broker takes no messages from publishers now, and the call was not to wait for it.
    BrokerBlocked = "BROKER_BLOCKED", Unavailable, NotExecuted;
    /// There is no connection to the broker now, and the call was not to wait for one.
    BrokerDown = "BROKER_DOWN", Unavailable, NotExecuted;
    /// The broker does not answer for the request: a negative confirm.
    BrokerRefused = "BROKER_REFUSED", ResourceExhausted, MaybeExecuted;
    /// The caller closed its client.
    ClientClosed = "CLIENT_CLOSED", Cancelled, MaybeExecuted;
    /// The connection ended with the call open.
    ConnectionLost = "CONNECTION_LOST", Unavailable, MaybeExecuted;
    /// The worker stops, and had not begun with the request.
    Draining = "DRAINING", Unavailable, NotExecuted;
    /// The deadline had passed before the handler could start.
    Expired = "EXPIRED", DeadlineExceeded, NotExecuted;
    /// Nobody needs the result any more: the work that the call was made for was given up.
    GivenUp = "GIVEN_UP", Cancelled, MaybeExecuted;
    /// The handler was stopped because its caller gave up.
    HandlerCancelled = "HANDLER_CANCELLED", Cancelled, Executed;
    /// The handler panicked.
    HandlerPanicked = "HANDLER_PANICKED", Internal, Executed;
    /// The handler was stopped at the deadline.
    HandlerTimedOut = "HANDLER_TIMED_OUT", DeadlineExceeded, Executed;
    /// The request has come through too many services: they call each other in a circle.
    HopLimit = "HOP_LIMIT", FailedPrecondition, NotExecuted;
    /// The idempotency key is that of another request, of other arguments. A worker that does not know
    /// that one may run this one.
    KeyReused = "KEY_REUSED", InvalidArgument, MaybeExecuted;
    /// The body of the message is over the limit.
    MessageTooLarge = "MESSAGE_TOO_LARGE", ResourceExhausted, NotExecuted;
    /// No queue has this name: nobody listens.
    NoRoute = "NO_ROUTE", Unavailable, NotExecuted;
    /// Nothing was handed to the broker.
    NotSent = "NOT_SENT", Unavailable, NotExecuted;
    /// The request ended the process of too many workers, and is not tried again.
    Poison = "POISON", Aborted, MaybeExecuted;
    /// The request had been delivered before, and the service runs none that may have run already.
    Redelivered = "REDELIVERED", Aborted, MaybeExecuted;
    /// The reply is over the limit.
    ReplyTooLarge = "REPLY_TOO_LARGE", ResourceExhausted, Executed;
    /// The reply could not be understood.
    ReplyUndecodable = "REPLY_UNDECODABLE", Internal, Executed;
    /// The result could not be put into the encoding of the request.
    ReplyUnencodable = "REPLY_UNENCODABLE", Internal, Executed;
    /// The request does not decode.
    RequestUndecodable = "REQUEST_UNDECODABLE", InvalidArgument, NotExecuted;
    /// The arguments could not be put into the encoding of the client.
    RequestUnencodable = "REQUEST_UNENCODABLE", InvalidArgument, NotExecuted;
    /// The service is overloaded, and refused the request to keep up with the others.
    Shed = "SHED", ResourceExhausted, NotExecuted;
    /// Too many calls are open already.
    TooManyInFlight = "TOO_MANY_IN_FLIGHT", ResourceExhausted, NotExecuted;
    /// The transport failed at something that may have reached the broker.
    TransportFailed = "TRANSPORT_FAILED", Unavailable, MaybeExecuted;
    /// The broker has the request, and no reply came before the deadline.
    Unanswered = "UNANSWERED", DeadlineExceeded, MaybeExecuted;
    /// The broker never said that it has the request, and the deadline passed.
    Unconfirmed = "UNCONFIRMED", DeadlineExceeded, MaybeExecuted;
    /// No codec is registered for the content type.
    UnknownContentType = "UNKNOWN_CONTENT_TYPE", Unimplemented, NotExecuted;
    /// The service has no such method.
    UnknownMethod = "UNKNOWN_METHOD", Unimplemented, NotExecuted;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back_and_foreign_words_are_kept() {
        assert_eq!(Reason::parse("NO_ROUTE"), Some(Reason::NoRoute));
        let foreign = Reason::parse("QUOTA").unwrap();
        assert_eq!(
            (foreign.as_str(), foreign.certainty()),
            ("QUOTA", Certainty::MaybeExecuted)
        );
        assert_eq!(Reason::parse(&"x".repeat(256)), None);
    }
}
