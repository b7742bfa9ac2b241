//! Whether a worker believes a caller's clock, as an onlooker can tell from what came to it.
//!
//! The broker would not have delivered what is overdue. So where all that comes is overdue by its
//! callers' clocks, and has been for a while, the clocks are wrong.

use rpc_proto::{Expiration, HeaderValue, Message, wire as form};

use super::watch::MAX_SKEW;
use crate::time::{MS, Micros, SECOND, span};

/// Since when all that came to one life of a worker has been overdue.
#[derive(Debug, Default)]
pub(super) struct Doubts(Option<Micros>);

impl Doubts {
    /// A delivery comes, at this time of day. Tells whether it is one of too many that are overdue.
    pub(super) fn takes(
        &mut self,
        message: &Message,
        redelivered: bool,
        unix_ms: u64,
        now: Micros,
    ) -> bool {
        let header = |name| message.headers.get(name).and_then(HeaderValue::as_int);
        let Some(due) = header(form::DEADLINE_MS) else {
            return false;
        };
        let left = due.saturating_sub(i64::try_from(unix_ms).unwrap_or(i64::MAX));
        let lives = message.expiration.map(Expiration::as_duration).map(span);
        let whole = header(form::TIMEOUT_MS)
            .and_then(|millis| u64::try_from(millis).ok())
            .map_or(lives, |millis| Some(millis * MS));
        let more = left.saturating_mul(1_000).max(0).unsigned_abs();
        let early = whole.map_or(0, |whole| more.saturating_sub(whole));
        let past = left.min(0).unsigned_abs() * MS;
        if past.max(early) > MAX_SKEW {
            // Too far off to tell anything.
            return false;
        }
        if past == 0 {
            self.0 = None;
        }
        if past == 0 || lives.is_none() || redelivered {
            return false;
        }
        let since = *self.0.get_or_insert(now);
        now - since >= PATIENCE
    }
}

const PATIENCE: Micros = 10 * SECOND;
