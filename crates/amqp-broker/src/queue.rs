//! How each kind of work queue is declared.

use rpc_core::{ErrorKind, Misdeclared, QueueKind, QueueSpec, ShortString};

/// How long a transient queue stays without a consumer, in milliseconds.
const TRANSIENT_UNUSED: i64 = 60_000;

/// One `queue.declare`, in no client library's types.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueDeclaration {
    /// The name of the queue.
    pub name: ShortString,
    /// Only check that it is there. The broker ignores everything else then.
    pub passive: bool,
    /// Keep it over a restart.
    pub durable: bool,
    /// Only for this connection, and gone with it.
    pub exclusive: bool,
    /// Gone with its last consumer.
    pub auto_delete: bool,
    /// Names and values.
    pub arguments: Vec<(&'static str, Argument)>,
}

/// The value of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a transport must write all of them"
)]
pub enum Argument {
    /// A long string on the wire.
    Text(String),
    /// A signed integer of 64 bits on the wire. Brokers compare numbers whatever their size.
    Integer(i64),
}

/// Why a queue is not declared: nothing was said to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Undeclarable {
    /// It is of a kind that is newer than this crate.
    #[error("this kind of queue is not known here")]
    Kind,
    /// No broker could declare it.
    #[error(transparent)]
    Misdeclared(#[from] Misdeclared),
}

impl Undeclarable {
    /// The kind of error that it is.
    #[must_use]
    pub const fn error_kind(&self) -> ErrorKind {
        match self {
            Self::Kind => ErrorKind::Unsupported,
            Self::Misdeclared(_) => ErrorKind::Misuse,
        }
    }
}

impl QueueDeclaration {
    /// An inbox: a queue for one consumer of one connection, to be declared under an empty name so
    /// that the broker makes up one that nobody can guess.
    pub const INBOX: Self = Self {
        name: ShortString::from_static(""),
        passive: false,
        durable: false,
        exclusive: true,
        auto_delete: true,
        arguments: Vec::new(),
    };

    const fn named(name: ShortString) -> Self {
        Self {
            name,
            passive: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            arguments: Vec::new(),
        }
    }

    /// How `queue` is declared: one after the other, the queue for its dead letters first.
    ///
    /// A plain durable queue has no argument at all, so that the `queue_declare(name, durable=True)`
    /// of any script agrees with it. None is both non-durable and non-exclusive, which RabbitMQ 4
    /// refuses: a transient one is durable and goes when nobody uses it.
    ///
    /// # Errors
    ///
    /// [`Undeclarable`], and then nothing is to be declared.
    pub fn all_of(queue: &QueueSpec) -> Result<Vec<Self>, Undeclarable> {
        queue.check()?;
        let dead = queue.dead_letter_queue()?;
        let mut this = Self::limited(queue).ok_or(Undeclarable::Kind)?;
        let mut all = Vec::new();
        if let Some(dead) = dead {
            this.set("x-dead-letter-exchange", Argument::Text(String::new()));
            let key = dead.name.as_str().to_owned();
            this.set("x-dead-letter-routing-key", Argument::Text(key));
            all.push(Self::limited(&dead).ok_or(Undeclarable::Kind)?);
        }
        all.push(this);
        Ok(all)
    }

    /// All but where its dead letters go.
    fn limited(queue: &QueueSpec) -> Option<Self> {
        let mut this = Self::of_kind(queue)?;
        if this.passive {
            return Some(this);
        }
        if let Some(limit) = queue.delivery_limit() {
            this.set("x-delivery-limit", Argument::Integer(limit.into()));
        }
        if let Some(length) = queue.max_length() {
            this.set("x-max-length", Argument::Integer(length.into()));
            // As it comes, the broker would drop the oldest, and tell nobody.
            let overflow = if queue.keeps_newest() {
                "drop-head"
            } else {
                "reject-publish"
            };
            this.set("x-overflow", Argument::Text(overflow.to_owned()));
        }
        Some(this)
    }

    fn of_kind(queue: &QueueSpec) -> Option<Self> {
        let mut this = Self::named(queue.name.clone());
        match queue.kind {
            QueueKind::Passive => this.passive = true,
            QueueKind::Durable => this.durable = true,
            QueueKind::Quorum => {
                this.durable = true;
                this.set("x-queue-type", Argument::Text("quorum".to_owned()));
            }
            QueueKind::Transient => {
                this.durable = true;
                this.auto_delete = true;
                // Auto-deletion waits for a first consumer, and a broker that crashed forgets the
                // last.
                this.set("x-expires", Argument::Integer(TRANSIENT_UNUSED));
            }
            _ => return None,
        }
        Some(this)
    }

