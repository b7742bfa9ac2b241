//! What an onlooker at a worker sees, and what it must look like by that worker's own clock.

use std::collections::BTreeMap;

use rpc_proto::{Message, Reason, ShortString, wire as form};

use crate::ledger::Ledger;
use crate::rule::Rule;
use crate::setting::{MAX_HOPS, Plan, Setting};
use crate::time::{MS, Micros};

/// What is remembered of one life of a worker.
#[derive(Debug)]
pub(super) struct Watch {
    worker: usize,
    /// Since when requests have begun that had waited for too long, without a break.
    standing_since: Option<Micros>,
    /// How often a reply to a call has ended with its connection.
    struck: BTreeMap<usize, usize>,
}

/// A delivery, as far as time is concerned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) at: Micros,
    /// How long its message had to live then.
    pub(super) lives: Option<Micros>,
    /// Told so, or from quarantine.
    pub(super) redelivered: bool,
    /// Its caller's clock is not believed, since all is overdue by it.
    pub(super) doubted: bool,
}

/// What a worker can know of a request's time.
#[derive(Clone, Copy, Debug)]
struct View {
    /// The moment from which on it is too late to begin, and the one until which it is not: they
    /// differ where nobody can say whether the caller's clock was believed.
    late_from: Micros,
    in_time_until: Micros,
    /// For how long it has waited, as the worker sees it, at most and at least.
    waited_most: Micros,
    waited_least: Micros,
    /// The whole time that it had.
    whole: Micros,
}

impl View {
    /// Of a request that was sent at `sent`, due at `due` by its caller's clock, at `now`.
    fn new(
        setting: &Setting,
        (worker, plan): (usize, Plan),
        (sent, due): (Micros, Micros),
        taken: Taken,
        now: Micros,
    ) -> Self {
        let ahead = setting.ahead(worker, plan.client);
        let whole = due - sent;
        let shift = |at: Micros, by: i64| at.saturating_add_signed(by);
        // By its own clock alone.
        let own_late = taken.lives.map_or(Micros::MAX, |lives| taken.at + lives);
        let own_waited = now - taken.at;
        // By that of the caller, which runs behind its own by `ahead`.
        let hint_late = shift(due, -ahead);
        let hint_waited = shift(now - sent, ahead);
        // By so much at least the two clocks contradict each other.
        let past = shift(taken.at, ahead).saturating_sub(due);
        let early = signed(sent) - signed(taken.at) - ahead;
        let apart = past.max(u64::try_from(early).unwrap_or(0));
        let (believed, not) = (
            apart < MAX_SKEW.saturating_sub(ROUNDING) && !taken.doubted,
            apart > MAX_SKEW + ROUNDING || taken.doubted,
        );
        let both_late = own_late.min(hint_late);
        let both_waited = own_waited.max(hint_waited);
        Self {
            late_from: if believed { both_late } else { own_late },
            in_time_until: if not { own_late } else { both_late },
            waited_most: if not { own_waited } else { both_waited },
            waited_least: if believed { both_waited } else { own_waited },
            whole,
        }
    }
}

impl Watch {
    pub(super) const fn new(worker: usize) -> Self {
        Self {
            worker,
            standing_since: None,
            struck: BTreeMap::new(),
        }
    }

    /// A handler is called.
    pub(super) fn starts(
        &self,
        ledger: &mut Ledger,
        setting: &Setting,
        taken: Taken,
        correlation_id: Option<&ShortString>,
    ) {
        let now = ledger.now;
        let Some((call, view)) = self.view(ledger, setting, taken, correlation_id) else {
            return;
        };
        let hops = setting.calls[call].hops;
        if hops > MAX_HOPS {
            let detail = format!("it came through {hops} services");
            ledger.breach(Rule::HopLimit, Some(call), detail);
        }
        if now > view.late_from.saturating_add(ROUNDING) {
            let late = now - view.late_from;
            let detail = format!("it began {late} us after its deadline");
            ledger.breach(Rule::NoExpiredStart, Some(call), detail);
        }
    }

    /// A reply has ended with its connection.
    pub(super) fn struck(&mut self, ledger: &Ledger, correlation_id: Option<&ShortString>) {
        if let Some((call, _)) = ledger.find(correlation_id) {
            *self.struck.entry(call).or_default() += 1;
        }
    }

