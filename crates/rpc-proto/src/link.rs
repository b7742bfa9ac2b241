//! The link machine: when to make the next transport after one was lost, and from which address.
//!
//! ```text
//!              poll: Dial                 handle_up
//!  waiting ───────────────▶ dialling ─────────────────▶ up, generation n
//!     ▲                        │ handle_failed             │ handle_lost
//!     └────────────────────────┴───────────────────────────┘
//!                                   close ──▶ closed
//! ```
//!
//! A transport is one connection's worth of life. What a client or a server does over many of them
//! hangs on the [`Generation`]: replies, calls and acknowledgement tokens belong to one, and what
//! comes from an earlier one is too late.

use std::fmt;
use std::time::{Duration, Instant};

use crate::jitter::Jitter;
use crate::mutants::{Mutant, is};
use crate::{ErrorKind, TransportError, deadline_after};

/// The number of a transport in the life of a link, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(u64);

impl Generation {
    /// The first one, which is also the only one of a transport that was made elsewhere.
    pub const FIRST: Self = Self(1);

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How a link comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backoff {
    /// The longest wait after the first failed round over all addresses. It doubles with each.
    pub first: Duration,
    /// The longest wait at all. Two seconds keep a thousand clients below a thousand attempts a
    /// second, and bring everybody back within three of the broker's return.
    pub longest: Duration,
    /// The longest wait when it is the operator who must act: a wrong password, no permission, a
    /// queue of other arguments. Brokers and their logs do not thank for more.
    pub longest_refused: Duration,
    /// How long a connection must have held before the waits begin small again.
    pub healthy_after: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(2),
            longest_refused: Duration::from_secs(30),
            healthy_after: Duration::from_secs(5),
        }
    }
}

/// Whether there is a connection, for people and programs to watch.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LinkState {
    /// The owner has ended it.
    Closed,
    /// There is none yet, or none any more, and one is being made.
    Connecting {
        /// Attempts that have failed since the last connection.
        failed: u32,
        /// Why there is none; nothing at the very beginning.
        cause: Option<TransportError>,
    },
    /// There is none any more, and nobody makes another: the transport was given to us ready-made, or
    /// this process could not so much as begin to make one.
    Lost(TransportError),
    /// There is one.
    Up(Generation),
}

impl LinkState {
    /// Why there is no connection, or will be none any more; nothing when there is one.
    #[must_use]
    pub fn trouble(&self) -> Option<TransportError> {
        let error = |kind, detail: &str| {
            Some(TransportError::new(kind, "rpc", "connect").with_detail(detail))
        };
        match self {
            Self::Up(_) => None,
            Self::Closed => error(ErrorKind::Closed, "it was closed by its owner"),
            Self::Lost(cause)
            | Self::Connecting {
                cause: Some(cause), ..
            } => Some(cause.clone()),
            Self::Connecting { cause: None, .. } => {
                error(ErrorKind::Connect, "the first attempt is under way")
            }
        }
    }
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a driver must handle all of them")]
pub enum Step {
    /// Make a transport from this endpoint and set up on it what belongs there; then
    /// [`Link::handle_up`] or [`Link::handle_failed`].
    Dial(usize),
    /// Nothing until then.
    Wait(Instant),
    /// Nothing until something happens: it is up, or being dialled.
    Watch,
    /// Nothing any more.
    Stop,
}

/// The life of a client or a server over its transports.
#[derive(Debug)]
pub struct Link {
    backoff: Backoff,
    /// None: there will be no other transport than the first.
    endpoints: usize,
    endpoint: usize,
    jitter: Jitter,
    generation: Generation,
    phase: Phase,
    /// Attempts since a connection last held, and of them those since the last connection.
    attempts: u32,
    failed: u32,
    /// Attempts without a break that failed for what only an operator can mend.
    refused: usize,
    /// What was last told of as news, since the last connection.
    told: Option<ErrorKind>,
    cause: Option<TransportError>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed,
    Dialling,
    Lost,
    Up { since: Instant },
    Waiting { until: Instant },
}

impl Link {
    /// A link that has not been up yet, to one of so many endpoints, at least one. Which comes first is left to
    /// chance, so that many clients spread over a cluster.
    #[must_use]
    pub fn new(endpoints: usize, backoff: Backoff, seed: u64, now: Instant) -> Self {
        let mut jitter = Jitter::new(seed);
        let endpoints = endpoints.max(1);
        Self {
            backoff,
            endpoints,
            endpoint: jitter.below(endpoints),
            jitter,
            generation: Generation::default(),
            phase: Phase::Waiting { until: now },
            attempts: 0,
            failed: 0,
            refused: 0,
            told: None,
            cause: None,
        }
    }

    /// The link of a transport that was made elsewhere: up, and lost for good when that is.
    #[must_use]
    pub fn given(now: Instant) -> Self {
        let mut link = Self::new(1, Backoff::default(), 0, now);
        link.endpoints = 0;
        link.generation = Generation::FIRST;
        link.phase = Phase::Up { since: now };
        link
    }

