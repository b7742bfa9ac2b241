//! What errors say of the handler, and where a limit of the promises excuses what is not so.

use rpc_proto::{Certainty, Reason};

use crate::ledger::{Attempt, Call, End, Execution, Refusal};
use crate::rule::Rule;
use crate::setting::{Plan, Setting};
use crate::time::{MS, Micros};
use crate::worker::MAX_SKEW;

/// What an error says of the handler is true.
pub(super) fn errors(
    setting: &Setting,
    call: &Call,
    plan: &Plan,
    breach: &mut impl FnMut(Rule, String),
) {
    let due = call.begun.map_or(0, |(_, due)| due);
    // Whether a worker's clock is so far ahead that the caller's is not believed there.
    let disbelieves = |run: &Execution| {
        let ahead = setting.ahead(run.worker, plan.client);
        run.at.saturating_add_signed(ahead) + ROUNDING > due + MAX_SKEW
    };
    let of = |place: usize| {
        call.executions
            .iter()
            .filter(move |run| run.attempt == place)
    };
    let ran = |(place, attempt): (usize, &Attempt)| {
        of(place)
            .filter(|run| !excused(setting, attempt, run, disbelieves(run)))
            .count()
    };
    for (place, attempt) in call.attempts.iter().enumerate() {
        let said = attempt.ended.map(|failure| failure.certainty);
        if said == Some(Certainty::NotExecuted) && ran((place, attempt)) > 0 {
            let detail = format!("attempt {place} was said not to have run, and did");
            breach(Rule::HonestNotExecuted, detail);
        }
    }
    let Some((_, End::Failed(certainty, reason))) = &call.ended else {
        return;
    };
    let runs: usize = call.attempts.iter().enumerate().map(ran).sum();
    match certainty {
        Certainty::NotExecuted if runs > 0 => {
            let detail = format!("{reason}, and it ran {runs} times");
            breach(Rule::HonestNotExecuted, detail);
        }
        Certainty::Executed if call.executions.is_empty() => {
            let detail = format!("{reason}, and it did not run");
            breach(Rule::HonestExecuted, detail);
        }
        _ => {}
    }
}

/// Whether nobody could know of this run of an attempt, for all that was said of it.
///
/// A worker whose clock is behind that of another, or so far ahead that it goes by its own alone, does
/// not see that a request has waited for so long that the other has shed it: it runs there if that
/// one's acknowledgement was lost. And where the
/// broker forgot in a crash that it had delivered a request, no worker sees that another has run or
/// refused it before.
fn excused(setting: &Setting, attempt: &Attempt, run: &Execution, disbelieves: bool) -> bool {
    let clock = |worker: usize| setting.skew[setting.clients + worker];
    let shed_by_a_faster_clock = |refusal: &Refusal| {
        refusal.reason == Reason::Shed.as_str()
            && refusal.at <= run.at
            && (clock(refusal.worker) > clock(run.worker) || disbelieves)
    };
    let shed = attempt.ended.is_some_and(|failure| failure.shed);
    if shed && attempt.redeliveries > 0 && attempt.refusals.iter().any(shed_by_a_faster_clock) {
        return true;
    }
    attempt.forgotten_at.is_some_and(|forgotten| {
        let refused = attempt.refusals.iter().map(|refusal| refusal.at).max();
        let after = run.at >= forgotten && refused.is_some();
        let before = run.at < forgotten && refused.is_some_and(|at| at >= forgotten);
        after || before
    })
}

/// Whether a probe was refused by a worker whose clock is so far ahead that the probe is too old for
/// it as soon as it comes, and not so far that it is not believed.
pub(super) fn outdated(setting: &Setting, call: &Call, plan: &Plan) -> bool {
    let (Some((_, due)), Some(attempt)) = (call.begun, call.attempts.last()) else {
        return false;
    };
    let Some(refusal) = attempt.refusals.last() else {
        return false;
    };
    // One that was shed first has less time at its next attempt.
    let whole = due - attempt.at;
    let ahead = setting.ahead(refusal.worker, plan.client);
    let ahead = Micros::try_from(ahead).unwrap_or(0) + ON_ITS_WAY;
    let enough = match refusal.reason.as_str() {
        "EXPIRED" | "HANDLER_TIMED_OUT" => whole,
        "SHED" if setting.admission => whole / 2,
        _ => return false,
    };
    (enough..=whole + MAX_SKEW + 2 * ON_ITS_WAY).contains(&ahead)
}

/// Times of day are read in milliseconds.
const ROUNDING: Micros = 4 * MS;
/// How long a probe may be on its way to a worker.
const ON_ITS_WAY: Micros = 100 * MS;