    /// A request is settled without an answer, because that would end one more connection.
    pub(super) fn gives_up(&self, ledger: &mut Ledger, correlation_id: Option<&ShortString>) {
        let Some((call, _)) = ledger.find(correlation_id) else {
            return;
        };
        let struck = self.struck.get(&call).copied().unwrap_or_default();
        if struck < STRIKES {
            let detail = format!("given up after {struck} replies that ended with a connection");
            ledger.breach(Rule::AnswerBeforeAck, Some(call), detail);
        }
    }

    /// A request gets its slot.
    pub(super) fn admits(
        &mut self,
        ledger: &mut Ledger,
        setting: &Setting,
        taken: Taken,
        correlation_id: Option<&ShortString>,
    ) {
        let Some((call, view)) = self.view(ledger, setting, taken, correlation_id) else {
            return;
        };
        if !setting.admission {
            return;
        }
        if !taken.redelivered {
            self.waited(ledger, call, view);
        } else if view.waited_least > view.whole / 2 + ROUNDING {
            let waited = view.waited_least;
            let detail = format!("it came again after {waited} us, may have been shed, and ran");
            ledger.breach(Rule::Shedding, Some(call), detail);
        }
    }

    /// A request has its slot, and an answer from elsewhere: that the line is short, it shows as well.
    pub(super) fn passes(
        &mut self,
        ledger: &Ledger,
        setting: &Setting,
        taken: Taken,
        correlation_id: Option<&ShortString>,
    ) {
        if let Some((_, view)) = self.view(ledger, setting, taken, correlation_id)
            && !taken.redelivered
            && view.waited_least <= view.whole / 2 + ROUNDING
        {
            self.standing_since = None;
        }
    }

    fn view(
        &self,
        ledger: &Ledger,
        setting: &Setting,
        taken: Taken,
        correlation_id: Option<&ShortString>,
    ) -> Option<(usize, View)> {
        let (call, attempt) = ledger.find(correlation_id)?;
        let record = &ledger.calls[call];
        let (sent, (_, due)) = (record.attempts[attempt].at, record.begun?);
        let worker = (self.worker, setting.calls[call]);
        let view = View::new(setting, worker, (sent, due), taken, ledger.now);
        Some((call, view))
    }

    /// A request that came for the first time begins.
    fn waited(&mut self, ledger: &mut Ledger, call: usize, view: View) {
        let now = ledger.now;
        if view.waited_least <= view.whole / 2 + ROUNDING {
            self.standing_since = None;
            return;
        }
        let since = *self.standing_since.get_or_insert(now);
        if now > since + STANDING + ROUNDING {
            let (waited, whole) = (view.waited_least, view.whole);
            let detail = format!("it began after {waited} of {whole} us, like those before it");
            ledger.breach(Rule::Shedding, Some(call), detail);
        }
    }

    /// A reply goes out for a delivery. Nothing is known of one that joined another.
    pub(super) fn replies(
        &self,
        ledger: &mut Ledger,
        setting: &Setting,
        taken: Option<Taken>,
        message: &Message,
    ) {
        let Some(reason) = reason(message) else {
            return;
        };
        let Some((call, attempt)) = ledger.find(message.correlation_id.as_ref()) else {
            return;
        };
        ledger.refused((call, attempt), self.worker, reason);
        let now = ledger.now;
        let id = message.correlation_id.as_ref();
        let view = taken.and_then(|taken| self.view(ledger, setting, taken, id));
        let Some((_, view)) = view else { return };
        // A handler that was stopped may have been another delivery's, whose answer is kept.
        let is_late = reason == Reason::Expired.as_str()
            || reason == Reason::HandlerTimedOut.as_str() && !setting.dedup;
        if is_late && now.saturating_add(ROUNDING) < view.in_time_until {
            let left = view.in_time_until - now;
            let detail = format!("{reason}, with {left} us left");
            ledger.breach(Rule::RefusedEarly, Some(call), detail);
        }
        if reason == Reason::Shed.as_str() && view.waited_most + 2 * ROUNDING < view.whole / 2 {
            let waited = view.waited_most;
            let detail = format!("shed, and had waited for {waited} us only");
            ledger.breach(Rule::Shedding, Some(call), detail);
        }
    }
}

fn signed(at: Micros) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX)
}

/// Why a reply says that a request failed, in a word of the framework.
fn reason(reply: &Message) -> Option<&str> {
    reply.headers.get(form::REASON)?.as_text()
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
pub(crate) const MAX_SKEW: Micros = 60_000 * MS;
/// How many replies may end with their connections.
const STRIKES: usize = 3;
/// For how long a queue may stay long.
const STANDING: Micros = 100 * MS;
