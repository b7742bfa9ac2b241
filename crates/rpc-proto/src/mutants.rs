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
    /// What is acknowledged before it runs does not run.
    AckedAndDropped,
    /// What is acknowledged before it runs is acknowledged again when it has run.
    AcksTwice,
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
    /// A cancellation of no request that runs here stops one that does.
    CancelStopsAnother,
    /// A clock by which all is overdue is believed for ever.
    ClockIsNeverDoubted,
    /// A call that its own client ends is said not to have been executed.
    ClosedIsNotExecuted,
    /// The confirm of the request counts as its answer.
    ConfirmIsReply,
    /// What one queue counted is taken for the count of another.
    CountIsCarriedAlong,
    /// The answer to one request is kept for all requests of the method.
    DedupByMethod,
    /// A request that runs is not known until it has ended.
    DedupForgetsRunning,
    /// A request whose reply nobody can get is rejected, not acknowledged.
    DiscardsTheHopeless,
    /// The end of an earlier connection ends the calls of this one.
    DisconnectOfAnyGeneration,
    /// What comes in time does not rehabilitate a clock.
    DoubtIsNeverOver,
    /// A worker that drains begins what waits.
    DrainBegins,
    /// A request that is late by its caller's clock alone is said never to run.
    ExpiredByHintIsNotExecuted,
    /// The deadline is not looked at again when a request has its turn.
    ExpiredRuns,
    /// A request that is too late to begin is said to have been stopped.
    ExpiredSaysTimedOut,
    /// An attempt after the first has no timer.
    ForgottenTimer,
    /// A request that is passed on has half of its time left.
    ForwardHalvesLife,
    /// A request is acknowledged although quarantine has not confirmed it.
    ForwardTimeoutAcked,
    /// A request that was passed on runs where it was, too.
    ForwardedRunsHereToo,
    /// A call that is given up is said not to have been executed.
    GivenUpIsNotExecuted,
    /// The caller's clock may move a deadline back.
    HintExtends,
    /// The caller's clock is believed, whatever it says.
    HintIsAlwaysBelieved,
    /// Services may call each other in a circle.
    HopLimitIgnored,
    /// Waits are not drawn from the seed alone.
    JitterOfTheMoment,
    /// Deliveries that joined another are not settled with it.
    JoinedIsForgotten,
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
    /// After a connection was lost no call starts, although there is another.
    NeverUpAgain,
    /// Each attempt has a message id of its own.
    NewMessageId,
    /// A worker that speaks up after its caller has gone is not told.
    NoticeComesTooLate,
    /// What is poison is acknowledged, and not rejected.
    PoisonAcked,
    /// What was in quarantine is tried for ever.
    PoisonNeverGivenUp,
    /// One delivery too few makes a request poison.
    PoisonTooSoon,
    /// What was shed is sent again at once.
    PushbackIgnored,
    /// What is in quarantine is taken for never delivered before.
    QuarantineIsFirstDelivery,
    /// A request that is refused is not acknowledged.
    RefusedIsNotSettled,
    /// A request is acknowledged although its reply was not confirmed at its first delivery.
    ReplyTimeoutAcked,
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
    /// What may have been shed before runs when it comes again.
    SecondShedRuns,
    /// Once there were too many, all are refused.
    ShedsForEver,
    /// A reply of no open call is taken for one.
    StrayReplyPanics,
    /// A request is given up after one reply that ended with its connection.
    StruckOutTooSoon,
    /// A handler that was given up and comes back is counted for ever.
    StuckForEver,
    /// What may have killed a worker runs among the others.
    SuspectsRunAmongOthers,
    /// A request is too late a moment before its deadline.
    TooLateTooSoon,
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