    fn set(&mut self, name: &'static str, value: Argument) {
        self.arguments.push((name, value));
    }
}

/// The name of the argument that differs, in what RabbitMQ says when a queue exists with others
/// (reply code 406).
#[must_use]
pub fn conflicting_argument(said: &str) -> Option<&str> {
    let (_, after) = said.split_once("inequivalent arg '")?;
    let (name, _) = after.split_once('\'')?;
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: ShortString = ShortString::from_static("q");

    fn one(queue: &QueueSpec) -> QueueDeclaration {
        let [declaration] = <[_; 1]>::try_from(QueueDeclaration::all_of(queue).unwrap()).unwrap();
        declaration
    }

    fn text(text: &str) -> Argument {
        Argument::Text(text.to_owned())
    }

    #[test]
    fn a_durable_queue_is_that_of_the_tutorial() {
        let durable = one(&QueueSpec::durable(NAME));
        assert_eq!(
            durable,
            QueueDeclaration {
                durable: true,
                ..QueueDeclaration::named(NAME)
            }
        );
    }

    #[test]
    fn a_quorum_queue_has_limits_and_its_dead_letters_a_queue_before_it() {
        let all = QueueDeclaration::all_of(&QueueSpec::quorum(NAME)).unwrap();
        let [dead, queue] = <[_; 2]>::try_from(all).unwrap();
        assert_eq!(dead.name, "q.dead");
        assert_eq!(
            dead.arguments,
            [
                ("x-queue-type", text("quorum")),
                ("x-max-length", Argument::Integer(10_000)),
                ("x-overflow", text("drop-head")),
            ]
        );
        assert_eq!(queue.name, "q");
        assert_eq!(
            queue.arguments,
            [
                ("x-queue-type", text("quorum")),
                ("x-delivery-limit", Argument::Integer(20)),
                ("x-max-length", Argument::Integer(100_000)),
                ("x-overflow", text("reject-publish")),
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-routing-key", text("q.dead")),
            ]
        );
    }

    #[test]
    fn only_the_inbox_is_exclusive_and_only_it_does_not_survive_a_restart() {
        let inbox = QueueDeclaration::INBOX;
        assert!(inbox.exclusive && !inbox.durable);
        for kind in [QueueKind::Durable, QueueKind::Quorum, QueueKind::Transient] {
            let queue = one(&QueueSpec::new(NAME, kind));
            assert!(queue.durable && !queue.exclusive, "{kind:?}");
        }
    }

    #[test]
    fn a_passive_declaration_is_of_one_queue_whatever_else_is_said() {
        let mut queue = QueueSpec::quorum(NAME);
        queue.kind = QueueKind::Passive;
        let passive = one(&queue);
        assert!(passive.passive && passive.arguments.is_empty());
    }

    #[test]
    fn what_no_broker_can_declare_is_told_before_it_is_asked() {
        let counted = QueueSpec::durable(NAME).with_delivery_limit(3);
        let long = ShortString::new("x".repeat(251)).unwrap();
        for (queue, why) in [
            (counted, Misdeclared::NotCounted),
            (
                QueueSpec::quorum(ShortString::default()),
                Misdeclared::NoName,
            ),
            (
                QueueSpec::quorum(long.clone()),
                Misdeclared::LongName(ShortString::new("x".repeat(256)).unwrap_err()),
            ),
        ] {
            let told = QueueDeclaration::all_of(&queue);
            assert_eq!(told, Err(Undeclarable::Misdeclared(why)));
        }
        let elsewhere = QueueSpec::quorum(long).with_dead_letter_to(NAME);
        assert_eq!(QueueDeclaration::all_of(&elsewhere).unwrap()[0].name, "q");
    }

    #[test]
    fn the_argument_that_differs_is_read_from_the_words_of_the_broker() {
        let said = "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost \
                    '/': received none but current is the value '5' of type 'signedint'";
        assert_eq!(conflicting_argument(said), Some("x-max-length"));
        assert_eq!(conflicting_argument("PRECONDITION_FAILED - else"), None);
    }
}
