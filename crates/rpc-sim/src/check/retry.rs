//! What may be tried again, when, and how often.

use rpc_proto::{Certainty, Pushback};

use crate::ledger::Call;
use crate::rule::Rule;
use crate::setting::Plan;
use crate::time::{MS, Micros, span};

/// Checks the attempts of one call against each other.
pub(super) fn attempts(plan: &Plan, call: &Call, breach: &mut impl FnMut(Rule, String)) {
    let Some((_, deadline)) = call.begun else {
        return;
    };
    let mut costly = 0;
    for (place, pair) in call.attempts.windows(2).enumerate() {
        let [one, two] = pair else { continue };
        if one.message_id.is_none() || one.message_id != two.message_id {
            let detail = format!("attempt {} has another message id", place + 1);
            breach(Rule::Attempts, detail);
        }
        let Some(failure) = one.ended else {
            breach(Rule::RetryRules, "tried again before it had failed".into());
            continue;
        };
        if two.at >= deadline {
            breach(Rule::RetryRules, "tried again after the deadline".into());
        }
        match failure.certainty {
            Certainty::NotExecuted => {}
            Certainty::Executed => breach(Rule::RetryRules, "tried again after it ran".into()),
            Certainty::MaybeExecuted => {
                costly += 1;
                if !plan.idempotent {
                    let detail = "tried again, may have run, and may not run twice";
                    breach(Rule::RetryRules, detail.into());
                }
                if two.at < failure.at + SHORTEST_BACKOFF && failure.pushback.is_none() {
                    breach(Rule::RetryRules, "tried again without a wait".into());
                }
            }
        }
        match failure.pushback {
            None => {}
            Some(Pushback::Never) => {
                breach(Rule::Pushback, "tried again, and was not to".into());
            }
            Some(Pushback::After(wait)) if two.at < failure.at + span(wait) => {
                breach(Rule::Pushback, "tried again before it was time".into());
            }
            Some(Pushback::After(_)) => {}
        }
    }
    if costly >= MAX_ATTEMPTS {
        let detail = format!("{} attempts that count", costly + 1);
        breach(Rule::Attempts, detail);
    }
}

/// Attempts of a call that count, the first among them.
const MAX_ATTEMPTS: usize = 4;
/// The first wait, less its jitter.
const SHORTEST_BACKOFF: Micros = 80 * MS;
