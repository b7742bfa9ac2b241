//! How each kind of work queue is declared.

use rpc_core::{QueueKind, QueueSpec};

/// The flags and arguments of a `queue.declare`, in no client library's types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueDeclaration {
    /// Only check that it is there. The broker ignores everything else then.
    pub passive: bool,
    /// Keep it over a restart.
    pub durable: bool,
    /// Only for this connection, and gone with it.
    pub exclusive: bool,
    /// Gone with its last consumer.
    pub auto_delete: bool,
    /// Names and values; all are long strings on the wire.
    pub arguments: &'static [(&'static str, &'static str)],
}

impl QueueDeclaration {
    /// An inbox: a queue for one consumer of one connection, to be declared under an empty name so
    /// that the broker makes up one that nobody can guess.
    pub const INBOX: Self = Self {
        exclusive: true,
        auto_delete: true,
        ..Self::NOTHING
    };

    const NOTHING: Self = Self {
        passive: false,
        durable: false,
        exclusive: false,
        auto_delete: false,
        arguments: &[],
    };

    /// How `queue` is declared; `None` for a kind that is newer than this crate.
    ///
    /// A durable queue has no argument at all, so that the `queue_declare(name, durable=True)` of
    /// any script agrees with it.
    #[must_use]
    pub const fn of(queue: &QueueSpec) -> Option<Self> {
        Some(match queue.kind {
            QueueKind::Passive => Self {
                passive: true,
                ..Self::NOTHING
            },
            QueueKind::Durable => Self {
                durable: true,
                ..Self::NOTHING
            },
            QueueKind::Quorum => Self {
                durable: true,
                arguments: &[("x-queue-type", "quorum")],
                ..Self::NOTHING
            },
            QueueKind::Transient => Self {
                auto_delete: true,
                ..Self::NOTHING
            },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use rpc_core::ShortString;

    use super::*;

    fn of(kind: QueueKind) -> QueueDeclaration {
        QueueDeclaration::of(&QueueSpec::new(ShortString::from_static("q"), kind)).unwrap()
    }

    #[test]
    fn a_durable_queue_is_that_of_the_tutorial() {
        let durable = of(QueueKind::Durable);
        assert!(durable.durable && durable.arguments.is_empty());
        assert!(!durable.exclusive && !durable.auto_delete && !durable.passive);
    }

    #[test]
    fn only_the_inbox_is_exclusive() {
        const { assert!(QueueDeclaration::INBOX.exclusive) };
        for kind in [
            QueueKind::Durable,
            QueueKind::Passive,
            QueueKind::Quorum,
            QueueKind::Transient,
        ] {
            assert!(!of(kind).exclusive);
        }
    }
}
