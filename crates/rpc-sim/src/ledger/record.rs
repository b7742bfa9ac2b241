//! What is written down of a call: its attempts, what became of each on its way, its executions.

use rpc_proto::{Certainty, Pushback, ShortString};

use crate::time::Micros;

/// A call, from its beginning to its end.
#[derive(Debug, Default)]
pub(crate) struct Call {
    /// Begun, and by then due.
    pub(crate) begun: Option<(Micros, Micros)>,
    pub(crate) ended: Option<(Micros, End)>,
    /// Its client was killed: nobody waits.
    pub(crate) orphaned: bool,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) executions: Vec<Execution>,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Ok,
    Failed(Certainty, String),
    /// The caller did not wait for it.
    GivenUp,
}

/// One attempt at a call, and what became of its request.
#[derive(Debug, Default)]
pub(crate) struct Attempt {
    pub(crate) at: Micros,
    pub(crate) message_id: Option<ShortString>,
    pub(crate) ended: Option<Failure>,
    /// The broker has said that it answers for the request, and its queue outlives it.
    pub(crate) confirmed: bool,
    pub(crate) redeliveries: usize,
    /// How often of these the broker did not say so, and when first: it had forgotten.
    pub(crate) forgotten: usize,
    pub(crate) forgotten_at: Option<Micros>,
    /// A worker has given it a slot: under at most once nothing comes of it if that one dies now.
    pub(crate) begun: bool,
    /// An answer of any kind reached the broker, or it is certain that none will.
    pub(crate) answered: bool,
    /// What workers answered of requests that they did not run to the end.
    pub(crate) refusals: Vec<Refusal>,
    /// Workers that handed the request on to the quarantine queue.
    pub(crate) forwarders: Vec<usize>,
    /// How often it got there.
    pub(crate) forwarded: usize,
    /// How often of these the broker did not answer for it: it ran where it was, too.
    pub(crate) disowned: usize,
    /// How often the quarantine queue was full: it ran where it was.
    pub(crate) turned_away: usize,
    /// The most deliveries in vain that a copy in quarantine has had.
    pub(crate) strikes: u32,
    /// Answers of another kind than that it is poison, which reached the broker or never will.
    pub(crate) plain: usize,
    /// Answers that it is poison, which reached the broker or never will.
    pub(crate) condemned: usize,
    /// Copies that the broker took out of their queue, and why.
    pub(crate) gone: Vec<(Micros, &'static str)>,
    /// Those of them that are among the dead letters, and why.
    pub(crate) dead: Vec<&'static str>,
}

/// How an attempt failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) at: Micros,
    pub(crate) certainty: Certainty,
    /// What the service said of trying again.
    pub(crate) pushback: Option<Pushback>,
    /// Because there were too many.
    pub(crate) shed: bool,
    /// One lost connection ended this attempt and others with it: that costs no token.
    pub(crate) loss: bool,
}

/// A worker has answered in place of the handler.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) at: Micros,
    pub(crate) worker: usize,
    pub(crate) reason: String,
}

/// One start of a handler.
#[derive(Debug)]
pub(crate) struct Execution {
    pub(crate) at: Micros,
    /// The place of its attempt among those of the call.
    pub(crate) attempt: usize,
    pub(crate) worker: usize,
    pub(crate) message_id: Option<ShortString>,
    /// Which life of the worker.
    pub(crate) life: u32,
    /// When it ended, and whether it had run to an end of its own.
    pub(crate) finished: Option<(Micros, bool)>,
}

/// A request as its handler gets it.
#[derive(Debug)]
pub(crate) struct Started<'a> {
    pub(crate) correlation_id: Option<&'a ShortString>,
    pub(crate) message_id: Option<&'a ShortString>,
    pub(crate) worker: usize,
    pub(crate) life: u32,
}

/// How much happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Calls begun.
    pub calls: u64,
    /// Calls that ended with a result.
    pub ok: u64,
    /// Calls that ended with an error.
    pub failed: u64,
    /// Attempts.
    pub attempts: u64,
    /// Requests that are among the dead letters, one for each copy.
    pub dead_letters: u64,
    /// Handlers started.
    pub executions: u64,
    /// Deliveries marked as repeated.
    pub redeliveries: u64,
    /// Events of the world.
    pub events: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.ok += other.ok;
        self.failed += other.failed;
        self.attempts += other.attempts;
        self.dead_letters += other.dead_letters;
        self.executions += other.executions;
        self.redeliveries += other.redeliveries;
        self.events += other.events;
    }
}
