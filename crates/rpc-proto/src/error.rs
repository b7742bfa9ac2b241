//! The error of a transport: a kind to branch on, a chain to read.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::mutants::{Mutant, is};
use crate::{Certainty, Code};

/// What went wrong in a transport, from the point of view of who can do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The broker takes no messages from publishers now: it is short of memory or disk. Trying again
    /// MAY succeed once it has recovered.
    Blocked,
    /// The transport has ended, or its connection was lost. A new one MAY succeed.
    Closed,
    /// The queue exists with other arguments. The operator must delete it or ask for those.
    Conflict,
    /// The broker could not be reached, or did not finish the handshake. Trying again MAY succeed.
    Connect,
    /// The broker forbids it: permissions, or a virtual host that is not there. The operator must
    /// act; trying again SHOULD NOT be done in a loop.
    Denied,
    /// The caller broke the contract: a foreign token, a name the broker reserves. A bug on this
    /// side, never caused by what a peer sent.
    Misuse,
    /// The message reached no queue: nobody listens under this address.
    NoRoute,
    /// The queue or exchange is not there.
    NotFound,
    /// Whatever else, with its source.
    Other,
    /// The broker does not answer for the message: a negative confirm, as a full queue gives it, or
    /// one that crashed.
    Refused,
    /// The transport's own clock ended a wait.
    Timeout,
    /// The message is over a limit. Trying again MUST NOT be done.
    TooLarge,
    /// The broker does not know this user, or its password.
    Unauthenticated,
    /// This transport, or this version of the broker, does not offer it.
    Unsupported,
}

impl ErrorKind {
    /// The code that a caller sees for it.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::Blocked | Self::Closed | Self::Connect | Self::NoRoute | Self::Timeout => {
                Code::Unavailable
            }
            Self::Conflict | Self::NotFound | Self::Unsupported => Code::FailedPrecondition,
            Self::Denied => Code::PermissionDenied,
            Self::Misuse | Self::Other => Code::Internal,
            Self::Refused | Self::TooLarge => Code::ResourceExhausted,
            Self::Unauthenticated => Code::Unauthenticated,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Blocked => "the broker blocks publishers",
            Self::Closed => "connection closed",
            Self::Conflict => "queue exists with other arguments",
            Self::Connect => "cannot connect",
            Self::Denied => "not allowed",
            Self::Misuse => "misuse",
            Self::NoRoute => "no route: nobody listens",
            Self::NotFound => "not found",
            Self::Other => "failed",
            Self::Refused => "refused by the broker",
            Self::Timeout => "timed out",
            Self::TooLarge => "too large",
            Self::Unauthenticated => "unknown user or wrong password",
            Self::Unsupported => "not supported",
        }
    }
}

/// Why a transport could not do what it was asked to.
///
/// Cheap to clone, so that one lost connection can be the cause of every call it ended.
#[derive(Clone)]
pub struct TransportError(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    transport: &'static str,
    operation: &'static str,
    detail: Option<String>,
    argument: Option<String>,
    unsent: bool,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl TransportError {
    /// An error of `transport` in `operation`, which are names for people to read.
    #[must_use]
    pub fn new(kind: ErrorKind, transport: &'static str, operation: &'static str) -> Self {
        Self(Arc::new(Inner {
            kind,
            transport,
            operation,
            detail: None,
            argument: None,
            unsent: false,
            source: None,
        }))
    }

    /// Adds what the operator should read. It must hold no secret.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<String>) -> Self {
        self.change(|inner| inner.detail = Some(detail.into()))
    }

    /// Adds the name of the argument in which a queue differs from what was declared.
    #[must_use]
    pub fn with_conflicting_argument(self, name: impl Into<String>) -> Self {
        self.change(|inner| inner.argument = Some(name.into()))
    }

    /// Adds what caused it. Its text must hold no secret.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.change(|inner| inner.source = Some(source.into()))
    }

    /// States that no byte of the message left this process, nor will, or that the broker is in this
    /// process and has not taken it.
    ///
    /// A transport says this of a publish only when it is certain: callers take it for "not
    /// executed" and send the request again.
    #[must_use]
    pub fn unsent(self) -> Self {
        self.change(|inner| inner.unsent = true)
    }

    /// What to branch on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The transport it comes from.
    #[must_use]
    pub fn transport(&self) -> &'static str {
        self.0.transport
    }

    /// What the transport was doing.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// Of an [`ErrorKind::Conflict`], the name of an argument that differs, as the broker calls it:
    /// `durable`, `x-max-length`, ….
    #[must_use]
    pub fn conflicting_argument(&self) -> Option<&str> {
        self.0.argument.as_deref()
    }

    /// Whether a message whose publish failed with this error was consumed.
    ///
    /// "Not executed" only for what names this very message: returned, or never sent. An error of
    /// the channel ends every publish on it alike, so even "not found" proves nothing about the one
    /// at hand. Nor does a negative confirm: a full queue gives it, and so does one that crashed
    /// after it had delivered the message.
    #[must_use]
    pub fn certainty(&self) -> Certainty {
        match self.0.kind {
            ErrorKind::Blocked
            | ErrorKind::Misuse
            | ErrorKind::NoRoute
            | ErrorKind::TooLarge
            | ErrorKind::Unsupported => Certainty::NotExecuted,
            _ if self.0.unsent => Certainty::NotExecuted,
            ErrorKind::Refused if is(Mutant::NackIsNotExecuted) => Certainty::NotExecuted,
            _ => Certainty::MaybeExecuted,
        }
    }

    /// Builders are used on an error that nobody else holds yet; on a shared one they start anew
    /// with what can be copied, and the shared one becomes the source.
    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            change(inner);
            return self;
        }
        let mut inner = Inner {
            kind: self.0.kind,
            transport: self.0.transport,
            operation: self.0.operation,
            detail: self.0.detail.clone(),
            argument: self.0.argument.clone(),
            unsent: self.0.unsent,
            source: Some(Box::new(self)),
        };
        change(&mut inner);
        Self(Arc::new(inner))
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            kind,
            transport,
            operation,
            detail,
            ..
        } = &*self.0;
        write!(f, "{transport} {operation}: {}", kind.words())?;
        match detail {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportError")
            .field("kind", &self.0.kind)
            .field("transport", &self.0.transport)
            .field("operation", &self.0.operation)
            .field("detail", &self.0.detail)
            .field("argument", &self.0.argument)
            .field("unsent", &self.0.unsent)
            .field("source", &self.0.source)
            .finish()
    }
}

impl Error for TransportError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_for_people_and_the_chain_for_the_rest() {
        let error = TransportError::new(ErrorKind::Connect, "lapin", "connect")
            .with_detail("127.0.0.1:5672")
            .with_source(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        assert_eq!(
            error.to_string(),
            "lapin connect: cannot connect (127.0.0.1:5672)"
        );
        assert_eq!(error.source().unwrap().to_string(), "connection refused");
    }

    #[test]
    fn an_error_of_the_channel_leaves_open_whether_the_request_ran() {
        let error = TransportError::new(ErrorKind::NotFound, "lapin", "publish");
        assert_eq!(error.certainty(), Certainty::MaybeExecuted);
        assert_eq!(error.clone().unsent().certainty(), Certainty::NotExecuted);
        assert_eq!(
            error.certainty(),
            Certainty::MaybeExecuted,
            "the shared one is untouched"
        );
    }
}
