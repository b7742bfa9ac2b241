//! The promises that are checked, each with a name, and what a broken one looks like.

use std::fmt;

/// Declares the rules with the sentence that each stands for.
macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// A promise.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Rule {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Rule {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

rules! {
    /// A request is acknowledged only after its answer is out, or cannot be.
    AnswerBeforeAck = "answer-before-ack",
    /// What ran under at most once ran once at most, and was acknowledged before.
    AtMostOnce = "at-most-once",
    /// Attempts share a message id and never a correlation id, and there are four at most that cost.
    Attempts = "attempts",
    /// Retries of what may have run stay within the budget.
    Budget = "budget",
    /// A caller that gives up stops its handler within a second, where nothing is lost.
    Cancelled = "cancelled",
    /// What a worker rejects for good is poison, its caller is told so unless that costs a connection
    /// each time, and it is kept; and what a caller is told to be poison is among the dead letters.
    DeadLetters = "dead-letters",
    /// While a result is stored, a request of the same key does not run again.
    DedupOnce = "dedup-once",
    /// A draining worker begins nothing.
    DrainBeginsNothing = "drain-begins-nothing",
    /// Every call ends, and by its deadline.
    EndsInTime = "ends-in-time",
    /// A call ends once.
    EndsOnce = "ends-once",
    /// No more executions than attempts and redeliveries.
    Executions = "executions",
    /// What came through too many services does not run.
    HopLimit = "hop-limit",
    /// "Executed" is said of what ran.
    HonestExecuted = "honest-executed",
    /// "Not executed" is said of what did not run and never will.
    HonestNotExecuted = "honest-not-executed",
    /// When a request kills its worker, no suspect runs there beside it and nothing is being passed on,
    /// unless one of the two has waited for the other as long as it has to.
    Isolation = "isolation",
    /// Calls end as lost with their connection, and with no other.
    LostIsLost = "lost-is-lost",
    /// After faults have stopped, everybody has a connection again.
    Reconnects = "reconnects",
    /// After faults have stopped, calls succeed.
    Liveness = "liveness",
    /// Nothing starts after its deadline.
    NoExpiredStart = "no-expired-start",
    /// A request that the broker answers for is answered, cancelled, or dropped when its time is over
    /// or its deliveries are used up; under at most once it may have begun instead. It is never just
    /// gone.
    NotLost = "not-lost",
    /// A machine panics at nothing that happens.
    NoPanic = "no-panic",
    /// A request that kills its workers does so a few times at most, and none is called so that has
    /// not been delivered in vain as often as it may be.
    Poison = "poison",
    /// When the service says to wait, or to stop, its callers do.
    Pushback = "pushback",
    /// After faults have stopped, queues drain.
    QueuesDrain = "queues-drain",
    /// Too late is said only when it is, by the clocks that the worker has.
    RefusedEarly = "refused-early",
    /// A request whose reply nobody can get is not tried for ever.
    RequeueEnds = "requeue-ends",
    /// What may have run is tried again only if it may run twice; what ran, never.
    RetryRules = "retry-rules",
    /// A result is right, and that of its call.
    RightAnswer = "right-answer",
    /// Same seed, same trace.
    SameTrace = "same-trace",
    /// A worker is not overrun: the overdue are shed while there is too much, and only then.
    Shedding = "shedding",
    /// When all calls have ended, nothing of them is left in the tables.
    TablesEmpty = "tables-empty",
    /// A delivery is settled once at most, on the connection it came on.
    TokenOnce = "token-once",
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Which.
    pub rule: Rule,
    /// When it was noticed, in microseconds of virtual time.
    pub at: u64,
    /// The call, by its number in the world, if it is about one.
    pub call: Option<usize>,
    /// What was seen.
    pub detail: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} us", self.rule, self.at)?;
        if let Some(call) = self.call {
            write!(f, ", call {call}")?;
        }
        write!(f, ": {}", self.detail)
    }
}
