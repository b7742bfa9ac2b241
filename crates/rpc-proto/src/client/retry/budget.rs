//! The token bucket that keeps the retries of a client from becoming the load.

use std::sync::atomic::{AtomicU32, Ordering};

use super::RetryPolicy;
use crate::mutants::{Mutant, is};

/// Tokens that all calls of a client share: each failure takes one, successes give it back bit by
/// bit. At half of them or fewer nothing is repeated.
///
/// While all is well it costs a call one look.
#[derive(Debug)]
pub struct Budget {
    most: u32,
    gain: u32,
    tokens: AtomicU32,
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
        }
    }

    /// A call has ended with a result.
    pub fn handle_success(&self) {
        if self.now() < self.most {
            self.change(|tokens| tokens.saturating_add(self.gain).min(self.most));
        }
    }

    /// An attempt has failed, and may have been executed.
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
