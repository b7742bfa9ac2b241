//! Why the broker refuses: precise in here, a kind of [`TransportError`] to the outside.

use rpc_core::{ErrorKind, Misdeclared, ShortString, TransportError};

/// What the broker answers in place of doing what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the transport was closed")]
    Closed,
    #[error("queue {0:?} was deleted")]
    Deleted(ShortString),
    #[error("inequivalent arg '{argument}' for queue {name:?}")]
    Differs {
        name: ShortString,
        argument: &'static str,
    },
    #[error("consumer of another transport")]
    ForeignConsumer,
    #[error("token of another transport")]
    ForeignToken,
    #[error("queue {name:?} holds {max} messages already")]
    Full { name: ShortString, max: usize },
    #[error("queue {0:?} belongs to another consumer")]
    Locked(ShortString),
    #[error(transparent)]
    Misdeclared(#[from] Misdeclared),
    #[error("there is no exchange {0:?}: the memory broker has the default one only")]
    NoExchange(ShortString),
    #[error("there is no queue {0:?}")]
    NoQueue(ShortString),
    #[error("no queue {0:?} to take it")]
    NoRoute(ShortString),
    #[error("publishers are blocked, and its time is up")]
    Overdue,
    #[error("the name {0:?} cannot be declared: it is reserved for the broker")]
    Reserved(ShortString),
    #[error("the connection was severed")]
    Severed,
    #[error("the memory broker does not know this kind of source")]
    UnknownSource,
}

impl Refusal {
    /// As the error of the verb `operation`.
    pub(crate) fn into_error(self, operation: &'static str) -> TransportError {
        let error =
            TransportError::new(self.kind(), "memory", operation).with_detail(self.to_string());
        match self {
            // Nothing of these has been put anywhere, and nothing will be.
            Self::Closed
            | Self::Full { .. }
            | Self::NoExchange(_)
            | Self::Overdue
            | Self::Severed => error.unsent(),
            Self::Differs { argument, .. } => error.with_conflicting_argument(argument),
            _ => error,
        }
    }

    /// Whether it is the transport that has ended, and not this one request that failed.
    pub(crate) const fn is_end(&self) -> bool {
        matches!(self, Self::Closed | Self::Severed)
    }

    const fn kind(&self) -> ErrorKind {
        match self {
            Self::Closed | Self::Severed => ErrorKind::Closed,
            Self::Differs { .. } => ErrorKind::Conflict,
            Self::ForeignConsumer
            | Self::ForeignToken
            | Self::Misdeclared(_)
            | Self::Reserved(_) => ErrorKind::Misuse,
            Self::Full { .. } => ErrorKind::Refused,
            Self::Locked(_) => ErrorKind::Denied,
            Self::Deleted(_) | Self::NoExchange(_) | Self::NoQueue(_) => ErrorKind::NotFound,
            Self::NoRoute(_) => ErrorKind::NoRoute,
            Self::Overdue => ErrorKind::Timeout,
            Self::UnknownSource => ErrorKind::Unsupported,
        }
    }
}
