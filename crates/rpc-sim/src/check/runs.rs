//! How often a request may have run.

use crate::ledger::{Call, Execution};
use crate::rule::Rule;
use crate::setting::Setting;

/// Nothing runs more often than it was sent and came back, nor than its service promises.
pub(super) fn executions(setting: &Setting, call: &Call, breach: &mut impl FnMut(Rule, String)) {
    let ran = call.executions.len();
    let again: usize = call.attempts.iter().map(|one| one.redeliveries).sum();
    let disowned: usize = call.attempts.iter().map(|one| one.disowned).sum();
    let most = call.attempts.len() + again + disowned;
    if ran > most {
        let attempts = call.attempts.len();
        breach(
            Rule::Executions,
            format!("{ran} executions of {attempts} attempts and {again} redeliveries"),
        );
    }
    for (place, attempt) in call.attempts.iter().enumerate() {
        let of = |run: &&Execution| run.attempt == place;
        let ran = call.executions.iter().filter(of).count();
        if setting.at_most_once && ran > 1 + attempt.forgotten {
            breach(Rule::AtMostOnce, format!("it ran {ran} times"));
        }
        let times = attempt.forwarded;
        let most = match setting.quarantine {
            // A queue that does not count gives nobody a second chance.
            Some(limit) => {
                let each = if setting.quorum { limit as usize } else { 1 };
                let elsewhere = attempt.disowned + attempt.turned_away;
                1 + each * times + elsewhere + attempt.forgotten
            }
            None if setting.quorum => 1 + setting.delivery_limit as usize,
            None => continue,
        };
        if ran > most {
            let detail = format!("it ran {ran} times, and was put in quarantine {times} times");
            breach(Rule::Poison, detail);
        }
    }
    if setting.dedup {
        deduplicated(call, breach);
    }
}

/// While an answer is kept, or still worked on, nothing runs again under its key.
fn deduplicated(call: &Call, breach: &mut impl FnMut(Rule, String)) {
    for (place, run) in call.executions.iter().enumerate() {
        let again = call.executions[..place].iter().find(|one| {
            (one.worker, one.life, &one.message_id) == (run.worker, run.life, &run.message_id)
                && !matches!(one.finished, Some((at, false)) if at <= run.at)
        });
        if let Some(one) = again {
            let detail = format!("it ran at {}, and again at {} us", one.at, run.at);
            breach(Rule::DedupOnce, detail);
        }
    }
}
