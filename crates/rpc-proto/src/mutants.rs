//! Planted bugs: a test switches one on, and the simulator must find it.
//!
//! A simulator that finds nothing proves nothing until it is known what it would have found. Each
//! mutant is one wrong decision, at the place where the right one is taken, and of a kind that
//! people really make. Without the feature `mutants` they are not compiled in.

/// Declares the mutants with what each does wrong.
macro_rules! mutants {
    ($($(#[doc = $doc:literal])+ $variant:ident,)+) => {
        /// A planted bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        #[cfg_attr(not(feature = "mutants"), allow(dead_code, unreachable_pub))]
        pub enum Mutant {
            $($(#[doc = $doc])+ $variant,)+
        }

        #[cfg(feature = "mutants")]
        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];
        }
    };
}

mutants! {
    /// A request is acknowledged before it runs, although it is to run at least once.
    AckBeforeReply,
    /// What is to run at most once is acknowledged after it ran.
    AtMostOnceAcksLate,
    /// What is to run at most once runs again when it is delivered again.
    AtMostOnceRunsAgain,
    /// Attempts that may have been executed are not counted.
    AttemptsWithoutEnd,
    /// Failures take no token.
    BudgetNeverCharged,
    /// A call that is given up stays in the table.
    CancelLeaks,
    /// The confirm of the request counts as its answer.
    ConfirmIsReply,
    /// The answer to one request is kept for all requests of the method.
    DedupByMethod,
    /// A request that runs is not known until it has ended.
    DedupForgetsRunning,
    /// The end of an earlier connection ends the calls of this one.
    DisconnectOfAnyGeneration,
    /// A worker that drains begins what waits.
    DrainBegins,
    /// The deadline is not looked at again when a request has its turn.
    ExpiredRuns,
    /// An attempt after the first has no timer.
    ForgottenTimer,
    /// Services may call each other in a circle.
    HopLimitIgnored,
    /// A call ends with its last error, whatever an earlier attempt may have done.
    LastErrorSpeaksForAll,
    /// A reply of no open call ends the one that is due first.
    LateReplyEndsAnother,
    /// The link stays down after its third failed attempt.
    LinkGivesUp,
    /// A call whose connection was lost is said not to have been executed.
    LossIsNotExecuted,
    /// A request with a negative confirm is said not to have been executed.
    NackIsNotExecuted,
    /// However long requests wait, none is refused.
    NeverSheds,
    /// Each attempt has a message id of its own.
    NewMessageId,
    /// A worker that speaks up after its caller has gone is not told.
    NoticeComesTooLate,
    /// What was in quarantine is tried for ever.
    PoisonNeverGivenUp,
    /// What was shed is sent again at once.
    PushbackIgnored,
    /// A request whose reply nobody can get goes back to its queue.
    RequeueForEver,
    /// What may have been executed is tried again, whether or not it may run twice.
    RetryNonIdempotent,
    /// The next attempt may come after the deadline.
    RetryPastDeadline,
    /// All attempts have the id of the first.
    ReusedId,
    /// A refusal at a second delivery says that the request has not been executed.
    SecondRefusalIsNotExecuted,
    /// Once there were too many, all are refused.
    ShedsForEver,
    /// What may have killed a worker runs among the others.
    SuspectsRunAmongOthers,
    /// Nobody waits for a suspect, nor for what is passed on.
    TurnsIgnored,
    /// A call that was not confirmed by its deadline is said not to have been executed.
    UnconfirmedIsNotExecuted,
    /// An error with a number that nobody defined reads as a success.
    UnknownStatusIsSuccess,
}

#[cfg(feature = "mutants")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in everything that this thread does from now on, or none.
#[cfg(feature = "mutants")]
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.set(mutant);
}

/// Whether this bug is planted.
#[cfg(feature = "mutants")]
pub(crate) fn is(mutant: Mutant) -> bool {
    PLANTED.get() == Some(mutant)
}

/// Whether this bug is planted: never.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn is(_: Mutant) -> bool {
    false
}
