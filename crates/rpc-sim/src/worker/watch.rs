//! What an onlooker at a worker sees, and what it must look like.

use rpc_proto::server::Request;
use rpc_proto::{HeaderValue, Message, Reason, ShortString, wire as form};

use crate::ledger::Ledger;
use crate::rule::Rule;
use crate::setting::{MAX_HOPS, Setting};
use crate::time::{MS, Micros};

/// What is remembered of one life of a worker.
#[derive(Debug)]
pub(super) struct Watch {
    /// Since when requests have begun that had waited for too long, without a break.
    standing_since: Option<Micros>,
}

impl Watch {
    pub(super) const fn new() -> Self {
        Self {
            standing_since: None,
        }
    }

    /// A handler begins.
    pub(super) fn begins(
        &mut self,
        ledger: &mut Ledger,
        setting: &Setting,
        now: Micros,
        (worker, request): (usize, &Request),
        correlation_id: Option<&ShortString>,
    ) {
        let Some((call, attempt)) = ledger.find(correlation_id) else {
            return;
        };
        let plan = setting.calls[call];
        if plan.hops > MAX_HOPS {
            let detail = format!("it came through {} services", plan.hops);
            ledger.breach(Rule::HopLimit, Some(call), detail);
        }
        let record = &ledger.calls[call];
        let (Some((_, deadline)), sent) = (record.begun, record.attempts[attempt].at) else {
            return;
        };
        // How much later the worker takes it to be than the caller does, in milliseconds.
        let ahead = setting.skew[setting.clients + worker] - setting.skew[plan.client];
        if ahead.abs() >= MAX_SKEW_MS {
            return;
        }
        let behind = u64::try_from(-ahead).unwrap_or(0) * MS;
        if now > deadline + behind + ROUNDING {
            let late = now - deadline;
            let detail = format!("it began {late} us after its deadline");
            ledger.breach(Rule::NoExpiredStart, Some(call), detail);
        }
        // One caller with another clock, and the worker sees other waits than we do.
        let agreed = setting.skew.iter().all(|&skew| skew == 0);
        if setting.admission && agreed && !request.redelivered {
            self.waited(ledger, call, now, now - sent, deadline - sent);
        }
    }

    /// A request that came for the first time begins, after it has waited for so long.
    fn waited(
        &mut self,
        ledger: &mut Ledger,
        call: usize,
        now: Micros,
        waited: Micros,
        timeout: Micros,
    ) {
        if waited <= timeout / 2 + ROUNDING {
            self.standing_since = None;
            return;
        }
        let since = *self.standing_since.get_or_insert(now);
        if now > since + STANDING + ROUNDING {
            let detail = format!("it began after {waited} of {timeout} us, like those before it");
            ledger.breach(Rule::Shedding, Some(call), detail);
        }
    }

    /// A reply goes out.
    pub(super) fn replies(ledger: &mut Ledger, setting: &Setting, now: Micros, message: &Message) {
        let reason = message.headers.get(form::REASON);
        if reason.and_then(HeaderValue::as_text) != Some(Reason::Shed.as_str()) {
            return;
        }
        let Some((call, attempt)) = ledger.find(message.correlation_id.as_ref()) else {
            return;
        };
        let record = &ledger.calls[call];
        let (Some((_, deadline)), sent) = (record.begun, record.attempts[attempt].at) else {
            return;
        };
        let skewed = setting.skew.iter().any(|&skew| skew != 0);
        if !skewed && now - sent + 2 * ROUNDING < (deadline - sent) / 2 {
            let waited = now - sent;
            let detail = format!("shed, and had waited for {waited} us only");
            ledger.breach(Rule::Shedding, Some(call), detail);
        }
    }
}

/// What the service answers to a call of this number.
pub(crate) fn answer(call: usize) -> String {
    (call as u64)
        .wrapping_mul(7919)
        .wrapping_add(13)
        .to_string()
}

/// Deadlines travel in whole milliseconds, and clocks are read in them.
const ROUNDING: Micros = 4 * MS;
/// Beyond this a caller's clock is not believed.
const MAX_SKEW_MS: i64 = 50_000;
/// For how long a queue may stay long.
const STANDING: Micros = 100 * MS;
