//! No request is just gone, and dead letters are those that the policy wants.

use std::collections::BTreeMap;

use rpc_proto::HeaderValue;

use crate::ledger::{Call, EXPIRED};
use crate::mix::Fault;
use crate::rule::Rule;
use crate::setting::Plan;
use crate::time::{MS, Micros};
use crate::worker::DEAD;
use crate::world::World;

/// What the broker answers for comes to an end that somebody wanted.
///
/// There is no fault that excuses it: neither a crash of the broker nor anybody's death takes a
/// request that was confirmed in a durable queue.
pub(super) fn requests(
    world: &World,
    call: &Call,
    plan: &Plan,
    breach: &mut impl FnMut(Rule, String),
) {
    let setting = &world.setting;
    let Some((_, due)) = call.begun else { return };
    for (place, attempt) in call.attempts.iter().enumerate() {
        let dropped = attempt.gone.iter().any(|(_, why)| *why != LOST);
        let settled = attempt.answered || dropped || setting.at_most_once && attempt.begun;
        if attempt.confirmed && !settled {
            let detail = format!("attempt {place} was confirmed, and is gone");
            breach(Rule::NotLost, detail);
        }
        // Whoever passes a request on gives it as long as its own clock leaves it.
        let ahead = attempt.forwarders.iter();
        let ahead = ahead.map(|&worker| setting.ahead(worker, plan.client));
        let early = Micros::try_from(ahead.max().unwrap_or(0)).unwrap_or(0);
        for (at, _) in attempt.gone.iter().filter(|(_, why)| *why == EXPIRED) {
            if at + early + ROUNDING < due {
                let left = due - at;
                let detail = format!("attempt {place} was dropped with {left} us left");
                breach(Rule::NotLost, detail);
            }
        }
        // What is not persistent goes with the broker.
        let stays = setting.durable || !world.wire.mix.has(Fault::BrokerCrash);
        // A worker that keeps an answer gives that, and not the word of one whose connection was lost
        // before it could reject the request.
        let known = setting.dedup && attempt.plain > 0;
        if attempt.condemned > 0 && attempt.dead.is_empty() && stays && !known {
            let detail = format!("attempt {place} is poison, and among no dead letters");
            breach(Rule::DeadLetters, detail);
        }
    }
}

/// What is found among the dead letters is what went there, each with its cause.
pub(super) fn dead_letters(world: &World, breach: &mut impl FnMut(usize, String)) {
    if !world.setting.durable {
        return;
    }
    let mut found: BTreeMap<(usize, usize), Vec<&str>> = BTreeMap::new();
    for message in world.broker.messages(&DEAD) {
        let cause = message.headers.get(CAUSE).and_then(HeaderValue::as_text);
        if let Some(attempt) = world.ledger.find(message.correlation_id.as_ref()) {
            found.entry(attempt).or_default().extend(cause);
        }
    }
    for (call, record) in world.ledger.calls.iter().enumerate() {
        for (place, attempt) in record.attempts.iter().enumerate() {
            let mut found = found.remove(&(call, place)).unwrap_or_default();
            let taken = attempt.gone.iter().map(|&(_, why)| why);
            let mut taken: Vec<_> = taken.filter(|&why| why != LOST).collect();
            found.sort_unstable();
            taken.sort_unstable();
            if found != taken {
                breach(
                    call,
                    format!("attempt {place} died of {taken:?}, and is kept for {found:?}"),
                );
            }
        }
    }
}

const LOST: &str = "lost";
/// Where the broker says why a dead letter is one.
const CAUSE: &str = "x-first-death-reason";
/// Lives are in whole milliseconds.
const ROUNDING: Micros = 4 * MS;
