//! The token bucket that keeps the retries of a client from becoming the load.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::RetryPolicy;
use super::usual::Usual;
use crate::mutants::{Mutant, is};

/// Tokens that all calls of a client share: each failure takes one, successes give it back bit by
/// bit. At half of them or fewer nothing is repeated. It also knows how long an answer usually takes.
///
/// While all is well it costs a call two looks, and now and then a note.
#[derive(Debug)]
pub struct Budget {
    most: u32,
    gain: u32,
    tokens: AtomicU32,
    usual: Usual,
}

/// What makes a token: tokens come back in parts.
const TOKEN: u32 = 1000;

impl Budget {
    /// A full one.
    #[must_use]
    pub fn new(policy: &RetryPolicy) -> Self {
        let most = policy.tokens.saturating_mul(TOKEN);
        Self {
            most,
            gain: TOKEN / policy.successes_per_token.clamp(1, TOKEN),
            tokens: AtomicU32::new(most),
            usual: Usual::default(),
        }
    }

    /// A call has ended with a result, and its last attempt took this long.
    pub fn handle_success(&self, took: Duration) {
        self.usual.observe(took);
        if self.now() < self.most {
            self.change(|tokens| tokens.saturating_add(self.gain).min(self.most));
        }
    }

    /// An attempt has failed in a way that costs a token.
    pub fn handle_failure(&self) {
        if !is(Mutant::BudgetNeverCharged) {
            self.change(|tokens| tokens.saturating_sub(TOKEN));
        }
    }

    /// Whether an attempt may be repeated.
    #[must_use]
    pub fn allows(&self) -> bool {
        self.now() > self.most / 2
    }

    /// How long an attempt that is answered usually takes: about the median over all methods, which
    /// moves with the last few dozen answers. Zero until there is one.
    #[must_use]
    pub fn usual_time(&self) -> Duration {
        self.usual.now()
    }

    /// Whole tokens that are left.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.now() / TOKEN
    }

    fn now(&self) -> u32 {
        self.tokens.load(Ordering::Relaxed)
    }

    fn change(&self, change: impl Fn(u32) -> u32) {
        // A count that nothing else hangs on: no order is needed.
        let _ = self
            .tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| {
                Some(change(tokens))
            });
    }
}