    /// What to do now.
    #[must_use]
    pub fn poll(&mut self, now: Instant) -> Step {
        match self.phase {
            Phase::Closed | Phase::Lost => Step::Stop,
            Phase::Dialling | Phase::Up { .. } => Step::Watch,
            _ if is(Mutant::LinkGivesUp) && self.failed >= 3 => Step::Watch,
            Phase::Waiting { until } if until > now => Step::Wait(until),
            Phase::Waiting { .. } => {
                self.phase = Phase::Dialling;
                Step::Dial(self.endpoint)
            }
        }
    }

    /// The transport is there, and all that belongs on it. Returns its generation; nothing when the
    /// link was closed meanwhile, and then the transport is to be closed too.
    pub fn handle_up(&mut self, now: Instant) -> Option<Generation> {
        if !matches!(self.phase, Phase::Dialling) {
            return None;
        }
        self.phase = Phase::Up { since: now };
        self.generation = self.generation.next();
        self.failed = 0;
        self.refused = 0;
        self.told = None;
        self.cause = None;
        Some(self.generation)
    }

    /// The transport could not be made, or could not be set up. Tells whether an operator should read
    /// that: it is the first failure since there was a connection, or one of another kind than the last.
    pub fn handle_failed(&mut self, now: Instant, cause: TransportError) -> bool {
        if !matches!(self.phase, Phase::Dialling) {
            return false;
        }
        let kind = cause.kind();
        self.failed = self.failed.saturating_add(1);
        self.refused = if needs_operator(kind) {
            self.refused.saturating_add(1)
        } else {
            0
        };
        self.retreat(now, cause);
        self.told.replace(kind) != Some(kind)
    }

    /// Whether there is no use in waiting for a connection: at every address in turn the last attempt
    /// failed for what [only a person can mend](needs_operator). Attempts go on, in case one does.
    #[must_use]
    pub const fn needs_operator(&self) -> bool {
        matches!(self.phase, Phase::Dialling | Phase::Waiting { .. })
            && self.endpoints > 0
            && self.refused >= self.endpoints
    }

    /// The transport of this generation has ended. Tells whether that was news.
    pub fn handle_lost(
        &mut self,
        now: Instant,
        generation: Generation,
        cause: TransportError,
    ) -> bool {
        let Phase::Up { since } = self.phase else {
            return false;
        };
        if generation != self.generation {
            return false;
        }
        // A connection that never holds must not be made anew as fast as it is lost.
        if now.saturating_duration_since(since) >= self.backoff.healthy_after {
            self.attempts = 0;
        }
        if self.endpoints == 0 {
            self.phase = Phase::Lost;
            self.cause = Some(cause);
        } else {
            self.retreat(now, cause);
        }
        true
    }

    /// Nobody can make transports, for this reason. Only the owner's wish to end it stands above that.
    pub fn abandon(&mut self, cause: TransportError) {
        if !matches!(self.phase, Phase::Closed) {
            self.phase = Phase::Lost;
            self.cause = Some(cause);
        }
    }

    /// The owner ends it.
    pub fn close(&mut self) {
        self.phase = Phase::Closed;
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn state(&self) -> LinkState {
        match self.phase {
            Phase::Closed => LinkState::Closed,
            Phase::Up { .. } => LinkState::Up(self.generation),
            Phase::Lost => LinkState::Lost(self.cause.clone().unwrap_or_else(gone)),
            Phase::Dialling | Phase::Waiting { .. } => LinkState::Connecting {
                failed: self.failed,
                cause: self.cause.clone(),
            },
        }
    }

    /// The next address, after a wait that grows with each round over all of them.
    fn retreat(&mut self, now: Instant, cause: TransportError) {
        let refused = needs_operator(cause.kind());
        let longest = if refused {
            self.backoff.longest_refused
        } else {
            self.backoff.longest
        };
        let round = self.attempts / u32::try_from(self.endpoints).unwrap_or(u32::MAX);
        let doubled = self.backoff.first.saturating_mul(1 << round.min(16));
        let most = doubled.min(longest);
        // Half of it for certain, so that nobody hammers; half by chance, so that all keep apart.
        let wait = self.jitter.between(most / 2, most);
        self.attempts = self.attempts.saturating_add(1);
        self.endpoint = (self.endpoint + 1) % self.endpoints;
        self.phase = Phase::Waiting {
            until: deadline_after(now, wait),
        };
        self.cause = Some(cause);
    }
}

fn gone() -> TransportError {
    TransportError::new(ErrorKind::Closed, "rpc", "link")
}

/// Whether only a person can mend what failed: trying again at once is of no use then.
#[must_use]
pub const fn needs_operator(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Conflict
            | ErrorKind::Denied
            | ErrorKind::Misuse
            | ErrorKind::NotFound
            | ErrorKind::Unauthenticated
            | ErrorKind::Unsupported
    )
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a moment to begin at; it moves by hand"
)]
mod tests;
